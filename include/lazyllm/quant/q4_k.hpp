// Q4_K: 256 weights as 4-bit codes in sub-blocks of 32: weight = d * scale * code - d_min * minimum.
// 144 bytes a block: d, d_min, 12 bytes of scales and minima, then 4 x 32 bytes; byte i of quarter c holds weight i of
// sub-block 2 c (low half) and of sub-block 2 c + 1 (high half). Source: GGUF; the quantiser is our own.
#pragma once

#include <lazyllm/core/float16.hpp>
#include <lazyllm/quant/format.hpp>
#include <lazyllm/quant/super_block.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lazyllm::inline v0 {

namespace detail {

struct StoredQ4_K {
  static constexpr int bits = 4;
  struct Block {
    Float16 d;
    Float16 d_min;
    std::array<std::uint8_t, 12> scales;
    std::array<std::uint8_t, 128> codes;
  };
  static_assert(sizeof(Block) == 144);

  static AffineSuperBlock integers(const Block& block) {
    AffineSuperBlock result{block.d, block.d_min, unpack_sub_scales(block.scales), {}};
    for (std::size_t i = 0; i < block.codes.size(); ++i) {
      const std::size_t first = i / 32 * 64 + i % 32;
      result.codes[first] = block.codes[i] & 15;
      result.codes[first + 32] = static_cast<std::uint8_t>(block.codes[i] >> 4);
    }
    return result;
  }
  static Block stored(const AffineSuperBlock& integers) {
    Block block{integers.d, integers.d_min, pack_sub_scales(integers.scales), {}};
    for (std::size_t i = 0; i < block.codes.size(); ++i) {
      const std::size_t first = i / 32 * 64 + i % 32;
      block.codes[i] = static_cast<std::uint8_t>(integers.codes[first] | integers.codes[first + 32] << 4);
    }
    return block;
  }
};

}  // namespace detail

struct Q4_K : detail::AffineSuperFormat<detail::StoredQ4_K> {
  static constexpr std::string_view name = "Q4_K";
};
static_assert(PackableFormat<Q4_K>);

}  // namespace lazyllm::inline v0
