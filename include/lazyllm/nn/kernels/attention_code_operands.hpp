// Rows of 8-bit codes on their way into dots: queries made of floats, stored keys and values as words of four bytes,
// their scales.
#pragma once

#include <lazyllm/core/row_element.hpp>
#include <lazyllm/nn/kernels/attention.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)

namespace lazyllm::inline v0::detail {

/// Where in its tile a group of four values lies: the order in which WeightCodes packs the weights.
constexpr std::size_t value_group_place(std::size_t group) { return group % 4 * 4 + group / 4; }

/// Stored rows of n numbers each that lie one behind the other, as if they were an array of pointers to them.
template <std::size_t n>
struct AdjacentRows {
  const Int8* first;
  [[nodiscard]] const Int8* operator[](std::size_t i) const { return first + i * row_size<Int8>(n); }
  [[nodiscard]] AdjacentRows operator+(std::size_t i) const { return {(*this)[i]}; }
};

}  // namespace lazyllm::inline v0::detail

LAZYLLM_TARGET_AVX512VNNI_BEGIN
namespace lazyllm::inline v0::detail {

// Integers in a register. g++ keeps these there, and copies __m512i.
using CodeSums [[gnu::vector_size(64)]] = std::int32_t;

/// Stops compilers from making a value before or after another one of these: clang would load the weights of many dots
/// first, and spill them.
template <class Vector>
[[gnu::always_inline]] inline void keep_in_order(Vector& value) {
  __asm__ volatile("" : "+v"(value));
}

/// The first 16 of n numbers, times `factor`; zeros beyond n.
inline __m512 scaled_numbers(const float* from, std::size_t n, float factor) {
  const __mmask16 lanes = Avx512Floats::first_lanes(std::min<std::size_t>(16, n));
  return _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, from), _mm512_set1_ps(factor));
}

/// One query [n], times `factor`, as codes [n, rounded up to 16]; gives its scale and start (CodeScales).
inline void load_code_query(VnniFloats, const float* from, std::size_t n, float factor, std::byte* codes,
                            float& query_scale, std::int32_t& start) {
  __m512 largest = _mm512_set1_ps(smallest_row_magnitude);
  for (std::size_t i = 0; i < n; i += 16)
    largest = _mm512_max_ps(largest, _mm512_abs_ps(scaled_numbers(from + i, n - i, factor)));
  const float magnitude = _mm512_reduce_max_ps(largest);
  const __m512 inverse = _mm512_set1_ps(127.0f / magnitude);
  __m512i sum = _mm512_setzero_si512();
  for (std::size_t i = 0; i < n; i += 16) {
    const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(scaled_numbers(from + i, n - i, factor), inverse));
    sum = _mm512_add_epi32(sum, code);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + i), _mm512_cvtepi32_epi8(code));
  }
  query_scale = magnitude / 127.0f;
  start = -128 * _mm512_reduce_add_epi32(sum);
}

/// The codes of key_group stored keys, [words, 4] each, + 128, to the columns of a tile [words, key_tile, 4].
inline void load_code_keys(VnniFloats, const Int8* const* rows, std::size_t words, std::byte* to) {
  const std::size_t whole = words - words % 16;
  const __m512 signs = _mm512_castsi512_ps(_mm512_set1_epi8(-128));
  const float* codes[key_group];
  for (std::size_t j = 0; j < key_group; ++j) codes[j] = reinterpret_cast<const float*>(row_codes(rows[j]));
  for (std::size_t i = 0; i < whole; i += 16) {
    __m512 columns[16];
    Avx512Floats::transpose(codes, i, columns);
    LAZYLLM_UNROLL
    for (std::size_t j = 0; j < 16; ++j) {
      _mm512_storeu_ps(to + 4 * (i + j) * key_tile, _mm512_xor_ps(columns[j], signs));
    }
  }
  for (std::size_t i = whole; i < words; ++i) {
    for (std::size_t j = 0; j < key_group; ++j) {
      std::uint32_t word;
      std::memcpy(&word, codes[j] + i, sizeof word);
      word ^= 0x80808080;
      std::memcpy(to + 4 * (i * key_tile + j), &word, sizeof word);
    }
  }
}

/// A 4 x 4 matrix of 128-bit lanes, a row a vector.
[[gnu::always_inline]] inline void transpose_lanes(CodeSums (&v)[4]) {
  const __m512i a = (__m512i)v[0], b = (__m512i)v[1], c = (__m512i)v[2], d = (__m512i)v[3];
  const __m512i low_ab = _mm512_shuffle_i32x4(a, b, 0x44), high_ab = _mm512_shuffle_i32x4(a, b, 0xee);
  const __m512i low_cd = _mm512_shuffle_i32x4(c, d, 0x44), high_cd = _mm512_shuffle_i32x4(c, d, 0xee);
  v[0] = (CodeSums)_mm512_shuffle_i32x4(low_ab, low_cd, 0x88);
  v[1] = (CodeSums)_mm512_shuffle_i32x4(low_ab, low_cd, 0xdd);
  v[2] = (CodeSums)_mm512_shuffle_i32x4(high_ab, high_cd, 0x88);
  v[3] = (CodeSums)_mm512_shuffle_i32x4(high_ab, high_cd, 0xdd);
}

