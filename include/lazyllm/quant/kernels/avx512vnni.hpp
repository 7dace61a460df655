// Matmul tiles for AVX-512 with VNNI: 12 rows x 32 columns (two panels), the accumulators in registers.
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

/// Stops clang from loading the value again in each instruction that uses it.
template <class Vector>
[[gnu::always_inline]] inline void keep_in_register(Vector& value) {
  __asm__("" : "+v"(value));
}

[[nodiscard]] inline const QuantizedBlock& block_at(const std::byte* p) {
  return *reinterpret_cast<const QuantizedBlock*>(p);
}

/// Writes the sums of one row and panel; the last panel's missing columns are masked.
inline void write_row_avx512(__m512 sum, std::size_t row, std::size_t panel, const TileOutput& out) {
  const std::size_t columns = out.columns - panel * panel_columns;
  const auto mask = static_cast<__mmask16>(columns >= panel_columns ? 0xffffu : (1u << columns) - 1u);
  float* target = out.data + row * out.stride + panel * panel_columns;
  if (out.add) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, target), sum);
  _mm512_mask_storeu_ps(target, mask, sum);
}

/// One load of activations serves two dots (two panels), else loads and not dots set the speed. With 12 x 2 integer
/// accumulators in registers the float sums live in memory, in L1; they are needed once a block.
template <int Bits, int ZeroPoint, bool HasMinimum>
struct TileKernel<Isa::avx512vnni, AffinePanel<Bits, ZeroPoint, HasMinimum>> {
  using Panel = AffinePanel<Bits, ZeroPoint, HasMinimum>;
  static_assert(ZeroPoint == 0 || ZeroPoint == 8 || ZeroPoint == 128);
  static constexpr std::size_t max_rows = 12;
  static constexpr std::size_t max_panels = 2;

  // Few rows wait for memory: the codes that come next are asked for early (measured: 3 to 10 % for one row). Beyond
  // the matrix's end a prefetch does nothing.
  static constexpr std::size_t prefetch_rows = 4;
  static constexpr std::size_t prefetch_bytes = 2048;

