// Matmul tiles for AVX2: 6 rows x 16 columns (two halves of 8) for codes of 4 bits and for floats; 12 rows for more
// bits: 4 x 16 at a time with codes that are unpacked once for all, or 12 x 8 for 8 bits. Per block: dots = sum of code
// * activation, an exact int32, minus the zero point's share; then the float operations of the other kernels: sum =
// fma(minimum, scaled_sum, sum), sum = fma((float)dots, weight scale * activation scale, sum).
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

/// Stops g++ from reordering a chain of integer sums: it would form all
/// products first, and spill them.
[[gnu::always_inline]] inline void keep_in_register(__m256i& value) { __asm__("" : "+x"(value)); }

/// Writes one row of a tile, columns 0..7 and 8..15.
inline void write_row_avx2(__m256 left, __m256 right, std::size_t row, const TileOutput& out) {
  if (row >= out.rows) return;
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

/// Scales or minima of columns 8 * half .. 8 * half + 7 as floats.
template <class Scales>
[[nodiscard, gnu::always_inline]] inline __m256 load_scales_avx2(const std::byte* table, std::size_t index,
                                                                 std::size_t half) {
  if constexpr (std::is_same_v<Scales, HalfScales>) {
    return load_halves_avx2(Scales::at(table, index) + half * 16);
  } else {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(Scales::at(table, index) + half * 8));
    constexpr bool is_signed = std::is_signed_v<typename Scales::Factor>;
    const __m256 factors = _mm256_cvtepi32_ps(is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
    return _mm256_mul_ps(factors, load_halves_avx2(Scales::supers(table) + half * 16));
  }
}

/// Bits `position`.. of each byte to bits 4.., with others beside them.
[[nodiscard, gnu::always_inline]] inline __m256i high_bits_avx2(__m256i bytes, std::size_t position) {
  switch (position) {  // shifts are constants once loops are unrolled
    case 0: return _mm256_slli_epi16(bytes, 4);
    case 1: return _mm256_slli_epi16(bytes, 3);
    case 2: return _mm256_slli_epi16(bytes, 2);
    case 3: return _mm256_slli_epi16(bytes, 1);
    case 5: return _mm256_srli_epi16(bytes, 1);
    case 6: return _mm256_srli_epi16(bytes, 2);
    case 7: return _mm256_srli_epi16(bytes, 3);
    default: return bytes;
  }
}

/// The codes of weights 4 * group .. 4 * group + 3 of a block in columns 8 *
/// half .. 8 * half + 7.
template <class Panel>
[[nodiscard, gnu::always_inline]] inline __m256i load_codes_avx2(const std::byte* block, std::size_t group,
                                                                 std::size_t half) {
  if constexpr (Panel::bits == 8) {
    return load_codes_avx2(block + group * 64 + half * 32);
  } else {
    __m256i codes = load_codes_avx2(block + group % 4 * 64 + half * 32);
    if (group >= 4) codes = _mm256_srli_epi16(codes, 4);
    codes = _mm256_and_si256(codes, _mm256_set1_epi8(15));
    if constexpr (Panel::high_bits > 0) {
      const __m256i line = load_codes_avx2(block + Panel::high_line(group) * 64 + half * 32);
      const __m256i mask = _mm256_set1_epi8(((1 << Panel::high_bits) - 1) << 4);
      codes = _mm256_or_si256(codes, _mm256_and_si256(high_bits_avx2(line, Panel::high_shift(group)), mask));
    }
    return codes;
  }
}

/// Where the dots of one part of a block start.
template <class Panel>
[[nodiscard, gnu::always_inline]] inline __m256i start_of_dots_avx2(const QuantizedBlock& block, std::size_t part) {
  if constexpr (Panel::zero_point == 0) return _mm256_setzero_si256();
  __m256i start = _mm256_set1_epi32(Panel::parts == 1 ? block.minus_8_sums : block.minus_8_first_sums);
  if (part == 1) start = _mm256_sub_epi32(_mm256_set1_epi32(block.minus_8_sums), start);
  if constexpr (zero_point_shift < Panel >> 0) start = _mm256_slli_epi32(start, zero_point_shift<Panel>);
  return start;
}

/// The float part of one row and one part of block b, for 8 columns.
template <class Panel>
[[gnu::always_inline]] inline __m256 scale_dots_avx2(__m256 sum, __m256i dots, const std::byte* panel, std::size_t b,
                                                     std::size_t part, std::size_t half, const QuantizedBlock& info) {
  using Scales = typename Panel::ScaleTable;
  const std::size_t index = Panel::scale_index(b, part);
  if constexpr (Panel::has_minimum) {
    const __m256 minima = load_scales_avx2<Scales>(Panel::minima(panel, b), index, half);
    sum = _mm256_fmadd_ps(minima, _mm256_set1_ps(info.scaled_sum), sum);
  }
  const __m256 scales = load_scales_avx2<Scales>(Panel::scales(panel, b), index, half);
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_mul_ps(scales, _mm256_set1_ps(info.scale)), sum);
}

