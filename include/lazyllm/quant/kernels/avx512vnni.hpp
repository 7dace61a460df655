// Matmul tiles for AVX-512 with VNNI: 12 rows x 16 columns, the accumulators in registers.
// Per block: dots = zero-point correction + sum of code * activation (u8 x s8 in groups of 4), an exact int32 of at
// most 2^21; then sum = fma(minimum, scaled_sum, sum) and sum = fma((float)dots, weight scale * activation scale, sum).
#pragma once

#include <lazyllm/core/float16.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/quant/kernels/tile.hpp>
#include <lazyllm/simd/quantized_rows.hpp>
#include <lazyllm/simd/target_region.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)

LAZYLLM_TARGET_AVX512VNNI_BEGIN
namespace lazyllm::inline v0::detail {

/// Sixteen halves of a panel as floats.
[[nodiscard]] inline __m512 load_halves_avx512(const std::byte* source) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
}

/// Writes R rows of sums; the last panel's missing columns are masked.
template <std::size_t R>
inline void write_tile_avx512(const __m512 (&sums)[R], const TileOutput& out) {
  const auto mask = static_cast<__mmask16>((1u << out.columns) - 1u);
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    float* target = out.data + r * out.stride;
    const __m512 sum = out.add ? _mm512_add_ps(_mm512_maskz_loadu_ps(mask, target), sums[r]) : sums[r];
    _mm512_mask_storeu_ps(target, mask, sum);
  }
}

template <int Bits, int ZeroPoint, bool HasMinimum>
struct TileKernel<Isa::avx512vnni, AffinePanel<Bits, ZeroPoint, HasMinimum>> {
  using Panel = AffinePanel<Bits, ZeroPoint, HasMinimum>;
  static constexpr std::size_t max_rows = 12;

  /// Adds the products of 4 weights of 16 columns with the 4 activations at `a`, rows `stride` bytes apart.
  template <std::size_t R>
  [[gnu::always_inline]] static inline void add_dots(__m512i (&dots)[R], __m512i codes, const std::int8_t* a,
                                                     std::size_t stride) {
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      std::int32_t four;
      std::memcpy(&four, a + r * stride, 4);
      dots[r] = _mm512_dpbusd_epi32(dots[r], codes, _mm512_set1_epi32(four));
    }
  }

  template <std::size_t R>
  static void run(const QuantizedRows& x, std::size_t first_row, const std::byte* panel, std::size_t blocks,
                  TileOutput out) {
    const std::int8_t* a = x.codes(first_row);
    const std::size_t stride = x.stride();
    const QuantizedBlock* info = x.blocks(first_row);
    const std::size_t info_stride = x.block_count();
    const __m512i low_half = _mm512_set1_epi8(15);
    __m512 sums[R];
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) sums[r] = _mm512_setzero_ps();
    for (std::size_t b = 0; b < blocks; ++b, a += 32, ++info) {
      __m512i dots[R];
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        if constexpr (ZeroPoint == 0) {
          dots[r] = _mm512_setzero_si512();
        } else {
          dots[r] = _mm512_set1_epi32(info[r * info_stride].minus_8_sums);
          if constexpr (ZeroPoint == 128) dots[r] = _mm512_slli_epi32(dots[r], 4);
          static_assert(ZeroPoint == 0 || ZeroPoint == 8 || ZeroPoint == 128);
        }
      }
      const std::byte* codes = panel + b * Panel::code_bytes;
      LAZYLLM_UNROLL
      for (std::size_t group = 0; group < std::size_t{Bits}; ++group) {
        const __m512i stored = _mm512_loadu_si512(codes + group * 64);
        if constexpr (Bits == 4) {
          add_dots(dots, _mm512_and_si512(stored, low_half), a + group * 4, stride);
          add_dots(dots, _mm512_and_si512(_mm512_srli_epi16(stored, 4), low_half), a + group * 4 + 16, stride);
        } else {
          add_dots(dots, stored, a + group * 4, stride);
        }
      }
      const std::byte* lane = panel + b * Panel::scale_bytes;
      const __m512 scales = load_halves_avx512(lane + Panel::scale_offset(blocks));
      if constexpr (HasMinimum) {
        const __m512 minima = load_halves_avx512(lane + Panel::minimum_offset(blocks));
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          sums[r] = _mm512_fmadd_ps(minima, _mm512_set1_ps(info[r * info_stride].scaled_sum), sums[r]);
        }
      }
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(info[r * info_stride].scale));
        sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), scale, sums[r]);
      }
    }
    write_tile_avx512(sums, out);
  }
};

template <class Element>
struct TileKernel<Isa::avx512vnni, FloatPanel<Element>> {
  static constexpr std::size_t max_rows = 12;

  template <std::size_t R>
  static void run(const ConstRows& x, std::size_t first_row, const std::byte* panel, std::size_t blocks,
                  TileOutput out) {
    const std::size_t stride = x.stride();
    const float* a = x.data() + first_row * stride;
    __m512 sums[R];
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) sums[r] = _mm512_setzero_ps();
    for (std::size_t k = 0; k < blocks; ++k) {
      __m512 weights;
      if constexpr (std::is_same_v<Element, float>) {
        weights = _mm512_loadu_ps(panel + k * 64);
      } else {
        weights = load_halves_avx512(panel + k * 32);
      }
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        sums[r] = _mm512_fmadd_ps(_mm512_set1_ps(a[r * stride + k]), weights, sums[r]);
      }
    }
    write_tile_avx512(sums, out);
  }
};

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