/// The codes of four stored values from `first` on, `count` <= 64, side by side: lane l of words[j] has those of
/// columns 16 l + 4 j to 16 l + 4 j + 3. transpose_lanes puts the columns in order, before or after they are summed.
[[gnu::always_inline]] inline void interleave_codes(const Int8* const* rows, std::size_t first, std::size_t count,
                                                    CodeSums (&words)[4]) {
  const __mmask64 bytes = ~std::uint64_t{0} >> (64 - count);
  __m512i r[4];
  LAZYLLM_UNROLL
  for (std::size_t j = 0; j < 4; ++j) r[j] = _mm512_maskz_loadu_epi8(bytes, row_codes(rows[j]) + first);
  const __m512i low_even = _mm512_unpacklo_epi8(r[0], r[1]), high_even = _mm512_unpackhi_epi8(r[0], r[1]);
  const __m512i low_odd = _mm512_unpacklo_epi8(r[2], r[3]), high_odd = _mm512_unpackhi_epi8(r[2], r[3]);
  words[0] = (CodeSums)_mm512_unpacklo_epi16(low_even, low_odd);
  words[1] = (CodeSums)_mm512_unpackhi_epi16(low_even, low_odd);
  words[2] = (CodeSums)_mm512_unpacklo_epi16(high_even, high_odd);
  words[3] = (CodeSums)_mm512_unpackhi_epi16(high_even, high_odd);
}

/// The codes [n] of key_group stored values, which are the segment's from `first` on, to their tile of
/// [key_tile / 4, padded_dim, 4] in `to`: four values side by side, groups of four in the order of value_group_place.
inline void load_code_values(Avx512Floats, const Int8* const* rows, std::size_t n, std::size_t first,
                             std::size_t padded_dim, std::byte* to) {
  const std::size_t tile = first - first % key_tile;
  for (std::size_t k = 0; k < key_group; k += 4) {
    std::byte* const group = to + (tile + 4 * value_group_place((first - tile + k) / 4)) * padded_dim;
    for (std::size_t i = 0; i < n; i += 64) {
      const std::size_t count = std::min<std::size_t>(64, n - i);
      CodeSums words[4];
      interleave_codes(rows + k, i, count, words);
      transpose_lanes(words);
      LAZYLLM_UNROLL
      for (std::size_t j = 0; j < 4; ++j) {
        if (16 * j < count) _mm512_storeu_si512(group + 4 * i + 64 * j, (__m512i)words[j]);
      }
    }
  }
}

/// log2 of a positive number; absolute error 1.4e-5.
inline __m512 log2_of(__m512 x) {
  const __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_zero);
  const __m512 u = _mm512_sub_ps(m, _mm512_set1_ps(1.0f));
  __m512 p = _mm512_fmadd_ps(u, _mm512_set1_ps(0.19016048f), _mm512_set1_ps(-0.37143278f));
  p = _mm512_fmadd_ps(u, p, _mm512_set1_ps(0.49096307f));
  p = _mm512_fmadd_ps(u, p, _mm512_set1_ps(-0.72148138f));
  p = _mm512_fmadd_ps(u, p, _mm512_set1_ps(1.44249535f));
  return _mm512_fmadd_ps(u, p, _mm512_sub_ps(_mm512_getexp_ps(x), _mm512_getexp_ps(m)));
}

/// The scales of key_group stored rows; `Rows` is const Int8* const* or AdjacentRows.
template <class Rows>
__m512 stored_scales(const Rows& rows) {
  __m128 quarters[4];
  LAZYLLM_UNROLL
  for (std::size_t q = 0; q < 4; ++q) {
    const auto four = rows + 4 * q;
    quarters[q] = _mm_setr_ps(row_scale(four[0]), row_scale(four[1]), row_scale(four[2]), row_scale(four[3]));
  }
  const __m256 low = _mm256_set_m128(quarters[1], quarters[0]), high = _mm256_set_m128(quarters[3], quarters[2]);
  return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

/// Those of keys, which are the segment's from `first` on.
template <class Rows>
void load_key_scales(const Rows& rows, std::size_t first, const CodeScales& to) {
  _mm512_storeu_ps(to.keys + first, stored_scales(rows));
}

/// log2 and inverse of those of values. A row of zeros has the scale 0, which counts as 2^-100 (others are larger, see
/// smallest_row_magnitude): no weight and no sum of weights is infinite.
template <class Rows>
void load_value_scales(const Rows& rows, std::size_t first, const CodeScales& to) {
  const __m512 scales = _mm512_max_ps(stored_scales(rows), _mm512_set1_ps(0x1p-100f));
  _mm512_storeu_ps(to.value_logs + first, log2_of(scales));
  _mm512_storeu_ps(to.value_inverses + first, _mm512_div_ps(_mm512_set1_ps(1.0f), scales));
}

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