/// Codes of 4 to 6 bits. A sum of two products is at most 2 * (2^Bits - 1) *
/// 127; as many as fit an int16 are added before they are widened: the 8 groups
/// of a block with 4 bits (30480), 4 with 5 bits (31496), 2 with 6 bits
/// (32004).
template <int Bits, int ZeroPoint, class Scales, bool HasMinimum>
struct TileKernel<Isa::avx2, AffinePanel<Bits, ZeroPoint, Scales, HasMinimum>> {
  using Panel = AffinePanel<Bits, ZeroPoint, Scales, HasMinimum>;
  static_assert(Bits <= 6);
  static constexpr std::size_t max_rows = Bits == 4 ? 6 : 12;
  static constexpr std::size_t max_panels = 1;
  static constexpr std::size_t narrow_groups = Bits == 4 ? 8 : Bits == 5 ? 4 : 2;
  static_assert(narrow_groups * 2 * ((1 << Bits) - 1) * 127 <= 32767);

  /// The codes of one part of a block: of its i-th group in columns 8 * half .. 8 * half + 7.
  struct PackedCodes {
    const std::byte* block;
    std::size_t part;

    [[gnu::always_inline]] __m256i operator()(std::size_t i, std::size_t half) const {
      return load_codes_avx2<Panel>(block, group_at<Panel>(part, i), half);
    }
  };
  /// The same in memory: the registers are for the sums.
  struct UnpackedCodes {
    __m256i vectors[part_groups<Panel>][2];

    [[gnu::always_inline]] explicit UnpackedCodes(const PackedCodes& packed) {
      LAZYLLM_UNROLL
      for (std::size_t i = 0; i < part_groups<Panel>; ++i) {
        LAZYLLM_UNROLL
        for (std::size_t h = 0; h < 2; ++h) vectors[i][h] = packed(i, h);
      }
      __asm__("" : "+m"(vectors));
    }
    [[gnu::always_inline]] __m256i operator()(std::size_t i, std::size_t half) const { return vectors[i][half]; }
  };

