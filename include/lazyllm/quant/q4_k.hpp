// Q4_K: 256 weights as 4-bit codes in sub-blocks of 32: weight = d * scale * code - d_min * minimum.
// 144 bytes a block: d, d_min, 12 bytes of scales and minima, then 4 x 32 bytes; byte i of quarter c holds weight i of
// sub-block 2 c (low half) and of sub-block 2 c + 1 (high half). Source: GGUF; the quantiser is our own.
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

struct Q4_K {
  static constexpr std::string_view name = "Q4_K";
  static constexpr std::size_t block_size = 256;
  struct Block {
    Float16 d;
    Float16 d_min;
    std::array<std::uint8_t, 12> scales;
    std::array<std::uint8_t, 128> codes;
  };
  static_assert(sizeof(Block) == 144);
  using Panel = AffinePanel<4, 0, SuperScales<std::uint8_t, 32>, true>;

  static void quantize(std::span<const float> values, std::span<Block> blocks) {
    LAZYLLM_EXPECTS(values.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      blocks[b] = stored(detail::quantize_super_block(values.data() + b * block_size, 15));
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
    for (std::size_t i = 0; i < block.codes.size(); ++i) {
      const std::size_t first = i / 32 * 64 + i % 32;
      result.codes[first] = block.codes[i] & 15;
      result.codes[first + 32] = static_cast<std::uint8_t>(block.codes[i] >> 4);
    }
    return result;
  }
  static Block stored(const detail::AffineSuperBlock& integers) {
    Block block{integers.d, integers.d_min, detail::pack_sub_scales(integers.scales), {}};
    for (std::size_t i = 0; i < block.codes.size(); ++i) {
      const std::size_t first = i / 32 * 64 + i % 32;
      block.codes[i] = static_cast<std::uint8_t>(integers.codes[first] | integers.codes[first + 32] << 4);
    }
    return block;
  }
};
static_assert(PackableFormat<Q4_K>);

}  // namespace lazyllm::inline v0
