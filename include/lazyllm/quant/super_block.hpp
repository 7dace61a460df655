// What Q4_K and Q5_K share: 256 weights in 8 sub-blocks of 32, weight = d * scale * code - d_min * minimum, with
// integer scales and minima of 6 bits; how those 16 integers are packed into 12 bytes; a quantiser; and all of the
// format but how a block stores its codes. Source of the packing: GGUF. The quantiser is our own.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/float16.hpp>
#include <lazyllm/quant/panel.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace lazyllm::inline v0::detail {

/// Scales and minima of 8 sub-blocks, integers of 6 bits.
struct SubBlockScales {
  std::array<std::uint8_t, 8> scale;
  std::array<std::uint8_t, 8> minimum;
};

/// Bytes 0 .. 3: scales 0 .. 3; bytes 4 .. 7: minima 0 .. 3; bytes 8 .. 11: the lower halves of scales 4 .. 7 (low) and
/// of minima 4 .. 7 (high), whose upper two bits are those of bytes 0 .. 7.
[[nodiscard]] inline SubBlockScales unpack_sub_scales(const std::array<std::uint8_t, 12>& bytes) {
  SubBlockScales result;
  for (std::size_t i = 0; i < 4; ++i) {
    result.scale[i] = bytes[i] & 63;
    result.minimum[i] = bytes[4 + i] & 63;
    result.scale[4 + i] = static_cast<std::uint8_t>((bytes[8 + i] & 15) | (bytes[i] >> 6 << 4));
    result.minimum[4 + i] = static_cast<std::uint8_t>(bytes[8 + i] >> 4 | bytes[4 + i] >> 6 << 4);
  }
  return result;
}
[[nodiscard]] inline std::array<std::uint8_t, 12> pack_sub_scales(const SubBlockScales& scales) {
  std::array<std::uint8_t, 12> bytes;
  for (std::size_t i = 0; i < 4; ++i) {
    bytes[i] = static_cast<std::uint8_t>(scales.scale[i] | scales.scale[4 + i] >> 4 << 6);
    bytes[4 + i] = static_cast<std::uint8_t>(scales.minimum[i] | scales.minimum[4 + i] >> 4 << 6);
    bytes[8 + i] = static_cast<std::uint8_t>((scales.scale[4 + i] & 15) | (scales.minimum[4 + i] & 15) << 4);
  }
  return bytes;
}

/// A half-precision number that is not below `value` (the largest half at most), for value >= 0.
[[nodiscard]] inline Float16 half_not_below(float value) {
  const Float16 half = to_float16(std::min(value, 65504.0f));
  return to_float(half) < value && half.bits < 0x7bff ? Float16{static_cast<std::uint16_t>(half.bits + 1)} : half;
}

[[nodiscard]] inline Float16 negated(Float16 value) { return {static_cast<std::uint16_t>(value.bits ^ 0x8000u)}; }

/// The code in [0, levels] nearest to `value`; 0 for NaN.
[[nodiscard]] inline int nearest_code(float value, float levels) {
  return static_cast<int>(std::lround(std::min(value > 0.0f ? value : 0.0f, levels)));
}

/// weight = scale * code - minimum.
struct CodeGrid {
  float scale, minimum;
  float levels;  // codes 0 .. levels

  [[nodiscard]] float inverse() const { return scale == 0.0f ? 0.0f : 1.0f / scale; }
  [[nodiscard]] std::uint8_t code(float x, float inverse_scale) const {
    return static_cast<std::uint8_t>(nearest_code((x + minimum) * inverse_scale, levels));
  }
  /// Sum of the squared errors of n values, a multiple of 8.
  [[nodiscard]] float squared_error(const float* x, std::size_t n) const {
    const float inverse_scale = inverse();
    std::array<float, 8> sums{};
    for (std::size_t i = 0; i < n; i += 8) {
      for (std::size_t j = 0; j < 8; ++j) {
        const auto nearest = static_cast<float>(nearest_code((x[i + j] + minimum) * inverse_scale, levels));
        const float error = scale * nearest - minimum - x[i + j];
        sums[j] += error * error;
      }
    }
    float sum = 0.0f;
    for (const float s : sums) sum += s;
    return sum;
  }
};

/// A super block as integers.
struct AffineSuperBlock {
  Float16 d, d_min;
  SubBlockScales scales;
  std::array<std::uint8_t, 256> codes;
};

