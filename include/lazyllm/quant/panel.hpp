// A panel: 16 output columns of a weight matrix over all K input features, in the order in which kernels read it.
// AffinePanel: codes [K / 32][K group of 4][16 columns][4], then half-precision scales [K / 32][16], then minima alike.
// FloatPanel: elements [K][16].
#pragma once

#include <lazyllm/core/float16.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lazyllm::inline v0 {

inline constexpr std::size_t panel_columns = 16;

namespace detail {

constexpr std::size_t round_up(std::size_t value, std::size_t step) { return (value + step - 1) / step * step; }

template <class T>
T load_as(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

}  // namespace detail

/// weight = scale * (code - ZeroPoint), or with a minimum: scale * code + minimum; one scale per column and 32 weights.
/// Codes are unsigned, Bits = 4 or 8. With 4 bits, byte i of a block holds weight i (low half) and i + 16 (high half).
template <int Bits, int ZeroPoint, bool HasMinimum>
struct AffinePanel {
  static_assert(Bits == 4 || Bits == 8);
  static constexpr std::size_t block_size = 32;
  static constexpr int bits = Bits;
  static constexpr int zero_point = ZeroPoint;
  static constexpr bool has_minimum = HasMinimum;
  static constexpr std::size_t code_bytes = std::size_t{Bits} * 4 * panel_columns;  // per block
  static constexpr std::size_t scale_bytes = 2 * panel_columns;                     // per block
  static constexpr bool reads_codes = true;                                         // kernels read QuantizedRows

  /// One column's part of a block.
  struct Entry {
    std::array<std::uint8_t, std::size_t{Bits} * 4> codes;
    Float16 scale;
    Float16 minimum;
  };

  [[nodiscard]] static constexpr std::size_t scale_offset(std::size_t blocks) { return blocks * code_bytes; }
  [[nodiscard]] static constexpr std::size_t minimum_offset(std::size_t blocks) {
    return blocks * (code_bytes + scale_bytes);
  }
  /// Bytes of a panel, a multiple of 64.
  [[nodiscard]] static constexpr std::size_t size_bytes(std::size_t blocks) {
    return detail::round_up(blocks * (code_bytes + scale_bytes * (HasMinimum ? 2 : 1)), 64);
  }

  static void store(std::byte* panel, std::size_t blocks, std::size_t block, std::size_t column, const Entry& entry) {
    for (std::size_t group = 0; group < std::size_t{Bits}; ++group) {
      std::memcpy(panel + block * code_bytes + (group * panel_columns + column) * 4, entry.codes.data() + group * 4, 4);
    }
    const std::size_t lane = block * scale_bytes + column * 2;
    std::memcpy(panel + scale_offset(blocks) + lane, &entry.scale, 2);
    if constexpr (HasMinimum) std::memcpy(panel + minimum_offset(blocks) + lane, &entry.minimum, 2);
  }

  [[nodiscard]] static Entry load(const std::byte* panel, std::size_t blocks, std::size_t block, std::size_t column) {
    Entry entry;
    for (std::size_t group = 0; group < std::size_t{Bits}; ++group) {
      std::memcpy(entry.codes.data() + group * 4, panel + block * code_bytes + (group * panel_columns + column) * 4, 4);
    }
    const std::size_t lane = block * scale_bytes + column * 2;
    entry.scale = detail::load_as<Float16>(panel + scale_offset(blocks) + lane);
    if constexpr (HasMinimum) entry.minimum = detail::load_as<Float16>(panel + minimum_offset(blocks) + lane);
    return entry;
  }
};

/// Weights as they are, float or Float16.
template <class T>
struct FloatPanel {
  using Element = T;
  static constexpr std::size_t block_size = 1;
  static constexpr bool reads_codes = false;  // kernels read float rows
  using Entry = T;

  [[nodiscard]] static constexpr std::size_t size_bytes(std::size_t blocks) {
    return detail::round_up(blocks * panel_columns * sizeof(T), 64);
  }
  static void store(std::byte* panel, std::size_t, std::size_t block, std::size_t column, const Entry& entry) {
    std::memcpy(panel + (block * panel_columns + column) * sizeof(T), &entry, sizeof(T));
  }
  [[nodiscard]] static Entry load(const std::byte* panel, std::size_t, std::size_t block, std::size_t column) {
    return detail::load_as<T>(panel + (block * panel_columns + column) * sizeof(T));
  }
};

}  // namespace lazyllm::inline v0
