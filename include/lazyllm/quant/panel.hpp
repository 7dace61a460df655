// A panel: 16 output columns of a weight matrix over all K input features, in the order in which kernels read it.
// AffinePanel: one cell after the other, each of 2 or 8 blocks of 32 weights along K: codes [block][4 to 8 lines of 64
// bytes][16 columns][4], then the table of their scales, then that of their minima. So a panel is one stream of memory,
// and panels follow each other. FloatPanel: elements [K][16].
#pragma once

#include <lazyllm/core/bfloat16.hpp>
#include <lazyllm/core/float16.hpp>
#include <lazyllm/quant/scale_table.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lazyllm::inline v0 {

namespace detail {

constexpr std::size_t round_up(std::size_t value, std::size_t step) { return (value + step - 1) / step * step; }

}  // namespace detail

/// weight = scale * (code - ZeroPoint), or with a minimum: scale * code + minimum. Scales and minima lie in tables of
/// the type Scales. Codes are unsigned and come in groups of 4 along K, 8 groups a block of 32.
/// Bits = 4: line g of a block holds group g (low halves of the bytes) and group g + 4 (high halves).
/// Bits = 5 or 6: the lower four bits alike; then lines (one or two) of bytes that hold the upper bits: those of group
/// g stand in line high_line(g), from bit high_shift(g) on. Bits = 8: line g holds group g.
template <int Bits, int ZeroPoint, class Scales, bool HasMinimum>
struct AffinePanel {
  static_assert(Bits == 4 || Bits == 5 || Bits == 6 || Bits == 8);
  static constexpr std::size_t block_size = 32;
  static constexpr std::size_t entry_size = Scales::entry_size;
  static constexpr std::size_t parts = block_size / Scales::step;  // of a block, each with a scale of its own
  static_assert(parts == 1 || !HasMinimum);                        // activations have one scaled sum a block
  static constexpr int bits = Bits;
  static constexpr int high_bits = Bits == 8 ? 0 : Bits - 4;
  static constexpr int zero_point = ZeroPoint;
  static constexpr bool has_minimum = HasMinimum;
  static constexpr std::size_t code_bytes = std::size_t{Bits} * 4 * panel_columns;  // per block
  static constexpr std::size_t cell_blocks = Scales::blocks;
  static constexpr std::size_t cell_bytes = cell_blocks * code_bytes + Scales::size_bytes * (HasMinimum ? 2 : 1);
  static constexpr bool reads_codes = true;  // kernels read QuantizedRows
  using ScaleTable = Scales;
  /// One column's codes of a block: 4 bytes of each line.
  using BlockCodes = std::array<std::uint8_t, std::size_t{Bits} * 4>;

  /// One column's part of entry_size weights.
  struct Entry {
    std::array<BlockCodes, entry_size / block_size> codes;
    typename Scales::Entry scale;
    typename Scales::Entry minimum;
  };

  [[nodiscard]] static constexpr std::size_t high_line(std::size_t group) {
    return 4 + group * std::size_t{high_bits} / 8;
  }
  [[nodiscard]] static constexpr std::size_t high_shift(std::size_t group) {
    return group * std::size_t{high_bits} % 8;
  }

  /// Where the codes of a block of `panel` (constant or not) lie, and the tables of its cell.
  template <class Byte>
  [[nodiscard]] static Byte* codes(Byte* panel, std::size_t block) {
    return panel + block / cell_blocks * cell_bytes + block % cell_blocks * code_bytes;
  }
  template <class Byte>
  [[nodiscard]] static Byte* scales(Byte* panel, std::size_t block) {
    return panel + block / cell_blocks * cell_bytes + cell_blocks * code_bytes;
  }
  template <class Byte>
  [[nodiscard]] static Byte* minima(Byte* panel, std::size_t block) {
    return scales(panel, block) + Scales::size_bytes;
  }
  /// Where those tables have the scales of one part of a block.
  [[nodiscard]] static constexpr std::size_t scale_index(std::size_t block, std::size_t part) {
    return block % cell_blocks * parts + part;
  }
  /// Bytes of a panel, a multiple of 64.
  [[nodiscard]] static constexpr std::size_t size_bytes(std::size_t blocks) {
    return detail::round_up((blocks + cell_blocks - 1) / cell_blocks * cell_bytes, 64);
  }

