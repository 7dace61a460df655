// Matmul tiles for AVX2: 4 rows x 16 columns (two halves of 8) for codes, 6 x 16 for floats.
// Per block: dots = sum of code * activation, an exact int32, minus the zero point's share; then the float operations
// of the other kernels: sum = fma(minimum, scaled_sum, sum), sum = fma((float)dots, weight scale * activation scale,
// sum).
#pragma once

#include <lazyllm/core/float16.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/quant/kernels/tile.hpp>
#include <lazyllm/simd/quantized_rows.hpp>
#include <lazyllm/simd/target_region.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)

LAZYLLM_TARGET_AVX2_BEGIN
namespace lazyllm::inline v0::detail {

[[nodiscard]] inline __m256i load_codes_avx2(const std::byte* source) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
}

/// Eight halves of a panel as floats.
[[nodiscard]] inline __m256 load_halves_avx2(const std::byte* source) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
}

[[nodiscard]] inline __m256i broadcast_codes_avx2(const std::int8_t* a) {
  std::int32_t four;
  std::memcpy(&four, a, 4);
  return _mm256_set1_epi32(four);
}

/// Stops g++ from reordering a chain of integer sums: it would form all products first, and spill them.
[[gnu::always_inline]] inline void keep_in_register(__m256i& value) { __asm__("" : "+x"(value)); }

/// Writes one row of a tile, columns 0..7 and 8..15.
inline void write_row_avx2(__m256 left, __m256 right, std::size_t row, const TileOutput& out) {
  float* target = out.data + row * out.stride;
  if (out.columns == panel_columns) {
    if (out.add) {
      left = _mm256_add_ps(_mm256_loadu_ps(target), left);
      right = _mm256_add_ps(_mm256_loadu_ps(target + 8), right);
    }
    _mm256_storeu_ps(target, left);
    _mm256_storeu_ps(target + 8, right);
    return;
  }
  alignas(32) float sums[panel_columns];
  _mm256_store_ps(sums, left);
  _mm256_store_ps(sums + 8, right);
  for (std::size_t c = 0; c < out.columns; ++c) target[c] = out.add ? target[c] + sums[c] : sums[c];
}

/// The float part of one block and row, for 8 columns.
template <class Panel>
[[gnu::always_inline]] inline __m256 scale_dots_avx2(__m256 sum, __m256i dots, const std::byte* lane,
                                                     std::size_t blocks, const QuantizedBlock& info) {
  if constexpr (Panel::has_minimum) {
    const __m256 minima = load_halves_avx2(lane + Panel::minimum_offset(blocks));
    sum = _mm256_fmadd_ps(minima, _mm256_set1_ps(info.scaled_sum), sum);
  }
  const __m256 scale = _mm256_mul_ps(load_halves_avx2(lane + Panel::scale_offset(blocks)), _mm256_set1_ps(info.scale));
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, sum);
}

/// 4-bit codes. A sum of two products is at most 2 * 15 * 127, so the 8 pair sums of a block fit an int16: 30480.
template <int ZeroPoint, bool HasMinimum>
struct TileKernel<Isa::avx2, AffinePanel<4, ZeroPoint, HasMinimum>> {
  using Panel = AffinePanel<4, ZeroPoint, HasMinimum>;
  static_assert(ZeroPoint == 0 || ZeroPoint == 8);
  static constexpr std::size_t max_rows = 4;
  static constexpr std::size_t max_panels = 1;

  template <std::size_t R, std::size_t>
  static void run(const QuantizedRows& x, std::size_t first_row, const std::byte* panel, std::size_t,
                  std::size_t blocks, const TileOutput& out) {
    const std::int8_t* a = x.codes(first_row);
    const std::size_t stride = x.stride();
    const QuantizedBlock* info = x.blocks(first_row);
    const std::size_t info_stride = x.block_stride();
    const __m256i low_half = _mm256_set1_epi8(15);
    alignas(32) float sums[R][2][8] = {};  // the registers are for the pair sums
    for (std::size_t b = 0; b < blocks; ++b, a += 32, ++info) {
      const std::byte* codes = panel + b * Panel::code_bytes;
      __m256i pairs[R][2];
      LAZYLLM_UNROLL
      for (std::size_t group = 0; group < 4; ++group) {
        LAZYLLM_UNROLL
        for (std::size_t high = 0; high < 2; ++high) {
          __m256i left = load_codes_avx2(codes + group * 64), right = load_codes_avx2(codes + group * 64 + 32);
          if (high == 1) left = _mm256_srli_epi16(left, 4), right = _mm256_srli_epi16(right, 4);
          left = _mm256_and_si256(left, low_half);
          right = _mm256_and_si256(right, low_half);
          LAZYLLM_UNROLL
          for (std::size_t r = 0; r < R; ++r) {
            const __m256i four = broadcast_codes_avx2(a + r * stride + group * 4 + high * 16);
            const __m256i pl = _mm256_maddubs_epi16(left, four), pr = _mm256_maddubs_epi16(right, four);
            pairs[r][0] = group + high == 0 ? pl : _mm256_add_epi16(pairs[r][0], pl);
            pairs[r][1] = group + high == 0 ? pr : _mm256_add_epi16(pairs[r][1], pr);
            keep_in_register(pairs[r][0]);
            keep_in_register(pairs[r][1]);
          }
        }
      }
      const std::byte* lane = panel + b * Panel::scale_bytes;
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        LAZYLLM_UNROLL
        for (std::size_t half = 0; half < 2; ++half) {
          __m256i dots = _mm256_madd_epi16(pairs[r][half], _mm256_set1_epi16(1));
          if constexpr (ZeroPoint == 8) {
            dots = _mm256_add_epi32(dots, _mm256_set1_epi32(info[r * info_stride].minus_8_sums));
          }
          const __m256 sum = scale_dots_avx2<Panel>(_mm256_load_ps(sums[r][half]), dots, lane + half * 16, blocks,
                                                    info[r * info_stride]);
          _mm256_store_ps(sums[r][half], sum);
        }
      }
    }
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) write_row_avx2(_mm256_load_ps(sums[r][0]), _mm256_load_ps(sums[r][1]), r, out);
  }
};

