// The scales, or the minima, of a few blocks of a panel: for every `step` weights along K a vector of 16, one for each
// output column. HalfScales: Float16 [2][16]. SuperScales: integers [256 / step][16], then Float16 [16]; a scale is the
// product of both.
#pragma once

#include <lazyllm/core/float16.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lazyllm::inline v0 {

/// Output columns of a panel.
inline constexpr std::size_t panel_columns = 16;

namespace detail {

template <class T>
T load_as(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

}  // namespace detail

/// A half-precision scale per column and 32 weights. `index`, in both kinds of table: of a step of the table; of an
/// entry, that of its first step.
struct HalfScales {
  static constexpr std::size_t step = 32;        // weights of a column that share a scale
  static constexpr std::size_t entry_size = 32;  // weights of a column whose scales are stored together
  static constexpr std::size_t blocks = 2;       // of 32 weights, in a table: a cache line
  static constexpr std::size_t size_bytes = blocks * 2 * panel_columns;
  using Entry = Float16;

  /// The vector of 16 halves for step `index`.
  [[nodiscard]] static const std::byte* at(const std::byte* table, std::size_t index) {
    return table + index * 2 * panel_columns;
  }
  [[nodiscard]] static float scale(const std::byte* table, std::size_t index, std::size_t column) {
    return to_float(load(table, index, column));
  }
  static void store(std::byte* table, std::size_t index, std::size_t column, const Entry& entry) {
    std::memcpy(table + (index * panel_columns + column) * 2, &entry, 2);
  }
  [[nodiscard]] static Entry load(const std::byte* table, std::size_t index, std::size_t column) {
    return detail::load_as<Float16>(at(table, index) + 2 * column);
  }
};

/// An 8-bit integer per column and `Step` weights times a half-precision number per column and 256 weights: at most 19
/// significant bits, exact in float.
template <class Integer, std::size_t Step>
struct SuperScales {
  static_assert(sizeof(Integer) == 1 && (Step == 16 || Step == 32));
  static constexpr std::size_t step = Step;
  static constexpr std::size_t entry_size = 256;
  static constexpr std::size_t factors = entry_size / Step;  // integers of an Entry
  static constexpr std::size_t blocks = entry_size / 32;     // of 32 weights, in a table: one entry
  static constexpr std::size_t size_bytes = (factors + 2) * panel_columns;
  using Factor = Integer;
  struct Entry {
    Float16 super;
    std::array<Integer, factors> factor;
  };

  /// The vector of 16 integers for step `index`.
  [[nodiscard]] static const std::byte* at(const std::byte* table, std::size_t index) {
    return table + index * panel_columns;
  }
  /// The vector of 16 halves by which all those integers are multiplied.
  [[nodiscard]] static const std::byte* supers(const std::byte* table) { return table + factors * panel_columns; }
  [[nodiscard]] static float scale(const std::byte* table, std::size_t index, std::size_t column) {
    return static_cast<float>(detail::load_as<Integer>(at(table, index) + column)) *
           to_float(detail::load_as<Float16>(supers(table) + 2 * column));
  }
  static void store(std::byte* table, std::size_t, std::size_t column, const Entry& entry) {
    for (std::size_t i = 0; i < factors; ++i) {
      table[i * panel_columns + column] = static_cast<std::byte>(entry.factor[i]);
    }
    std::memcpy(table + factors * panel_columns + 2 * column, &entry.super, 2);
  }
  [[nodiscard]] static Entry load(const std::byte* table, std::size_t, std::size_t column) {
    Entry entry;
    for (std::size_t i = 0; i < factors; ++i) entry.factor[i] = detail::load_as<Integer>(at(table, i) + column);
    entry.super = detail::load_as<Float16>(supers(table) + 2 * column);
    return entry;
  }
};

}  // namespace lazyllm::inline v0
