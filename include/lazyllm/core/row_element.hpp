// What a row of numbers (a key, a value, a hidden state) is stored as: float, half, bfloat16, or 8-bit codes with a
// scale for the row. A row of n numbers takes row_size<Element>(n) elements; all conversions round to nearest even.
// The codes of 8 bits: symmetric, scale = (largest magnitude) / 127, as of activations (simd/quantized_rows.hpp).
#pragma once

#include <lazyllm/core/bfloat16.hpp>
#include <lazyllm/core/float16.hpp>

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

namespace lazyllm::inline v0 {

/// A byte of a row of 8-bit codes: a float, the row's scale, then a code in -127 .. 127 for each number, which is
/// scale * code; zeros up to a multiple of 4 bytes.
struct Int8 {
  std::int8_t code = 0;
  friend constexpr bool operator==(Int8, Int8) = default;
};
static_assert(sizeof(Int8) == 1);

/// What a row of numbers may be stored as.
template <class T>
concept RowElement =
    std::same_as<T, float> || std::same_as<T, Float16> || std::same_as<T, BFloat16> || std::same_as<T, Int8>;

/// Elements that a row of n numbers takes.
template <RowElement Element>
[[nodiscard]] constexpr std::size_t row_size(std::size_t n) {
  return std::same_as<Element, Int8> ? sizeof(float) + (n + 3) / 4 * 4 : n;
}

/// Bytes that a row of n numbers takes.
template <RowElement Element>
[[nodiscard]] constexpr std::size_t row_bytes(std::size_t n) {
  return row_size<Element>(n) * sizeof(Element);
}

namespace detail {

/// Rows whose largest magnitude lies below this count as zeros: 127 / it stays finite, and so do sums of thousands of
/// such quotients (attention's, times values of codes).
inline constexpr float smallest_row_magnitude = 0x1p-93f;

[[nodiscard]] inline float row_scale(const Int8* row) {
  float scale;
  std::memcpy(&scale, row, sizeof scale);
  return scale;
}

/// The codes of a row.
[[nodiscard]] inline const std::int8_t* row_codes(const Int8* row) { return &row[sizeof(float)].code; }

}  // namespace detail

/// Stores `row` at to [row_size(row.size())]. Int8 needs finite numbers.
template <RowElement Element>
void encode_row(std::span<const float> row, Element* to) {
  const std::size_t n = row.size();
  if constexpr (std::same_as<Element, float>) {
    std::copy(row.begin(), row.end(), to);
  } else if constexpr (std::same_as<Element, BFloat16>) {
    for (std::size_t i = 0; i < n; ++i) to[i] = to_bfloat16(row[i]);
  } else if constexpr (std::same_as<Element, Float16>) {
    for (std::size_t i = 0; i < n; ++i) to[i] = to_float16(row[i]);
  } else {
    std::int32_t largest_bits = 0;  // magnitudes compare as their bits do, and integers make vectors
    for (const float x : row) largest_bits = std::max(largest_bits, std::bit_cast<std::int32_t>(x) & 0x7fffffff);
    const float largest = std::bit_cast<float>(largest_bits);
    const bool zero = largest < detail::smallest_row_magnitude;
    const float scale = zero ? 0.0f : largest / 127.0f;
    const float inverse = zero ? 0.0f : 127.0f / largest;
    std::memcpy(reinterpret_cast<std::byte*>(to), &scale, sizeof scale);
    Int8* const codes = to + sizeof scale;
    constexpr float to_integer = 0x1.8p23f;  // adding it leaves the integer in the low bits, rounded to nearest even
    for (std::size_t i = 0; i < n; ++i) {
      const auto bits = std::bit_cast<std::int32_t>(row[i] * inverse + to_integer);
      codes[i].code = static_cast<std::int8_t>(bits - std::bit_cast<std::int32_t>(to_integer));
    }
    for (std::size_t i = n; i < row_size<Int8>(n) - sizeof scale; ++i) codes[i] = {};
  }
}

/// The numbers of a stored row.
template <RowElement Element>
void decode_row(const Element* from, std::span<float> row) {
  const std::size_t n = row.size();
  if constexpr (std::same_as<Element, float>) {
    std::copy_n(from, n, row.begin());
  } else if constexpr (std::same_as<Element, Int8>) {
    const float scale = detail::row_scale(from);
    const std::int8_t* const codes = detail::row_codes(from);
    for (std::size_t i = 0; i < n; ++i) row[i] = scale * static_cast<float>(codes[i]);
  } else {
    for (std::size_t i = 0; i < n; ++i) row[i] = to_float(from[i]);
  }
}

/// An element that is chosen at run time.
enum class RowFormat { float32, float16, bfloat16, int8 };

/// Calls f(an Element) for the element of `format` and returns its result.
template <class F>
decltype(auto) with_element(RowFormat format, F&& f) {
  switch (format) {
    case RowFormat::float16: return std::forward<F>(f)(Float16{});
    case RowFormat::bfloat16: return std::forward<F>(f)(BFloat16{});
    case RowFormat::int8: return std::forward<F>(f)(Int8{});
    default: return std::forward<F>(f)(float{});
  }
}

}  // namespace lazyllm::inline v0
