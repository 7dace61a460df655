#include <doctest/doctest.h>

#include <lazyllm/core/large_pages.hpp>

#include "support/build_kind.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <random>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using lazyllm::LargePageBuffer;
using Arena = lazyllm::detail::LargePageArena;

std::uintptr_t address(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

#if defined(__linux__)
constexpr bool has_arena = true;
#else
constexpr bool has_arena = false;
#endif

}  // namespace

TEST_CASE("buffers on large pages are 64-byte aligned and apart, whatever their sizes, and keep what is written") {
  Arena arena;
  std::mt19937 random(1);
  struct Piece {
    unsigned char* data;
    std::size_t size;
    unsigned char mark;
  };
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < 40; ++i) {
    const std::size_t size = 1 + random() % (3 * Arena::least_bytes);
    auto* const data = static_cast<unsigned char*>(arena.allocate(size));
    CHECK(address(data) % Arena::alignment == 0);
    std::memset(data, static_cast<int>(i), size);
    pieces.push_back({data, size, static_cast<unsigned char>(i)});
    if (i % 3 == 2) {  // one from the middle goes
      const auto gone = pieces.begin() + static_cast<std::ptrdiff_t>(random() % pieces.size());
      arena.deallocate(gone->data, gone->size);
      pieces.erase(gone);
    }
  }
  for (const Piece& piece : pieces) {
    CHECK(std::all_of(piece.data, piece.data + piece.size, [&](unsigned char c) { return c == piece.mark; }));
    arena.deallocate(piece.data, piece.size);
  }
  CHECK(arena.reserved_bytes() == 0);
}

TEST_CASE("a block of address space is shared by buffers, starts at a large page and goes with the last of them") {
  if constexpr (!has_arena) return;
  Arena arena;
  CHECK(arena.reserved_bytes() == 0);
  void* const small = arena.allocate(Arena::least_bytes - 1);
  CHECK(arena.reserved_bytes() == 0);
  void* const first = arena.allocate(Arena::least_bytes);
  void* const second = arena.allocate(Arena::least_bytes + 1);
  CHECK(arena.reserved_bytes() == Arena::block_bytes);
  CHECK(address(first) % Arena::page_bytes == 0);
  CHECK(address(second) == address(first) + Arena::least_bytes);
  void* const more = arena.allocate(Arena::block_bytes + 1);
  CHECK(arena.reserved_bytes() == 2 * Arena::block_bytes + Arena::page_bytes);
  arena.deallocate(first, Arena::least_bytes);
  CHECK(arena.reserved_bytes() == 2 * Arena::block_bytes + Arena::page_bytes);
  arena.deallocate(second, Arena::least_bytes + 1);
  CHECK(arena.reserved_bytes() == Arena::block_bytes + Arena::page_bytes);
  arena.deallocate(more, Arena::block_bytes + 1);
  CHECK(arena.reserved_bytes() == 0);
  arena.deallocate(small, Arena::least_bytes - 1);
}

TEST_CASE("memory that no system has is std::bad_alloc, and the arena goes on") {
  if (lazyllm::test::sanitized_build) {
    MESSAGE("skipped: sanitizers end a program that asks for so much");
    return;
  }
  Arena arena;
  CHECK_THROWS_AS((void)arena.allocate(SIZE_MAX / 2 - Arena::page_bytes), std::bad_alloc);
  CHECK(arena.reserved_bytes() == 0);
}

TEST_CASE("buffers on large pages come and go on several threads") {
  Arena arena;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&arena] {
      for (std::size_t i = 1; i <= 50; ++i) {
        auto* const p = static_cast<std::size_t*>(arena.allocate(i * 16384));
        *p = i;
        arena.deallocate(p, i * 16384);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(arena.reserved_bytes() == 0);
}

TEST_CASE("a LargePageBuffer holds its memory until it goes, and moves") {
  static_assert(std::is_nothrow_move_constructible_v<LargePageBuffer> &&
                !std::is_copy_constructible_v<LargePageBuffer>);
  CHECK(LargePageBuffer().data() == nullptr);
  CHECK(LargePageBuffer(0).size() == 0);
  const std::size_t before = Arena::instance().reserved_bytes();
  {
    LargePageBuffer buffer(2 * Arena::block_bytes);
    if (has_arena) CHECK(Arena::instance().reserved_bytes() == before + 2 * Arena::block_bytes);
    buffer.data()[buffer.size() - 1] = std::byte{7};
    const LargePageBuffer other = std::move(buffer);
    CHECK(other.size() == 2 * Arena::block_bytes);
    CHECK(other.data()[other.size() - 1] == std::byte{7});
  }
  CHECK(Arena::instance().reserved_bytes() == before);
}
