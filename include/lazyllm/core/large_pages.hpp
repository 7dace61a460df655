// Memory for weights: one run of address space for many buffers, on 2 MB pages where the system gives them.
// A decode step reads each weight once: with 4 KB pages it misses the TLB all the time, and a matrix of a small model
// is smaller than a large page. Elsewhere than on Linux, and for small buffers: operator new.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lazyllm::inline v0::detail {

/// Buffers lie behind each other in blocks of address space. A block goes back to the system with its last buffer; of a
/// buffer that goes before, its pages do. Thread-safe.
class LargePageArena {
 public:
  static constexpr std::size_t alignment = 64;
  static constexpr std::size_t page_bytes = std::size_t{2} << 20;
  static constexpr std::size_t block_bytes = std::size_t{256} << 20;
  static constexpr std::size_t least_bytes = std::size_t{64} << 10;  // smaller buffers gain nothing

  /// The one of this process; never destroyed, so that static buffers may outlive everything.
  static LargePageArena& instance() {
    static LargePageArena* const arena = new LargePageArena;
    return *arena;
  }

  /// At least `bytes`, untouched, 64-byte aligned. Throws std::bad_alloc.
  [[nodiscard]] void* allocate(std::size_t bytes) {
    if (void* const p = take(bytes)) return p;
    return ::operator new (bytes, std::align_val_t{alignment});
  }
  /// `bytes`: as given to allocate.
  void deallocate(void* p, std::size_t bytes) noexcept {
    if (!give_back(static_cast<std::byte*>(p), bytes)) ::operator delete (p, std::align_val_t{alignment});
  }

  /// Address space held at the moment.
  [[nodiscard]] std::size_t reserved_bytes() const {
    const std::lock_guard lock(mutex_);
    std::size_t sum = 0;
    for (const Block& block : blocks_) sum += block.size;
    return sum;
  }

 private:
  struct Block {
    std::byte* begin;
    std::size_t size, used, buffers;
  };

  static constexpr std::size_t round_up(std::size_t value, std::size_t step) {
    return (value + step - 1) / step * step;
  }

#if defined(__linux__)
  [[nodiscard]] void* take(std::size_t bytes) {
    if (bytes < least_bytes || bytes > SIZE_MAX / 2) return nullptr;
    bytes = round_up(bytes, alignment);
    const std::lock_guard lock(mutex_);
    if (blocks_.empty() || blocks_.back().size - blocks_.back().used < bytes) {
      blocks_.reserve(blocks_.size() + 1);
      const std::size_t size = std::max(block_bytes, round_up(bytes, page_bytes));
      std::byte* const begin = map(size);
      if (begin == nullptr) return nullptr;
      blocks_.push_back({begin, size, 0, 0});
    }
    Block& block = blocks_.back();
    std::byte* const p = block.begin + block.used;
    block.used += bytes;
    ++block.buffers;
    return p;
  }

  [[nodiscard]] bool give_back(std::byte* p, std::size_t bytes) noexcept {
    if (bytes < least_bytes) return false;
    const std::lock_guard lock(mutex_);
    const auto address = [](const std::byte* q) { return reinterpret_cast<std::uintptr_t>(q); };
    const auto block = std::find_if(blocks_.begin(), blocks_.end(), [&](const Block& b) {
      return address(p) >= address(b.begin) && address(p) - address(b.begin) < b.size;
    });
    if (block == blocks_.end()) return false;
    if (--block->buffers == 0) {
      munmap(block->begin, block->size);
      blocks_.erase(block);
      return true;
    }
    constexpr std::size_t small_page = 4096;
    const auto offset = static_cast<std::size_t>(p - block->begin);
    const std::size_t first = round_up(offset, small_page), last = (offset + bytes) / small_page * small_page;
    if (first < last) madvise(block->begin + first, last - first, MADV_DONTNEED);
    return true;
  }

  /// Untouched address space that starts at a large page. nullptr: the system refuses.
  [[nodiscard]] static std::byte* map(std::size_t size) {
    const std::size_t more = size + page_bytes;
    void* const mapped =
        mmap(nullptr, more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    auto* const start = static_cast<std::byte*>(mapped);
    const std::size_t skip =
        round_up(reinterpret_cast<std::uintptr_t>(start), page_bytes) - reinterpret_cast<std::uintptr_t>(start);
    if (skip != 0) munmap(start, skip);
    if (skip != page_bytes) munmap(start + skip + size, page_bytes - skip);
    madvise(start + skip, size, MADV_HUGEPAGE);  // where it is refused, small pages do
    return start + skip;
  }
#else
  [[nodiscard]] static void* take(std::size_t) { return nullptr; }
  [[nodiscard]] static bool give_back(std::byte*, std::size_t) noexcept { return false; }
#endif

  mutable std::mutex mutex_;
  std::vector<Block> blocks_;
};

}  // namespace lazyllm::inline v0::detail

namespace lazyllm::inline v0 {

/// Bytes for data that is used whole and stays, as weights do: not initialised, 64-byte aligned, on 2 MB pages where
/// there are. Moves, does not copy. Throws std::bad_alloc.
class LargePageBuffer {
 public:
  LargePageBuffer() = default;
  explicit LargePageBuffer(std::size_t size_bytes) {
    if (size_bytes == 0) return;
    data_ = {static_cast<std::byte*>(detail::LargePageArena::instance().allocate(size_bytes)), Free{size_bytes}};
  }

  [[nodiscard]] std::byte* data() { return data_.get(); }
  [[nodiscard]] const std::byte* data() const { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return data_ ? data_.get_deleter().size_bytes : 0; }

 private:
  struct Free {
    std::size_t size_bytes;
    void operator()(std::byte* p) const { detail::LargePageArena::instance().deallocate(p, size_bytes); }
  };

  std::unique_ptr<std::byte, Free> data_;
};

}  // namespace lazyllm::inline v0
