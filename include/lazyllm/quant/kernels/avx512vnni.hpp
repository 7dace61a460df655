// Matmul tiles for AVX-512 with VNNI: up to 12 rows x 16 or 32 columns (one or two panels), the accumulators in
// registers.
// Per block: dots = zero-point correction + sum of code * activation (u8 x s8 in groups of 4), an exact int32 of at
// most 2^21; then sum = fma(minimum, scaled_sum, sum) and sum = fma((float)dots, weight scale * activation scale, sum).
#pragma once

#include <lazyllm/core/bfloat16.hpp>
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

LAZYLLM_TARGET_AVX512VNNI_BEGIN
namespace lazyllm::inline v0::detail {

/// Sixteen halves of a panel as floats.
[[nodiscard]] inline __m512 load_halves_avx512(const std::byte* source) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
}

/// Sixteen scales or minima of a panel as floats.
template <class Scales>
[[nodiscard, gnu::always_inline]] inline __m512 load_scales_avx512(const std::byte* table, std::size_t index) {
  if constexpr (std::is_same_v<Scales, HalfScales>) {
    return load_halves_avx512(Scales::at(table, index));
  } else {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(Scales::at(table, index)));
    constexpr bool is_signed = std::is_signed_v<typename Scales::Factor>;
    const __m512 factors = _mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
    return _mm512_mul_ps(factors, load_halves_avx512(Scales::supers(table)));
  }
}

/// Bits `position`.. of each byte to bits 4.., with others beside them.
[[nodiscard, gnu::always_inline]] inline __m512i high_bits_avx512(__m512i bytes, std::size_t position) {
  switch (position) {  // shifts are constants once loops are unrolled
    case 0: return _mm512_slli_epi16(bytes, 4);
    case 1: return _mm512_slli_epi16(bytes, 3);
    case 2: return _mm512_slli_epi16(bytes, 2);
    case 3: return _mm512_slli_epi16(bytes, 1);
    case 5: return _mm512_srli_epi16(bytes, 1);
    case 6: return _mm512_srli_epi16(bytes, 2);
    case 7: return _mm512_srli_epi16(bytes, 3);
    default: return bytes;
  }
}

/// The codes of weights 4 * group .. 4 * group + 3 of a block, 16 columns.
template <class Panel>
[[nodiscard, gnu::always_inline]] inline __m512i load_codes_avx512(const std::byte* block, std::size_t group) {
  if constexpr (Panel::bits == 8) {
    return _mm512_loadu_si512(block + group * 64);
  } else {
    __m512i codes = _mm512_loadu_si512(block + group % 4 * 64);
    if (group >= 4) codes = _mm512_srli_epi16(codes, 4);
    codes = _mm512_and_si512(codes, _mm512_set1_epi8(15));
    if constexpr (Panel::high_bits > 0) {
      const __m512i line = _mm512_loadu_si512(block + Panel::high_line(group) * 64);
      const __m512i mask = _mm512_set1_epi8(((1 << Panel::high_bits) - 1) << 4);
      const __m512i high = high_bits_avx512(line, Panel::high_shift(group));
      codes = _mm512_ternarylogic_epi32(codes, high, mask, 0xf8);  // codes | (high & mask)
    }
    return codes;
  }
}

/// Stops clang from loading the value again in each instruction that uses it.
template <class Vector>
[[gnu::always_inline]] inline void keep_in_register(Vector& value) {
  __asm__("" : "+v"(value));
}

/// Writes the sums of one row and panel; the last panel's missing columns are masked.
inline void write_row_avx512(__m512 sum, std::size_t row, std::size_t panel, const TileOutput& out) {
  if (row >= out.rows) return;
  const std::size_t columns = out.columns - panel * panel_columns;
  const auto mask = static_cast<__mmask16>(columns >= panel_columns ? 0xffffu : (1u << columns) - 1u);
  float* target = out.data + row * out.stride + panel * panel_columns;
  if (out.add) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, target), sum);
  _mm512_mask_storeu_ps(target, mask, sum);
}

/// Intel's server CPUs do two dots a cycle: one load of activations serves two dots (two panels), else loads set the
/// speed. With 12 x 2 integer accumulators in registers the float sums live in memory, in L1; they are needed once a
/// block. Zen 4 does one dot a cycle, and a tile of one panel leaves it registers to run ahead. Zen 5: halves_tiles().
template <int Bits, int ZeroPoint, class Scales, bool HasMinimum>
struct TileKernel<Isa::avx512vnni, AffinePanel<Bits, ZeroPoint, Scales, HasMinimum>> {
  using Panel = AffinePanel<Bits, ZeroPoint, Scales, HasMinimum>;
  static constexpr std::size_t max_rows = 12;
  static constexpr std::size_t max_panels = 2;

