// Matmul tiles for AArch64 with the dot product extension: 4 rows x 16 columns, four vectors of 4 columns a row.
// Per block: dots = zero-point correction + sum of code * activation (s8 x s8 in groups of 4), an exact int32 of at
// most 2^21; then the float operations of the other kernels. Float weights go through the portable kernels.
#pragma once

#include <lazyllm/quant/kernels/portable.hpp>
#include <lazyllm/quant/kernels/tile.hpp>
#include <lazyllm/simd/quantized_rows.hpp>
#include <lazyllm/simd/target_region.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__aarch64__)

LAZYLLM_TARGET_NEON_BEGIN
namespace lazyllm::inline v0::detail {

/// Four halves of a panel as floats.
[[nodiscard]] inline float32x4_t load_halves_neon(const std::byte* source) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(reinterpret_cast<const std::uint8_t*>(source))));
}

/// Writes one row of a tile.
inline void write_row_neon(const float* sums, std::size_t row, const TileOutput& out) {
  float* target = out.data + row * out.stride;
  for (std::size_t c = 0; c < out.columns; ++c) target[c] = out.add ? target[c] + sums[c] : sums[c];
}

/// Unsigned codes of up to 7 bits are signed bytes as they are, with the zero point's share in the accumulator's start;
/// codes of 8 bits become signed by their zero point of 128.
template <int Bits, int ZeroPoint, bool HasMinimum>
struct TileKernel<Isa::neon, AffinePanel<Bits, ZeroPoint, HasMinimum>> {
  using Panel = AffinePanel<Bits, ZeroPoint, HasMinimum>;
  static_assert(Bits == 8 ? ZeroPoint == 128 : ZeroPoint == 0 || ZeroPoint == 8);
  static constexpr std::size_t max_rows = 4;
  static constexpr std::size_t max_panels = 1;

  /// The codes of weights 4 * group .. 4 * group + 3 in columns 4 * quarter .. 4 * quarter + 3.
  [[gnu::always_inline]] static inline int8x16_t load_codes(const std::byte* codes, std::size_t group,
                                                            std::size_t quarter) {
    const auto* source = reinterpret_cast<const std::uint8_t*>(codes) + quarter * 16;
    if constexpr (Bits == 8) {
      return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(source + group * 64), vdupq_n_u8(128)));
    } else {
      const uint8x16_t both = vld1q_u8(source + group % 4 * 64);
      return vreinterpretq_s8_u8(group < 4 ? vandq_u8(both, vdupq_n_u8(15)) : vshrq_n_u8(both, 4));
    }
  }

  template <std::size_t R, std::size_t>
  static void run(const QuantizedRows& x, std::size_t first_row, const std::byte* panel, std::size_t,
                  std::size_t blocks, const TileOutput& out) {
    const std::int8_t* a = x.codes(first_row);
    const std::size_t stride = x.stride();
    const QuantizedBlock* info = x.blocks(first_row);
    const std::size_t info_stride = x.block_stride();
    alignas(64) float sums[R][panel_columns] = {};
    for (std::size_t b = 0; b < blocks; ++b, a += 32, ++info) {
      const std::byte* codes = panel + b * Panel::code_bytes;
      int32x4_t dots[R][4];
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        LAZYLLM_UNROLL
        for (std::size_t q = 0; q < 4; ++q)
          dots[r][q] = vdupq_n_s32(ZeroPoint == 8 ? info[r * info_stride].minus_8_sums : 0);
      }
      LAZYLLM_UNROLL
      for (std::size_t i = 0; i < 8; ++i) {
        const std::size_t group = i / 2 + i % 2 * 4;  // groups whose codes share bytes follow each other
        int8x16_t weights[4];
        LAZYLLM_UNROLL
        for (std::size_t q = 0; q < 4; ++q) weights[q] = load_codes(codes, group, q);
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          std::int32_t four;
          std::memcpy(&four, a + r * stride + group * 4, 4);
          const int8x16_t values = vreinterpretq_s8_s32(vdupq_n_s32(four));
          LAZYLLM_UNROLL
          for (std::size_t q = 0; q < 4; ++q) dots[r][q] = vdotq_s32(dots[r][q], weights[q], values);
        }
      }
      const std::byte* lane = panel + b * Panel::scale_bytes;
      LAZYLLM_UNROLL
      for (std::size_t q = 0; q < 4; ++q) {
        const float32x4_t scales = load_halves_neon(lane + Panel::scale_offset(blocks) + q * 8);
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          const QuantizedBlock& block = info[r * info_stride];
          float32x4_t sum = vld1q_f32(sums[r] + 4 * q);
          if constexpr (HasMinimum) {
            const float32x4_t minima = load_halves_neon(lane + Panel::minimum_offset(blocks) + q * 8);
            sum = vfmaq_f32(sum, minima, vdupq_n_f32(block.scaled_sum));
          }
          sum = vfmaq_f32(sum, vcvtq_f32_s32(dots[r][q]), vmulq_f32(scales, vdupq_n_f32(block.scale)));
          vst1q_f32(sums[r] + 4 * q, sum);
        }
      }
    }
    for (std::size_t r = 0; r < R; ++r) write_row_neon(sums[r], r, out);
  }
};

template <class Element>
struct TileKernel<Isa::neon, FloatPanel<Element>> : TileKernel<Isa::portable, FloatPanel<Element>> {};

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
