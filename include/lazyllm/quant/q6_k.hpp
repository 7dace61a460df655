// Q6_K: 256 weights as 6-bit codes in sub-blocks of 16: weight = d * scale * (code - 32), scales signed 8-bit integers.
// 210 bytes a block: 128 bytes of lower halves, 64 of upper two bits, 16 scales, d. Of the 128 weights of each half,
// low byte i holds weights i and i + 64, high byte i weights i, i + 32, i + 64, i + 96. Source: GGUF; the quantiser is
// our own.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/quant/format.hpp>
#include <lazyllm/quant/panel.hpp>
#include <lazyllm/quant/super_block.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace lazyllm::inline v0 {

struct Q6_K {
  static constexpr std::string_view name = "Q6_K";
  static constexpr std::size_t block_size = 256;
  struct Block {
    std::array<std::uint8_t, 128> low;
    std::array<std::uint8_t, 64> high;
    std::array<std::int8_t, 16> scales;
    Float16 d;
  };
  static_assert(sizeof(Block) == 210);
  using Panel = AffinePanel<6, 32, SuperScales<std::int8_t, 16>, false>;

  /// d lets every sub-block give its value of the largest magnitude the code 0; each sub-block then takes the scale of
  /// the least squared error among those of about that size.
  static void quantize(std::span<const float> values, std::span<Block> blocks) {
    LAZYLLM_EXPECTS(values.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const float* x = values.data() + b * block_size;
      std::array<float, 16> wanted{};  // scales
      float largest = 0.0f;
      for (std::size_t s = 0; s < 16; ++s) {
        const float* first = x + s * 16;
        const auto magnitude = [](float one, float other) { return std::abs(one) < std::abs(other); };
        wanted[s] = *std::max_element(first, first + 16, magnitude) / -32.0f;
        largest = std::max(largest, std::abs(wanted[s]));
      }
      const Float16 half = detail::half_not_below(largest / 127.0f);
      const float d = to_float(half), inverse = d == 0.0f ? 0.0f : 1.0f / d;
      std::array<std::int8_t, 16> scales{};
      Codes codes{};
      for (std::size_t s = 0; s < 16; ++s) {
        float best = 0.0f, best_error = std::numeric_limits<float>::infinity();
        const float away_from_zero =
            wanted[s] < 0.0f ? std::floor(wanted[s] * inverse) : std::ceil(wanted[s] * inverse);
        for (int step = 0; step <= 12; ++step) {  // to a quarter smaller
          const float scale =
              std::clamp(std::trunc(away_from_zero * (1.0f - static_cast<float>(step) / 48.0f)), -127.0f, 127.0f);
          const float error = grid(d * scale).squared_error(x + s * 16, 16);
          if (error < best_error) best_error = error, best = scale;
        }
        scales[s] = static_cast<std::int8_t>(best);
        const detail::CodeGrid chosen = grid(d * best);
        for (std::size_t i = s * 16; i < (s + 1) * 16; ++i) codes[i] = chosen.code(x[i], chosen.inverse());
      }
      blocks[b] = stored(half, scales, codes);
    }
  }

  static void dequantize(std::span<const Block> blocks, std::span<float> out) {
    LAZYLLM_EXPECTS(out.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const Codes codes = codes_of(blocks[b]);
      const float d = to_float(blocks[b].d);
      float* y = out.data() + b * block_size;
      for (std::size_t i = 0; i < block_size; ++i) {
        y[i] = d * static_cast<float>(blocks[b].scales[i / 16]) * static_cast<float>(codes[i] - 32);
      }
    }
  }

  [[nodiscard]] static Panel::Entry to_panel(const Block& block) {
    Panel::Entry entry{{}, {block.d, block.scales}, {}};
    const Codes codes = codes_of(block);
    for (std::size_t i = 0; i < 8; ++i) entry.codes[i] = Panel::pack(codes.data() + i * 32);
    return entry;
  }
  [[nodiscard]] static Block from_panel(const Panel::Entry& entry) {
    Codes codes;
    for (std::size_t i = 0; i < 8; ++i) Panel::unpack(entry.codes[i], codes.data() + i * 32);
    return stored(entry.scale.super, entry.scale.factor, codes);
  }

 private:
  using Codes = std::array<std::uint8_t, block_size>;

  static detail::CodeGrid grid(float scale) { return {scale, 32.0f * scale, 63.0f}; }

  static Codes codes_of(const Block& block) {
    Codes codes;
    for (std::size_t i = 0; i < block_size; ++i) {
      const std::size_t half = i / 128, lane = i % 128;
      const int low = block.low[half * 64 + lane % 64] >> (lane / 64 * 4) & 15;
      const int high = block.high[half * 32 + lane % 32] >> (lane / 32 * 2) & 3;
      codes[i] = static_cast<std::uint8_t>(low | high << 4);
    }
    return codes;
  }
  static Block stored(Float16 d, const std::array<std::int8_t, 16>& scales, const Codes& codes) {
    Block block{{}, {}, scales, d};
    for (std::size_t i = 0; i < block_size; ++i) {
      const std::size_t half = i / 128, lane = i % 128;
      block.low[half * 64 + lane % 64] |= static_cast<std::uint8_t>((codes[i] & 15) << (lane / 64 * 4));
      block.high[half * 32 + lane % 32] |= static_cast<std::uint8_t>(codes[i] >> 4 << (lane / 32 * 2));
    }
    return block;
  }
};
static_assert(PackableFormat<Q6_K>);

}  // namespace lazyllm::inline v0
