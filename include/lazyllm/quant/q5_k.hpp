// Q5_K: 256 weights as 5-bit codes in sub-blocks of 32: weight = d * scale * code - d_min * minimum.
// 176 bytes a block: d, d_min, 12 bytes of scales and minima, 32 bytes whose bit s is the upper bit of a weight of
// sub-block s, then the lower four bits as in Q4_K. Source: GGUF; the quantiser is our own.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/quant/format.hpp>
#include <lazyllm/quant/panel.hpp>
#include <lazyllm/quant/super_block.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace lazyllm::inline v0 {

struct Q5_K {
  static constexpr std::string_view name = "Q5_K";
  static constexpr std::size_t block_size = 256;
  struct Block {
    Float16 d;
    Float16 d_min;
    std::array<std::uint8_t, 12> scales;
    std::array<std::uint8_t, 32> high;
    std::array<std::uint8_t, 128> low;
  };
  static_assert(sizeof(Block) == 176);
  using Panel = AffinePanel<5, 0, SuperScales<std::uint8_t, 32>, true>;

  static void quantize(std::span<const float> values, std::span<Block> blocks) {
    LAZYLLM_EXPECTS(values.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      blocks[b] = stored(detail::quantize_super_block(values.data() + b * block_size, 31));
    }
  }
  static void dequantize(std::span<const Block> blocks, std::span<float> out) {
    LAZYLLM_EXPECTS(out.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      detail::dequantize_super_block(integers(blocks[b]), out.data() + b * block_size);
    }
  }

  [[nodiscard]] static Panel::Entry to_panel(const Block& block) {
    return detail::super_block_to_panel<Panel>(integers(block));
  }
  [[nodiscard]] static Block from_panel(const Panel::Entry& entry) {
    return stored(detail::super_block_from_panel<Panel>(entry));
  }

 private:
  static detail::AffineSuperBlock integers(const Block& block) {
    detail::AffineSuperBlock result{block.d, block.d_min, detail::unpack_sub_scales(block.scales), {}};
    for (std::size_t i = 0; i < block_size; ++i) {
      const std::size_t s = i / 32, lane = i % 32;
      const int low = block.low[s / 2 * 32 + lane] >> (s % 2 * 4) & 15;
      result.codes[i] = static_cast<std::uint8_t>(low | (block.high[lane] >> s & 1) << 4);
    }
    return result;
  }
  static Block stored(const detail::AffineSuperBlock& integers) {
    Block block{integers.d, integers.d_min, detail::pack_sub_scales(integers.scales), {}, {}};
    for (std::size_t i = 0; i < block_size; ++i) {
      const std::size_t s = i / 32, lane = i % 32;
      block.low[s / 2 * 32 + lane] |= static_cast<std::uint8_t>((integers.codes[i] & 15) << (s % 2 * 4));
      block.high[lane] |= static_cast<std::uint8_t>(integers.codes[i] >> 4 << s);
    }
    return block;
  }
};
static_assert(PackableFormat<Q5_K>);

}  // namespace lazyllm::inline v0
