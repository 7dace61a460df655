// Q8_0: 32 weights as signed 8-bit codes with one half-precision scale: weight = scale * code.
// 34 bytes a block: scale, then the codes. Panels hold code + 128, the unsigned operand of the dot instructions.
// Source: GGUF; the rounding is that of the `gguf` package.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/quant/format.hpp>
#include <lazyllm/quant/panel.hpp>
#include <lazyllm/quant/rounding.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace lazyllm::inline v0 {

struct Q8_0 {
  static constexpr std::string_view name = "Q8_0";
  static constexpr std::size_t block_size = 32;
  struct Block {
    Float16 scale;
    std::array<std::int8_t, 32> codes;
  };
  static_assert(sizeof(Block) == 34);
  using Panel = AffinePanel<8, 128, HalfScales, false>;

  static void quantize(std::span<const float> values, std::span<Block> blocks) {
    LAZYLLM_EXPECTS(values.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const float* x = values.data() + b * block_size;
      float largest = 0.0f;
      for (std::size_t i = 0; i < block_size; ++i) largest = std::max(largest, std::abs(x[i]));
      const float scale = largest / 127.0f;
      const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
      blocks[b].scale = to_float16(scale);
      for (std::size_t i = 0; i < block_size; ++i) blocks[b].codes[i] = detail::rounded_code(x[i] * inverse);
    }
  }

  static void dequantize(std::span<const Block> blocks, std::span<float> out) {
    LAZYLLM_EXPECTS(out.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const float scale = to_float(blocks[b].scale);
      float* y = out.data() + b * block_size;
      for (std::size_t i = 0; i < block_size; ++i) y[i] = scale * static_cast<float>(blocks[b].codes[i]);
    }
  }

  [[nodiscard]] static Panel::Entry to_panel(const Block& block) {
    Panel::Entry entry{{}, block.scale, {}};
    for (std::size_t i = 0; i < block_size; ++i) entry.codes[0][i] = static_cast<std::uint8_t>(block.codes[i] + 128);
    return entry;
  }
  [[nodiscard]] static Block from_panel(const Panel::Entry& entry) {
    Block block{entry.scale, {}};
    for (std::size_t i = 0; i < block_size; ++i) block.codes[i] = static_cast<std::int8_t>(entry.codes[0][i] - 128);
    return block;
  }
};
static_assert(PackableFormat<Q8_0>);

}  // namespace lazyllm::inline v0