  /// Whether 12 rows and two panels are two tiles of 6 rows, whose integer and float sums all fit the registers: on
  /// AMD's CPUs since Zen 5, the first of them with AVX-VNNI, which do two dots a cycle, too. With minima it is no
  /// faster.
  [[nodiscard]] static bool halves_tiles() { return !HasMinimum && cpu_features().amd && cpu_features().avxvnni; }

  /// Few rows wait for memory, which is read fastest as one stream.
  [[nodiscard]] static std::size_t tile_panels(std::size_t rows) {
    return !cpu_features().amd || (rows > 8 && halves_tiles()) ? 2 : 1;
  }

  /// How far ahead of their use weights are asked for. Few rows keep up with the memory, and of what they would ask for
  /// further ahead some is forgotten; more rows take their time, and lose less when a line comes late.
  template <std::size_t R>
  static constexpr std::size_t read_ahead = R < 6 ? read_ahead_bytes : 2 * read_ahead_bytes;

  template <std::size_t P>
  [[gnu::always_inline]] static inline void load_weights(__m512i (&weights)[P], const std::byte* codes,
                                                         std::size_t panel_stride, std::size_t group) {
    LAZYLLM_UNROLL
    for (std::size_t p = 0; p < P; ++p) weights[p] = load_codes_avx512<Panel>(codes + p * panel_stride, group);
  }

  /// Adds the products of 4 weights of each column with a row's 4 activations.
  template <std::size_t P>
  [[gnu::always_inline]] static inline void add_dots(__m512i (&dots)[P], const __m512i (&weights)[P],
                                                     const std::int8_t* activations) {
    std::int32_t four;
    std::memcpy(&four, activations, 4);
    __m512i values = _mm512_set1_epi32(four);
    if constexpr (P > 1) keep_in_register(values);
    LAZYLLM_UNROLL
    for (std::size_t p = 0; p < P; ++p) dots[p] = _mm512_dpbusd_epi32(dots[p], weights[p], values);
  }

  /// The same for all 32 weights of a block and one row, codes of 4 bits. The upper four bits stay where they are, 16
  /// times too large, until their sum (at most 2^20) is made: fewer instructions between one line of memory and the
  /// next.
  template <std::size_t P>
  [[gnu::always_inline]] static inline void add_block_dots(__m512i (&dots)[P], const std::byte* codes,
                                                           std::size_t panel_stride, const std::int8_t* a) {
    __m512i upper[P];
    LAZYLLM_UNROLL
    for (std::size_t p = 0; p < P; ++p) upper[p] = _mm512_setzero_si512();
    LAZYLLM_UNROLL
    for (std::size_t group = 0; group < 4; ++group) {
      std::int32_t low, high;
      std::memcpy(&low, a + group * 4, 4);
      std::memcpy(&high, a + group * 4 + 16, 4);
      LAZYLLM_UNROLL
      for (std::size_t p = 0; p < P; ++p) {
        const __m512i both = _mm512_loadu_si512(codes + p * panel_stride + group * 64);
        const __m512i low_codes = _mm512_and_si512(both, _mm512_set1_epi8(15));
        const __m512i high_codes = _mm512_and_si512(both, _mm512_set1_epi8(-16));
        dots[p] = _mm512_dpbusd_epi32(dots[p], low_codes, _mm512_set1_epi32(low));
        upper[p] = _mm512_dpbusd_epi32(upper[p], high_codes, _mm512_set1_epi32(high));
      }
    }
    LAZYLLM_UNROLL
    for (std::size_t p = 0; p < P; ++p) dots[p] = _mm512_add_epi32(dots[p], _mm512_srai_epi32(upper[p], 4));
  }

  [[gnu::always_inline]] static inline __m512i start_of_dots(const QuantizedBlock& block, std::size_t part) {
    if constexpr (ZeroPoint == 0) return _mm512_setzero_si512();
    __m512i start = _mm512_set1_epi32(Panel::parts == 1 ? block.minus_8_sums : block.minus_8_first_sums);
    if (part == 1) start = _mm512_sub_epi32(_mm512_set1_epi32(block.minus_8_sums), start);
    if constexpr (zero_point_shift < Panel >> 0) start = _mm512_slli_epi32(start, zero_point_shift<Panel>);
    return start;
  }