  template <std::size_t R, std::size_t>
  static void run(const QuantizedRows& x, std::size_t first_row, const std::byte* panel, std::size_t,
                  std::size_t blocks, const TileOutput& out) {
    constexpr std::size_t at_once = R <= 6 ? R : 4;
    static_assert(R % at_once == 0);
    alignas(32) float sums[R][2][8];  // the registers are for the pair sums
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      LAZYLLM_UNROLL
      for (std::size_t h = 0; h < 2; ++h) _mm256_store_ps(sums[r][h], _mm256_setzero_ps());
    }
    QuantizedTile a = x.tile(first_row);
    for (std::size_t b = 0; b < blocks; ++b, a.next_block()) {
      const std::byte* block = Panel::codes(panel, b);
      prefetch_ahead<Panel>(panel, b);
      LAZYLLM_UNROLL
      for (std::size_t part = 0; part < Panel::parts; ++part) {
        const PackedCodes packed{block, part};
        if constexpr (R == at_once) {
          add_part<R>(a, 0, packed, panel, b, part, sums);
        } else {
          const UnpackedCodes unpacked(packed);
          for (std::size_t first = 0; first < R; first += at_once) {
            add_part<at_once>(a, first, unpacked, panel, b, part, sums + first);
          }
        }
      }
    }
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) write_row_avx2(_mm256_load_ps(sums[r][0]), _mm256_load_ps(sums[r][1]), r, out);
  }

  /// Adds the products of one part of block b and R rows from `first` on to their sums.
  template <std::size_t R, class Codes>
  [[gnu::always_inline]] static inline void add_part(const QuantizedTile& a, std::size_t first, const Codes& codes_of,
                                                     const std::byte* panel, std::size_t b, std::size_t part,
                                                     float (*sums)[2][8]) {
    __m256i dots[R][2], pairs[R][2];
    LAZYLLM_UNROLL
    for (std::size_t i = 0; i < part_groups<Panel>; ++i) {
      __m256i codes[2] = {codes_of(i, 0), codes_of(i, 1)};
      for (__m256i& vector : codes) keep_in_register(vector);
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        const __m256i four = broadcast_codes_avx2(a.codes(first + r) + group_at<Panel>(part, i) * 4);
        LAZYLLM_UNROLL
        for (std::size_t h = 0; h < 2; ++h) {
          const __m256i products = _mm256_maddubs_epi16(codes[h], four);
          pairs[r][h] = i % narrow_groups == 0 ? products : _mm256_add_epi16(pairs[r][h], products);
          keep_in_register(pairs[r][h]);
        }
      }
      if ((i + 1) % narrow_groups != 0) continue;
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        LAZYLLM_UNROLL
        for (std::size_t h = 0; h < 2; ++h) {
          const __m256i wide = _mm256_madd_epi16(pairs[r][h], _mm256_set1_epi16(1));
          const __m256i before = i < narrow_groups ? start_of_dots_avx2<Panel>(a.block(first + r), part) : dots[r][h];
          dots[r][h] = _mm256_add_epi32(wide, before);
        }
      }
    }
    LAZYLLM_UNROLL
    for (std::size_t h = 0; h < 2; ++h) {
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        float* const sum = sums[r][h];
        _mm256_store_ps(sum,
                        scale_dots_avx2<Panel>(_mm256_load_ps(sum), dots[r][h], panel, b, part, h, a.block(first + r)));
      }
    }
  }
};

/// 8-bit codes with zero point 128: |weight| times the activation, whose bits
/// are inverted where the weight is negative
/// (-activation - 1), so that a sum of two products stays within an int16 (2 *
/// 128 * 127, or -2 * 128 * 128). It is widened at once. What the inversions
/// take away, the sum of -weight over the negative weights, is given back at
/// the start: vpsignb would do the same in one instruction, but waits for the
/// ports of the products.
template <>
struct TileKernel<Isa::avx2, AffinePanel<8, 128, HalfScales, false>> {
  using Panel = AffinePanel<8, 128, HalfScales, false>;
  static constexpr std::size_t max_rows = 12;
  static constexpr std::size_t max_panels = 1;

  /// Of the two halves of a panel a tile of few rows takes both at once: each broadcast serves two products. One of
  /// many rows takes one after the other: its accumulators fill the registers, and each vector of weights serves all
  /// rows.
  template <std::size_t R>
  static constexpr std::size_t halves_at_once = R <= 6 ? 2 : 1;

