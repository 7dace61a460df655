// Q4_0: 32 weights as 4-bit codes with one half-precision scale: weight = scale * (code - 8).
// 18 bytes a block: scale, then 16 bytes; byte i holds weight i (low half) and weight i + 16 (high half).
// Source: GGUF; the rounding is that of the `gguf` package.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/quant/format.hpp>
#include <lazyllm/quant/panel.hpp>
#include <lazyllm/quant/rounding.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace lazyllm::inline v0 {

struct Q4_0 {
  static constexpr std::string_view name = "Q4_0";
  static constexpr std::size_t block_size = 32;
  struct Block {
    Float16 scale;
    std::array<std::uint8_t, 16> codes;
  };
  static_assert(sizeof(Block) == 18);
  using Panel = AffinePanel<4, 8, HalfScales, false>;

  static void quantize(std::span<const float> values, std::span<Block> blocks) {
    LAZYLLM_EXPECTS(values.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const float* x = values.data() + b * block_size;
      float extreme = x[0];  // the value of the largest magnitude, the first of equals, gets code 0
      for (std::size_t i = 1; i < block_size; ++i) extreme = std::abs(x[i]) > std::abs(extreme) ? x[i] : extreme;
      const float scale = extreme / -8.0f;
      const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
      blocks[b].scale = to_float16(scale);
      for (std::size_t i = 0; i < 16; ++i) {
        const unsigned low = detail::truncated_code(x[i] * inverse, 8.5f, 15);
        const unsigned high = detail::truncated_code(x[i + 16] * inverse, 8.5f, 15);
        blocks[b].codes[i] = static_cast<std::uint8_t>(low | (high << 4));
      }
    }
  }

  static void dequantize(std::span<const Block> blocks, std::span<float> out) {
    LAZYLLM_EXPECTS(out.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const float scale = to_float(blocks[b].scale);
      float* y = out.data() + b * block_size;
      for (std::size_t i = 0; i < 16; ++i) {
        y[i] = scale * static_cast<float>((blocks[b].codes[i] & 15) - 8);
        y[i + 16] = scale * static_cast<float>((blocks[b].codes[i] >> 4) - 8);
      }
    }
  }

  [[nodiscard]] static Panel::Entry to_panel(const Block& block) { return {{block.codes}, block.scale, {}}; }
  [[nodiscard]] static Block from_panel(const Panel::Entry& entry) { return {entry.scale, entry.codes[0]}; }
};
static_assert(PackableFormat<Q4_0>);

}  // namespace lazyllm::inline v0