  template <std::size_t R, std::size_t P>
  static void run(const QuantizedRows& x, std::size_t first_row, const std::byte* panels, std::size_t panel_stride,
                  std::size_t blocks, const TileOutput& out) {
    if constexpr (R == max_rows && P == 2 && !HasMinimum) {
      if (halves_tiles()) {
        constexpr std::size_t half = R / 2;
        run_tile<half, P>(x, first_row, panels, panel_stride, blocks, read_ahead<half>, out);
        TileOutput second = out;
        second.data += half * out.stride;
        second.rows -= std::min(half, out.rows);
        // The panels are in the cache by now: time to ask for the next ones.
        return run_tile<half, P>(x, first_row + half, panels, panel_stride, blocks, P * panel_stride, second);
      }
    }
    run_tile<R, P>(x, first_row, panels, panel_stride, blocks, read_ahead<R>, out);
  }

  /// Asks for weights that lie `ahead` bytes behind those that it multiplies.
  template <std::size_t R, std::size_t P>
  static void run_tile(const QuantizedRows& x, std::size_t first_row, const std::byte* panels, std::size_t panel_stride,
                       std::size_t blocks, std::size_t ahead, const TileOutput& out) {
    QuantizedTile a = x.tile(first_row);
    alignas(64) float sums[R][P][panel_columns];
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      LAZYLLM_UNROLL
      for (std::size_t p = 0; p < P; ++p) _mm512_store_ps(sums[r][p], _mm512_setzero_ps());
    }
    for (std::size_t b = 0; b < blocks; ++b, a.next_block()) {
      const std::byte* codes = Panel::codes(panels, b);
      LAZYLLM_UNROLL
      for (std::size_t p = 0; p < P; ++p) prefetch_ahead<Panel>(panels + p * panel_stride, b, ahead);
      LAZYLLM_UNROLL
      for (std::size_t part = 0; part < Panel::parts; ++part) {
        __m512i dots[R][P];
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          const __m512i start = start_of_dots(a.block(r), part);
          LAZYLLM_UNROLL
          for (std::size_t p = 0; p < P; ++p) dots[r][p] = start;
        }
        constexpr bool whole_block = R == 1 && Bits == 4;
        constexpr std::size_t last = part_groups<Panel> - 1;
        if constexpr (whole_block) add_block_dots<P>(dots[0], codes, panel_stride, a.codes(0));
        __m512i weights[P];
        LAZYLLM_UNROLL
        for (std::size_t i = 0; i < (whole_block ? 0 : last); ++i) {
          const std::size_t group = group_at<Panel>(part, i);
          load_weights(weights, codes, panel_stride, group);
          LAZYLLM_UNROLL
          for (std::size_t r = 0; r < R; ++r) add_dots(dots[r], weights, a.codes(r) + group * 4);
        }
        __m512 scales[P];
        [[maybe_unused]] __m512 minima[P];
        const std::size_t index = Panel::scale_index(b, part);
        LAZYLLM_UNROLL
        for (std::size_t p = 0; p < P; ++p) {
          const std::byte* panel = panels + p * panel_stride;
          scales[p] = load_scales_avx512<Scales>(Panel::scales(panel, b), index);
          if constexpr (HasMinimum) minima[p] = load_scales_avx512<Scales>(Panel::minima(panel, b), index);
        }
        // A row is scaled between its last dots and the next row's: both wait for the same ports, and a CPU that sees
        // only the one or the other for a while uses them less.
        const std::size_t group = group_at<Panel>(part, last);
        if constexpr (!whole_block) load_weights(weights, codes, panel_stride, group);
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          if constexpr (!whole_block) add_dots(dots[r], weights, a.codes(r) + group * 4);
          const QuantizedBlock& block = a.block(r);
          LAZYLLM_UNROLL
          for (std::size_t p = 0; p < P; ++p) {
            __m512 sum = _mm512_load_ps(sums[r][p]);
            if constexpr (HasMinimum) sum = _mm512_fmadd_ps(minima[p], _mm512_set1_ps(block.scaled_sum), sum);
            const __m512 scale = _mm512_mul_ps(scales[p], _mm512_set1_ps(block.scale));
            _mm512_store_ps(sums[r][p], _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r][p]), scale, sum));
          }
        }
      }
    }
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      LAZYLLM_UNROLL
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
    } else if constexpr (std::is_same_v<Element, Float16>) {
      return load_halves_avx512(source);
    } else {
      static_assert(std::is_same_v<Element, BFloat16>);
      const __m256i upper = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(upper), 16));
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