  /// The weights of one line of a block in columns 8 * half .. 8 * half + 7.
  struct Weights {
    __m256i magnitudes, signs;  // signs: all bits of the negative ones
  };
  [[nodiscard, gnu::always_inline]] static inline Weights load_weights(const std::byte* block, std::size_t group,
                                                                       std::size_t half) {
    const __m256i weights = _mm256_xor_si256(load_codes_avx2<Panel>(block, group, half), _mm256_set1_epi8(-128));
    return {_mm256_abs_epi8(weights), _mm256_cmpgt_epi8(_mm256_setzero_si256(), weights)};
  }

  template <std::size_t R, std::size_t>
  static void run(const QuantizedRows& x, std::size_t first_row, const std::byte* panel, std::size_t,
                  std::size_t blocks, const TileOutput& out) {
    constexpr std::size_t halves = halves_at_once<R>;
    alignas(32) float sums[R][2][8];
    for (std::size_t first = 0; first < 2; first += halves) {
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        LAZYLLM_UNROLL
        for (std::size_t h = 0; h < halves; ++h) _mm256_store_ps(sums[r][first + h], _mm256_setzero_ps());
      }
      QuantizedTile a = x.tile(first_row);
      for (std::size_t b = 0; b < blocks; ++b, a.next_block()) {
        const std::byte* block = Panel::codes(panel, b);
        prefetch_ahead<Panel>(panel, b);
        __m256i dots[R][halves], inverted[halves];
        LAZYLLM_UNROLL
        for (std::size_t h = 0; h < halves; ++h) {
          inverted[h] = _mm256_setzero_si256();
          LAZYLLM_UNROLL
          for (std::size_t r = 0; r < R; ++r) dots[r][h] = _mm256_setzero_si256();
        }
        LAZYLLM_UNROLL
        for (std::size_t group = 0; group < 8; ++group) {
          Weights weights[halves];
          LAZYLLM_UNROLL
          for (std::size_t h = 0; h < halves; ++h) {
            weights[h] = load_weights(block, group, first + h);
            inverted[h] = _mm256_sub_epi16(inverted[h], _mm256_maddubs_epi16(weights[h].magnitudes, weights[h].signs));
          }
          LAZYLLM_UNROLL
          for (std::size_t r = 0; r < R; ++r) {
            const __m256i four = broadcast_codes_avx2(a.codes(r) + group * 4);
            LAZYLLM_UNROLL
            for (std::size_t h = 0; h < halves; ++h) {
              const __m256i pairs =
                  _mm256_maddubs_epi16(weights[h].magnitudes, _mm256_xor_si256(four, weights[h].signs));
              dots[r][h] = _mm256_add_epi32(dots[r][h], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
              keep_in_register(dots[r][h]);
            }
          }
        }
        LAZYLLM_UNROLL
        for (std::size_t h = 0; h < halves; ++h) {
          const __m256i lost = _mm256_madd_epi16(inverted[h], _mm256_set1_epi16(1));
          LAZYLLM_UNROLL
          for (std::size_t r = 0; r < R; ++r) {
            float* const sum = sums[r][first + h];
            _mm256_store_ps(sum, scale_dots_avx2<Panel>(_mm256_load_ps(sum), _mm256_add_epi32(dots[r][h], lost), panel,
                                                        b, 0, first + h, a.block(r)));
          }
        }
      }
    }
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) write_row_avx2(_mm256_load_ps(sums[r][0]), _mm256_load_ps(sums[r][1]), r, out);
  }
};

template <class Element>
struct TileKernel<Isa::avx2, FloatPanel<Element>> {
  static constexpr std::size_t max_rows = 6;
  static constexpr std::size_t max_panels = 1;

  [[gnu::always_inline]] static inline __m256 load_weights(const std::byte* source) {
    if constexpr (std::is_same_v<Element, float>) {
      return _mm256_loadu_ps(reinterpret_cast<const float*>(source));
    } else if constexpr (std::is_same_v<Element, Float16>) {
      return load_halves_avx2(source);
    } else {
      static_assert(std::is_same_v<Element, BFloat16>);
      const __m128i upper = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source));
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(upper), 16));
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
