#include <doctest/doctest.h>

#include <lazyllm/core/aligned_buffer.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace {

using lazyllm::AlignedBuffer;

template <class T>
concept HasBuffer = requires {
  typename AlignedBuffer<T>;
};
static_assert(HasBuffer<float> && HasBuffer<std::byte>);
static_assert(!HasBuffer<std::string>);
static_assert(std::is_nothrow_move_constructible_v<AlignedBuffer<float>>);
static_assert(std::is_move_assignable_v<AlignedBuffer<float>>);
static_assert(!std::is_copy_constructible_v<AlignedBuffer<float>> && !std::is_copy_assignable_v<AlignedBuffer<float>>);

bool is_aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 64 == 0; }

}  // namespace

TEST_CASE("an AlignedBuffer starts at a multiple of 64 bytes whatever its size") {
  for (std::size_t size = 1; size < 300; size += 7) {
    AlignedBuffer<char> bytes(size);
    AlignedBuffer<double> doubles(size);
    CHECK(is_aligned(bytes.data()));
    CHECK(is_aligned(doubles.data()));
    CHECK(bytes.size() == size);
    CHECK(doubles.span().size() == size);
    doubles[size - 1] = 1.0;  // the last element belongs to the buffer (ASan looks)
    bytes[0] = 'x';
  }
}

TEST_CASE("an empty AlignedBuffer owns nothing") {
  const AlignedBuffer<float> none;
  const AlignedBuffer<float> zero(0);
  CHECK(none.data() == nullptr);
  CHECK(zero.data() == nullptr);
  CHECK(none.span().empty());
  CHECK(zero.size() == 0);
}

TEST_CASE("moving an AlignedBuffer moves its storage") {
  AlignedBuffer<int> first(3);
  first[2] = 7;
  const int* const storage = first.data();
  AlignedBuffer<int> second = std::move(first);
  CHECK(second.data() == storage);
  CHECK(second.size() == 3);
  AlignedBuffer<int> third(1);
  third = std::move(second);
  CHECK(third.data() == storage);
  CHECK(std::as_const(third)[2] == 7);
  CHECK(std::as_const(third).span()[2] == 7);
}

TEST_CASE("resize_discard keeps storage that is large enough and replaces storage that is not") {
  AlignedBuffer<float> buffer(100);
  const float* const storage = buffer.data();
  buffer.resize_discard(10);
  CHECK(buffer.size() == 10);
  CHECK(buffer.data() == storage);
  buffer.resize_discard(100);
  CHECK(buffer.size() == 100);
  CHECK(buffer.data() == storage);
  buffer.resize_discard(0);
  CHECK(buffer.size() == 0);
  buffer.resize_discard(101);
  CHECK(buffer.size() == 101);
  CHECK(is_aligned(buffer.data()));
  buffer[100] = 1.0f;
}

TEST_CASE("a size whose bytes overflow is refused, not wrapped") {
  const std::size_t wraps_to_zero = std::numeric_limits<std::size_t>::max() / sizeof(double) + 1;
  CHECK_THROWS_AS(AlignedBuffer<double>{wraps_to_zero}, std::bad_array_new_length);
  CHECK_THROWS_AS(AlignedBuffer<double>{std::numeric_limits<std::size_t>::max()}, std::bad_array_new_length);
}

TEST_CASE("a failed resize_discard leaves the buffer as it was") {
  AlignedBuffer<double> buffer(4);
  buffer[3] = 5.0;
  CHECK_THROWS_AS(buffer.resize_discard(std::numeric_limits<std::size_t>::max()), std::bad_array_new_length);
  CHECK(buffer.size() == 4);
  CHECK(buffer[3] == 5.0);
}

#ifndef NDEBUG
TEST_CASE("an index outside the buffer breaks the contract") {
  AlignedBuffer<int> buffer(2);
  CHECK_THROWS_AS(buffer[2], std::logic_error);
  CHECK_THROWS_AS(std::as_const(buffer)[2], std::logic_error);
}
#endif