  /// Adds the products of 4 weights of each column with 4 activations of each row.
  template <std::size_t R, std::size_t P>
  [[gnu::always_inline]] static inline void add_dots(__m512i (&dots)[R][P], const __m512i (&codes)[P],
                                                     const RowPointers<std::int8_t, R>& a, std::size_t offset) {
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      std::int32_t four;
      std::memcpy(&four, a[r] + offset, 4);
      __m512i values = _mm512_set1_epi32(four);
      if constexpr (P > 1) keep_in_register(values);
      LAZYLLM_UNROLL
      for (std::size_t p = 0; p < P; ++p) dots[r][p] = _mm512_dpbusd_epi32(dots[r][p], codes[p], values);
    }
  }

  template <std::size_t R, std::size_t P>
  static void run(const QuantizedRows& x, std::size_t first_row, const std::byte* panels, std::size_t panel_stride,
                  std::size_t blocks, const TileOutput& out) {
    RowPointers<std::int8_t, R> a(x.codes(first_row), x.stride());
    RowPointers<std::byte, R> info(reinterpret_cast<const std::byte*>(x.blocks(first_row)),
                                   x.block_stride() * sizeof(QuantizedBlock));
    const __m512i low_half = _mm512_set1_epi8(15);
    alignas(64) float sums[R][P][panel_columns] = {};
    for (std::size_t b = 0; b < blocks; ++b, a.advance(32), info.advance(sizeof(QuantizedBlock))) {
      __m512i dots[R][P];
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        __m512i start = _mm512_setzero_si512();
        if constexpr (ZeroPoint != 0) start = _mm512_set1_epi32(block_at(info[r]).minus_8_sums);
        if constexpr (ZeroPoint == 128) start = _mm512_slli_epi32(start, 4);
        LAZYLLM_UNROLL
        for (std::size_t p = 0; p < P; ++p) dots[r][p] = start;
      }
      const std::byte* codes = panels + b * Panel::code_bytes;
      LAZYLLM_UNROLL
      for (std::size_t group = 0; group < std::size_t{Bits}; ++group) {
        __m512i low[P], high[P];
        LAZYLLM_UNROLL
        for (std::size_t p = 0; p < P; ++p) {
          const std::byte* source = codes + p * panel_stride + group * 64;
          low[p] = _mm512_loadu_si512(source);
          if constexpr (R <= prefetch_rows) {
            _mm_prefetch(reinterpret_cast<const char*>(source) + prefetch_bytes, _MM_HINT_T0);
          }
          if constexpr (Bits == 4) {
            high[p] = _mm512_and_si512(_mm512_srli_epi16(low[p], 4), low_half);
            low[p] = _mm512_and_si512(low[p], low_half);
          }
        }
        add_dots(dots, low, a, group * 4);
        if constexpr (Bits == 4) add_dots(dots, high, a, group * 4 + 16);
      }
      const std::byte* lane = panels + b * Panel::scale_bytes;
      LAZYLLM_UNROLL
      for (std::size_t p = 0; p < P; ++p) {
        const __m512 scales = load_halves_avx512(lane + p * panel_stride + Panel::scale_offset(blocks));
        [[maybe_unused]] __m512 minima;
        if constexpr (HasMinimum) {
          minima = load_halves_avx512(lane + p * panel_stride + Panel::minimum_offset(blocks));
        }
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          const QuantizedBlock& block = block_at(info[r]);
          __m512 sum = _mm512_load_ps(sums[r][p]);
          if constexpr (HasMinimum) sum = _mm512_fmadd_ps(minima, _mm512_set1_ps(block.scaled_sum), sum);
          const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(block.scale));
          _mm512_store_ps(sums[r][p], _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r][p]), scale, sum));
        }
      }
    }
    for (std::size_t r = 0; r < R; ++r) {
      for (std::size_t p = 0; p < P; ++p) write_row_avx512(_mm512_load_ps(sums[r][p]), r, p, out);
    }
  }
};

template <class Element>
struct TileKernel<Isa::avx512vnni, FloatPanel<Element>> {
  static constexpr std::size_t max_rows = 12;
  static constexpr std::size_t max_panels = 2;

  [[gnu::always_inline]] static inline __m512 load_weights(const std::byte* source) {
    if constexpr (std::is_same_v<Element, float>) {
      return _mm512_loadu_ps(source);
    } else {
      return load_halves_avx512(source);
    }
  }

  template <std::size_t R, std::size_t P>
  static void run(const ConstRows& x, std::size_t first_row, const std::byte* panels, std::size_t panel_stride,
                  std::size_t blocks, const TileOutput& out) {
    const std::size_t stride = x.stride();
    RowPointers<float, R> a(x.data() + first_row * stride, stride);
    __m512 sums[R][P];
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      LAZYLLM_UNROLL
      for (std::size_t p = 0; p < P; ++p) sums[r][p] = _mm512_setzero_ps();
    }
    for (std::size_t k = 0; k < blocks; ++k, a.advance(1)) {
      __m512 weights[P];
      LAZYLLM_UNROLL
      for (std::size_t p = 0; p < P; ++p) {
        weights[p] = load_weights(panels + p * panel_stride + k * panel_columns * sizeof(Element));
      }
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        __m512 value = _mm512_set1_ps(*a[r]);
        if constexpr (P > 1) keep_in_register(value);
        LAZYLLM_UNROLL
        for (std::size_t p = 0; p < P; ++p) sums[r][p] = _mm512_fmadd_ps(value, weights[p], sums[r][p]);
      }
    }
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      LAZYLLM_UNROLL
      for (std::size_t p = 0; p < P; ++p) write_row_avx512(sums[r][p], r, p, out);
    }
  }
};

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
