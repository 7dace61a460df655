// Q4_1: 32 weights as 4-bit codes with a half-precision scale and minimum: weight = scale * code + minimum.
// 20 bytes a block: scale, minimum, then 16 bytes; byte i holds weight i (low half) and weight i + 16 (high half).
// Source: GGUF; the rounding is that of the `gguf` package.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/quant/format.hpp>
#include <lazyllm/quant/panel.hpp>
#include <lazyllm/quant/rounding.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace lazyllm::inline v0 {

struct Q4_1 {
  static constexpr std::string_view name = "Q4_1";
  static constexpr std::size_t block_size = 32;
  struct Block {
    Float16 scale;
    Float16 minimum;
    std::array<std::uint8_t, 16> codes;
  };
  static_assert(sizeof(Block) == 20);
  using Panel = AffinePanel<4, 0, HalfScales, true>;

  static void quantize(std::span<const float> values, std::span<Block> blocks) {
    LAZYLLM_EXPECTS(values.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const std::span<const float> x = values.subspan(b * block_size, block_size);
      const auto [minimum, maximum] = std::minmax_element(x.begin(), x.end());
      const float scale = (*maximum - *minimum) / 15.0f;
      const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
      blocks[b].scale = to_float16(scale);
      blocks[b].minimum = to_float16(*minimum);
      for (std::size_t i = 0; i < 16; ++i) {
        const unsigned low = detail::truncated_code((x[i] - *minimum) * inverse, 0.5f, 15);
        const unsigned high = detail::truncated_code((x[i + 16] - *minimum) * inverse, 0.5f, 15);
        blocks[b].codes[i] = static_cast<std::uint8_t>(low | (high << 4));
      }
    }
  }

  static void dequantize(std::span<const Block> blocks, std::span<float> out) {
    LAZYLLM_EXPECTS(out.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const float scale = to_float(blocks[b].scale);
      const float minimum = to_float(blocks[b].minimum);
      float* y = out.data() + b * block_size;
      for (std::size_t i = 0; i < 16; ++i) {  // the product is exact, so a contracted sum has the same bits
        y[i] = scale * static_cast<float>(blocks[b].codes[i] & 15) + minimum;
        y[i + 16] = scale * static_cast<float>(blocks[b].codes[i] >> 4) + minimum;
      }
    }
  }

  [[nodiscard]] static Panel::Entry to_panel(const Block& block) { return {{block.codes}, block.scale, block.minimum}; }
  [[nodiscard]] static Block from_panel(const Panel::Entry& entry) {
    return {entry.scale, entry.minimum, entry.codes[0]};
  }
};
static_assert(PackableFormat<Q4_1>);

}  // namespace lazyllm::inline v0