/// 8-bit codes with zero point 128. |weight| times sign(weight) * activation keeps a sum of two products within an
/// int16 (2 * 128 * 127 = 32512); it is widened at once.
template <>
struct TileKernel<Isa::avx2, AffinePanel<8, 128, false>> {
  using Panel = AffinePanel<8, 128, false>;
  static constexpr std::size_t max_rows = 4;
  static constexpr std::size_t max_panels = 1;

  [[gnu::always_inline]] static inline __m256i add_dots(__m256i dots, __m256i weights, __m256i magnitudes,
                                                        __m256i four) {
    const __m256i pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(four, weights));
    return _mm256_add_epi32(dots, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  template <std::size_t R, std::size_t>
  static void run(const QuantizedRows& x, std::size_t first_row, const std::byte* panel, std::size_t,
                  std::size_t blocks, const TileOutput& out) {
    const std::int8_t* a = x.codes(first_row);
    const std::size_t stride = x.stride();
    const QuantizedBlock* info = x.blocks(first_row);
    const std::size_t info_stride = x.block_stride();
    const __m256i zero_point = _mm256_set1_epi8(-128);
    __m256 sums[R][2];
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
    for (std::size_t b = 0; b < blocks; ++b, a += 32, ++info) {
      const std::byte* codes = panel + b * Panel::code_bytes;
      __m256i dots[R][2];
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) dots[r][0] = dots[r][1] = _mm256_setzero_si256();
      LAZYLLM_UNROLL
      for (std::size_t group = 0; group < 8; ++group) {
        const __m256i left = _mm256_xor_si256(load_codes_avx2(codes + group * 64), zero_point);
        const __m256i right = _mm256_xor_si256(load_codes_avx2(codes + group * 64 + 32), zero_point);
        const __m256i left_magnitude = _mm256_abs_epi8(left), right_magnitude = _mm256_abs_epi8(right);
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          const __m256i four = broadcast_codes_avx2(a + r * stride + group * 4);
          dots[r][0] = add_dots(dots[r][0], left, left_magnitude, four);
          dots[r][1] = add_dots(dots[r][1], right, right_magnitude, four);
          keep_in_register(dots[r][0]);
          keep_in_register(dots[r][1]);
        }
      }
      const std::byte* lane = panel + b * Panel::scale_bytes;
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        const QuantizedBlock& block = info[r * info_stride];
        sums[r][0] = scale_dots_avx2<Panel>(sums[r][0], dots[r][0], lane, blocks, block);
        sums[r][1] = scale_dots_avx2<Panel>(sums[r][1], dots[r][1], lane + 16, blocks, block);
      }
    }
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) write_row_avx2(sums[r][0], sums[r][1], r, out);
  }
};

template <class Element>
struct TileKernel<Isa::avx2, FloatPanel<Element>> {
  static constexpr std::size_t max_rows = 6;
  static constexpr std::size_t max_panels = 1;

  [[gnu::always_inline]] static inline __m256 load_weights(const std::byte* source) {
    if constexpr (std::is_same_v<Element, float>) {
      return _mm256_loadu_ps(reinterpret_cast<const float*>(source));
    } else {
      return load_halves_avx2(source);
    }
  }

  template <std::size_t R, std::size_t>
  static void run(const ConstRows& x, std::size_t first_row, const std::byte* panel, std::size_t, std::size_t blocks,
                  const TileOutput& out) {
    const std::size_t stride = x.stride();
    const float* a = x.data() + first_row * stride;
    __m256 sums[R][2];
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
    for (std::size_t k = 0; k < blocks; ++k) {
      const std::byte* source = panel + k * panel_columns * sizeof(Element);
      const __m256 left = load_weights(source), right = load_weights(source + 8 * sizeof(Element));
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        const __m256 value = _mm256_set1_ps(a[r * stride + k]);
        sums[r][0] = _mm256_fmadd_ps(value, left, sums[r][0]);
        sums[r][1] = _mm256_fmadd_ps(value, right, sums[r][1]);
      }
    }
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) write_row_avx2(sums[r][0], sums[r][1], r, out);
  }
};

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
