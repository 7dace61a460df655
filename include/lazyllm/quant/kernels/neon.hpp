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
#include <type_traits>

#if defined(__aarch64__)

LAZYLLM_TARGET_NEON_BEGIN
namespace lazyllm::inline v0::detail {

/// Four halves of a panel as floats.
[[nodiscard]] inline float32x4_t load_halves_neon(const std::byte* source) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(reinterpret_cast<const std::uint8_t*>(source))));
}

/// Writes one row of a tile.
inline void write_row_neon(const float* sums, std::size_t row, const TileOutput& out) {
  if (row >= out.rows) return;
  float* target = out.data + row * out.stride;
  for (std::size_t c = 0; c < out.columns; ++c) target[c] = out.add ? target[c] + sums[c] : sums[c];
}

/// Scales or minima of columns 4 * quarter .. 4 * quarter + 3 as floats.
template <class Scales>
[[nodiscard, gnu::always_inline]] inline float32x4_t load_scales_neon(const std::byte* table, std::size_t index,
                                                                      std::size_t quarter) {
  if constexpr (std::is_same_v<Scales, HalfScales>) {
    return load_halves_neon(Scales::at(table, index) + quarter * 8);
  } else {
    const auto* source = reinterpret_cast<const typename Scales::Factor*>(Scales::at(table, index)) + quarter * 4;
    const float factors[4] = {static_cast<float>(source[0]), static_cast<float>(source[1]),
                              static_cast<float>(source[2]), static_cast<float>(source[3])};
    return vmulq_f32(vld1q_f32(factors), load_halves_neon(Scales::supers(table) + quarter * 8));
  }
}

/// Unsigned codes of up to 7 bits are signed bytes as they are, with the zero point's share in the accumulator's start;
/// codes of 8 bits become signed by their zero point of 128.
template <int Bits, int ZeroPoint, class Scales, bool HasMinimum>
struct TileKernel<Isa::neon, AffinePanel<Bits, ZeroPoint, Scales, HasMinimum>> {
  using Panel = AffinePanel<Bits, ZeroPoint, Scales, HasMinimum>;
  static_assert(Bits < 8 || ZeroPoint == 128);
  static constexpr std::size_t max_rows = 4;
  static constexpr std::size_t max_panels = 1;

  /// The codes of weights 4 * group .. 4 * group + 3 in columns 4 * quarter .. 4 * quarter + 3.
  [[gnu::always_inline]] static inline int8x16_t load_codes(const std::byte* codes, std::size_t group,
                                                            std::size_t quarter) {
    const auto* source = reinterpret_cast<const std::uint8_t*>(codes) + quarter * 16;
    if constexpr (Bits == 8) {
      return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(source + group * 64), vdupq_n_u8(128)));
    } else {
      uint8x16_t result = vld1q_u8(source + group % 4 * 64);
      result = group < 4 ? vandq_u8(result, vdupq_n_u8(15)) : vshrq_n_u8(result, 4);
      if constexpr (Panel::high_bits > 0) {
        const int shift = 4 - static_cast<int>(Panel::high_shift(group));  // to the left
        const uint8x16_t line = vld1q_u8(source + Panel::high_line(group) * 64);
        const uint8x16_t high = vshlq_u8(line, vdupq_n_s8(static_cast<std::int8_t>(shift)));
        result = vorrq_u8(result, vandq_u8(high, vdupq_n_u8(((1 << Panel::high_bits) - 1) << 4)));
      }
      return vreinterpretq_s8_u8(result);
    }
  }

  [[gnu::always_inline]] static inline int32x4_t start_of_dots(const QuantizedBlock& block, std::size_t part) {
    if constexpr (Bits == 8 || ZeroPoint == 0) return vdupq_n_s32(0);
    std::int32_t start = Panel::parts == 1 ? block.minus_8_sums : block.minus_8_first_sums;
    if (part == 1) start = block.minus_8_sums - start;
    return vdupq_n_s32(start * (1 << zero_point_shift<Panel>));
  }

  template <std::size_t R, std::size_t>
  static void run(const QuantizedRows& x, std::size_t first_row, const std::byte* panel, std::size_t,
                  std::size_t blocks, const TileOutput& out) {
    QuantizedTile a = x.tile(first_row);
    alignas(64) float sums[R][panel_columns] = {};
    for (std::size_t b = 0; b < blocks; ++b, a.next_block()) {
      const std::byte* codes = Panel::codes(panel, b);
      LAZYLLM_UNROLL
      for (std::size_t part = 0; part < Panel::parts; ++part) {
        int32x4_t dots[R][4];
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          LAZYLLM_UNROLL
          for (std::size_t q = 0; q < 4; ++q) dots[r][q] = start_of_dots(a.block(r), part);
        }
        LAZYLLM_UNROLL
        for (std::size_t i = 0; i < part_groups<Panel>; ++i) {
          const std::size_t group = group_at<Panel>(part, i);
          int8x16_t weights[4];
          LAZYLLM_UNROLL
          for (std::size_t q = 0; q < 4; ++q) weights[q] = load_codes(codes, group, q);
          LAZYLLM_UNROLL
          for (std::size_t r = 0; r < R; ++r) {
            std::int32_t four;
            std::memcpy(&four, a.codes(r) + group * 4, 4);
            const int8x16_t values = vreinterpretq_s8_s32(vdupq_n_s32(four));
            LAZYLLM_UNROLL
            for (std::size_t q = 0; q < 4; ++q) dots[r][q] = vdotq_s32(dots[r][q], weights[q], values);
          }
        }
        const std::size_t index = Panel::scale_index(b, part);
        LAZYLLM_UNROLL
        for (std::size_t q = 0; q < 4; ++q) {
          const float32x4_t scales = load_scales_neon<Scales>(Panel::scales(panel, b), index, q);
          LAZYLLM_UNROLL
          for (std::size_t r = 0; r < R; ++r) {
            const QuantizedBlock& block = a.block(r);
            float32x4_t sum = vld1q_f32(sums[r] + 4 * q);
            if constexpr (HasMinimum) {
              const float32x4_t minima = load_scales_neon<Scales>(Panel::minima(panel, b), index, q);
              sum = vfmaq_f32(sum, minima, vdupq_n_f32(block.scaled_sum));
            }
            sum = vfmaq_f32(sum, vcvtq_f32_s32(dots[r][q]), vmulq_f32(scales, vdupq_n_f32(block.scale)));
            vst1q_f32(sums[r] + 4 * q, sum);
          }
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