  static void store(std::byte* panel, std::size_t index, std::size_t column, const Entry& entry) {
    const std::size_t first = index * entry.codes.size();
    for (std::size_t b = 0; b < entry.codes.size(); ++b) {
      std::byte* const target = codes(panel, first + b) + column * 4;
      for (std::size_t line = 0; line < std::size_t{Bits}; ++line) {
        std::memcpy(target + line * 4 * panel_columns, entry.codes[b].data() + line * 4, 4);
      }
    }
    Scales::store(scales(panel, first), scale_index(first, 0), column, entry.scale);
    if constexpr (HasMinimum) Scales::store(minima(panel, first), scale_index(first, 0), column, entry.minimum);
  }

  [[nodiscard]] static Entry load(const std::byte* panel, std::size_t index, std::size_t column) {
    Entry entry;
    const std::size_t first = index * entry.codes.size();
    for (std::size_t b = 0; b < entry.codes.size(); ++b) {
      const std::byte* const source = codes(panel, first + b) + column * 4;
      for (std::size_t line = 0; line < std::size_t{Bits}; ++line) {
        std::memcpy(entry.codes[b].data() + line * 4, source + line * 4 * panel_columns, 4);
      }
    }
    entry.scale = Scales::load(scales(panel, first), scale_index(first, 0), column);
    if constexpr (HasMinimum) entry.minimum = Scales::load(minima(panel, first), scale_index(first, 0), column);
    return entry;
  }

  /// 32 codes, one a byte, as they lie in a panel; and back.
  [[nodiscard]] static BlockCodes pack(const std::uint8_t* codes) {
    static_assert(Bits < 8);
    BlockCodes block{};
    for (std::size_t i = 0; i < 16; ++i) {
      block[i] = static_cast<std::uint8_t>((codes[i] & 15) | (codes[i + 16] << 4));
    }
    for (std::size_t i = 0; high_bits > 0 && i < block_size; ++i) {
      block[high_line(i / 4) * 4 + i % 4] |= static_cast<std::uint8_t>(codes[i] >> 4 << high_shift(i / 4));
    }
    return block;
  }
  static void unpack(const BlockCodes& block, std::uint8_t* codes) {
    static_assert(Bits < 8);
    for (std::size_t i = 0; i < 16; ++i) {
      codes[i] = block[i] & 15;
      codes[i + 16] = static_cast<std::uint8_t>(block[i] >> 4);
    }
    for (std::size_t i = 0; high_bits > 0 && i < block_size; ++i) {
      const int high = block[high_line(i / 4) * 4 + i % 4] >> high_shift(i / 4) & ((1 << high_bits) - 1);
      codes[i] = static_cast<std::uint8_t>(codes[i] | high << 4);
    }
  }
};

/// Weights as they are: float, Float16 or BFloat16.
template <class T>
struct FloatPanel {
  using Element = T;
  static constexpr std::size_t block_size = 1;
  static constexpr std::size_t entry_size = 1;
  static constexpr bool reads_codes = false;  // kernels read float rows
  using Entry = T;

  [[nodiscard]] static constexpr std::size_t size_bytes(std::size_t blocks) {
    return detail::round_up(blocks * panel_columns * sizeof(T), 64);
  }
  static void store(std::byte* panel, std::size_t block, std::size_t column, const Entry& entry) {
    std::memcpy(panel + (block * panel_columns + column) * sizeof(T), &entry, sizeof(T));
  }
  [[nodiscard]] static Entry load(const std::byte* panel, std::size_t block, std::size_t column) {
    return detail::load_as<T>(panel + (block * panel_columns + column) * sizeof(T));
  }
};

}  // namespace lazyllm::inline v0
