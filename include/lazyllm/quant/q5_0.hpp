// Q5_0: 32 weights as 5-bit codes with one half-precision scale: weight = scale * (code - 16).
// 22 bytes a block: scale, 32 upper bits (bit i: weight i), then 16 bytes; byte i holds the lower four bits of weight i
// (low half) and weight i + 16 (high half). Source: GGUF; the rounding is that of the `gguf` package.
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

struct Q5_0 {
  static constexpr std::string_view name = "Q5_0";
  static constexpr std::size_t block_size = 32;
  struct Block {
    Float16 scale;
    std::array<std::uint8_t, 4> high;
    std::array<std::uint8_t, 16> low;
  };
  static_assert(sizeof(Block) == 22);
  using Panel = AffinePanel<5, 16, HalfScales, false>;

  static void quantize(std::span<const float> values, std::span<Block> blocks) {
    LAZYLLM_EXPECTS(values.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const float* x = values.data() + b * block_size;
      float extreme = x[0];  // the value of the largest magnitude, the first of equals, gets code 0
      for (std::size_t i = 1; i < block_size; ++i) extreme = std::abs(x[i]) > std::abs(extreme) ? x[i] : extreme;
      const float scale = extreme / -16.0f;
      const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
      Codes codes;
      for (std::size_t i = 0; i < block_size; ++i) {
        codes[i] = static_cast<std::uint8_t>(detail::truncated_code(x[i] * inverse, 16.5f, 31));
      }
      blocks[b] = with_codes(to_float16(scale), codes);
    }
  }

  static void dequantize(std::span<const Block> blocks, std::span<float> out) {
    LAZYLLM_EXPECTS(out.size() == blocks.size() * block_size);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const float scale = to_float(blocks[b].scale);
      const Codes codes = codes_of(blocks[b]);
      float* y = out.data() + b * block_size;
      for (std::size_t i = 0; i < block_size; ++i) y[i] = scale * static_cast<float>(codes[i] - 16);
    }
  }

  [[nodiscard]] static Panel::Entry to_panel(const Block& block) {
    return {{Panel::pack(codes_of(block).data())}, block.scale, {}};
  }
  [[nodiscard]] static Block from_panel(const Panel::Entry& entry) {
    Codes codes;
    Panel::unpack(entry.codes[0], codes.data());
    return with_codes(entry.scale, codes);
  }

 private:
  using Codes = std::array<std::uint8_t, block_size>;

  static Codes codes_of(const Block& block) {
    Codes codes;
    for (std::size_t i = 0; i < block_size; ++i) {
      const int low = i < 16 ? block.low[i] & 15 : block.low[i - 16] >> 4;
      codes[i] = static_cast<std::uint8_t>(low | (block.high[i / 8] >> i % 8 & 1) << 4);
    }
    return codes;
  }
  static Block with_codes(Float16 scale, const Codes& codes) {
    Block block{scale, {}, {}};
    for (std::size_t i = 0; i < 16; ++i) {
      block.low[i] = static_cast<std::uint8_t>((codes[i] & 15) | codes[i + 16] << 4);
    }
    for (std::size_t i = 0; i < block_size; ++i) {
      block.high[i / 8] |= static_cast<std::uint8_t>(codes[i] >> 4 << i % 8);
    }
    return block;
  }
};
static_assert(PackableFormat<Q5_0>);

}  // namespace lazyllm::inline v0