/// d and d_min are the least that let every sub-block reach its own lowest and highest value (and zero). Then each
/// sub-block takes, of that grid, of grids up to a quarter narrower, and of the best one's neighbours, the integers
/// that give the least squared error.
[[nodiscard]] inline AffineSuperBlock quantize_super_block(const float* x, int levels) {
  constexpr std::size_t sub_blocks = 8, size = 32;
  const auto top = static_cast<float>(levels);
  AffineSuperBlock block{};
  std::array<float, sub_blocks> low{}, high{};  // low: how far below zero the values go
  for (std::size_t s = 0; s < sub_blocks; ++s) {
    const auto [lowest, highest] = std::minmax_element(x + s * size, x + (s + 1) * size);
    low[s] = std::max(-*lowest, 0.0f);
    high[s] = *highest;
  }
  block.d_min = half_not_below(*std::max_element(low.begin(), low.end()) / 63.0f);
  const float d_min = to_float(block.d_min), inverse_min = d_min == 0.0f ? 0.0f : 1.0f / d_min;
  const auto ceiling = [](float value) { return static_cast<float>(nearest_code(std::ceil(value), 63.0f)); };
  float widest = 0.0f;
  for (std::size_t s = 0; s < sub_blocks; ++s) {
    widest = std::max(widest, (high[s] + d_min * ceiling(low[s] * inverse_min)) / top);
  }
  block.d = half_not_below(widest / 63.0f);
  const float d = to_float(block.d), inverse_d = d == 0.0f ? 0.0f : 1.0f / d;

  for (std::size_t s = 0; s < sub_blocks; ++s) {
    const float* values = x + s * size;
    float best_scale = 0.0f, best_minimum = 0.0f, best_error = std::numeric_limits<float>::infinity();
    const auto consider = [&](float scale, float minimum) {
      if (!(scale >= 0.0f && scale <= 63.0f && minimum >= 0.0f && minimum <= 63.0f)) return;
      const float error = CodeGrid{d * scale, d_min * minimum, top}.squared_error(values, size);
      if (error < best_error) best_error = error, best_scale = scale, best_minimum = minimum;
    };
    for (int narrower = 0; narrower <= 8; ++narrower) {
      const float share = 1.0f - static_cast<float>(narrower) / 32.0f;
      const float minimum = ceiling(share * low[s] * inverse_min);
      consider(ceiling((share * high[s] + d_min * minimum) / top * inverse_d), minimum);
    }
    const float scale = best_scale, minimum = best_minimum;
    for (const float other : {scale - 1.0f, scale + 1.0f}) consider(other, minimum);
    for (const float other : {minimum - 1.0f, minimum + 1.0f}) consider(best_scale, other);
    block.scales.scale[s] = static_cast<std::uint8_t>(best_scale);
    block.scales.minimum[s] = static_cast<std::uint8_t>(best_minimum);
    const CodeGrid grid{d * best_scale, d_min * best_minimum, top};
    const float inverse = grid.inverse();
    for (std::size_t i = 0; i < size; ++i) block.codes[s * size + i] = grid.code(values[i], inverse);
  }
  return block;
}

/// d * scale * code - d_min * minimum: both products are exact in float.
inline void dequantize_super_block(const AffineSuperBlock& block, float* y) {
  for (std::size_t i = 0; i < 256; ++i) {
    const float scale = to_float(block.d) * static_cast<float>(block.scales.scale[i / 32]);
    const float minimum = to_float(block.d_min) * static_cast<float>(block.scales.minimum[i / 32]);
    y[i] = scale * static_cast<float>(block.codes[i]) - minimum;
  }
}

/// A format, but for its name. Stored: Block (how the file has it), bits of a code, and integers and stored, which turn
/// a Block into an AffineSuperBlock and back.
template <class Stored>
struct AffineSuperFormat {
  static constexpr std::size_t block_size = 256;
  using Block = typename Stored::Block;
  using Panel = AffinePanel<Stored::bits, 0, SuperScales<std::uint8_t, 32>, true>;

  static void quantize(std::span<const float> values, std::span<Block> blocks) {
    LAZYLLM_EXPECTS(values.size() == blocks.size() * block_size);
    constexpr int levels = (1 << Stored::bits) - 1;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      blocks[b] = Stored::stored(quantize_super_block(values.data() + b * block_size, levels));
    }
  }
  static void dequantize(std::span<const Block> blocks, std::span<float> out) {
    LAZYLLM_EXPECTS(out.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      dequantize_super_block(Stored::integers(blocks[b]), out.data() + b * block_size);
    }
  }

  /// A panel adds its minima: d_min changes its sign.
  [[nodiscard]] static typename Panel::Entry to_panel(const Block& block) {
    const AffineSuperBlock integers = Stored::integers(block);
    typename Panel::Entry entry{
        {}, {integers.d, integers.scales.scale}, {negated(integers.d_min), integers.scales.minimum}};
    for (std::size_t s = 0; s < 8; ++s) entry.codes[s] = Panel::pack(integers.codes.data() + s * 32);
    return entry;
  }
  [[nodiscard]] static Block from_panel(const typename Panel::Entry& entry) {
    AffineSuperBlock integers{
        entry.scale.super, negated(entry.minimum.super), {entry.scale.factor, entry.minimum.factor}, {}};
    for (std::size_t s = 0; s < 8; ++s) Panel::unpack(entry.codes[s], integers.codes.data() + s * 32);
    return Stored::stored(integers);
  }
};

}  // namespace lazyllm::inline v0::detail
