// Q5_K: 256 weights as 5-bit codes in sub-blocks of 32: weight = d * scale * code - d_min * minimum.
// 176 bytes a block: d, d_min, 12 bytes of scales and minima, 32 bytes whose bit s is the upper bit of a weight of
// sub-block s, then the lower four bits as in Q4_K. Source: GGUF; the quantiser is our own.
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

struct StoredQ5_K {
  static constexpr int bits = 5;
  struct Block {
    Float16 d;
    Float16 d_min;
    std::array<std::uint8_t, 12> scales;
    std::array<std::uint8_t, 32> high;
    std::array<std::uint8_t, 128> low;
  };
  static_assert(sizeof(Block) == 176);

  static AffineSuperBlock integers(const Block& block) {
    AffineSuperBlock result{block.d, block.d_min, unpack_sub_scales(block.scales), {}};
    for (std::size_t i = 0; i < 256; ++i) {
      const std::size_t s = i / 32, lane = i % 32;
      const int low = block.low[s / 2 * 32 + lane] >> (s % 2 * 4) & 15;
      result.codes[i] = static_cast<std::uint8_t>(low | (block.high[lane] >> s & 1) << 4);
    }
    return result;
  }
  static Block stored(const AffineSuperBlock& integers) {
    Block block{integers.d, integers.d_min, pack_sub_scales(integers.scales), {}, {}};
    for (std::size_t i = 0; i < 256; ++i) {
      const std::size_t s = i / 32, lane = i % 32;
      block.low[s / 2 * 32 + lane] |= static_cast<std::uint8_t>((integers.codes[i] & 15) << (s % 2 * 4));
      block.high[lane] |= static_cast<std::uint8_t>(integers.codes[i] >> 4 << s);
    }
    return block;
  }
};

}  // namespace detail

struct Q5_K : detail::AffineSuperFormat<detail::StoredQ5_K> {
  static constexpr std::string_view name = "Q5_K";
};
static_assert(PackableFormat<Q5_K>);

}  // namespace lazyllm::inline v0
