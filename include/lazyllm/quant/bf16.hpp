// BF16: weights as they are, in bfloat16; a block is one weight.
// Multiplied in float, without quantised activations.
// Source: GGUF.
#pragma once

#include <lazyllm/core/bfloat16.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/quant/format.hpp>
#include <lazyllm/quant/panel.hpp>

#include <cstddef>
#include <span>
#include <string_view>

namespace lazyllm::inline v0 {

struct BF16 {
  static constexpr std::string_view name = "BF16";
  static constexpr std::size_t block_size = 1;
  struct Block {
    BFloat16 value;
  };
  static_assert(sizeof(Block) == 2);
  using Panel = FloatPanel<BFloat16>;

  static void quantize(std::span<const float> values, std::span<Block> blocks) {
    LAZYLLM_EXPECTS(values.size() == blocks.size());
    for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i].value = to_bfloat16(values[i]);
  }
  static void dequantize(std::span<const Block> blocks, std::span<float> out) {
    LAZYLLM_EXPECTS(out.size() == blocks.size());
    for (std::size_t i = 0; i < blocks.size(); ++i) out[i] = to_float(blocks[i].value);
  }

  [[nodiscard]] static Panel::Entry to_panel(const Block& block) { return block.value; }
  [[nodiscard]] static Block from_panel(const Panel::Entry& entry) { return {entry}; }
};
static_assert(PackableFormat<BF16>);

}  // namespace lazyllm::inline v0
