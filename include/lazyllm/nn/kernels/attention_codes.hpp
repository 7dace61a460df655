// Tiled attention on 8-bit codes, for keys and values stored as Int8: both products are dots of four unsigned and four
// signed bytes (AVX-512-VNNI), whose integer sums are exact: below 2^31 for head sizes up to 65,536.
// Scores: codes of keys, + 128, times codes of queries, made here with a scale a row. Weights: a row's softmax of a
// segment times the scales of the values, as codes of which the largest lies in 239 .. 255.
#pragma once

#include <lazyllm/core/row_element.hpp>
#include <lazyllm/nn/kernels/attention.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__x86_64__)

namespace lazyllm::inline v0::detail {

/// What is added to a weight before it is cut to an integer: fractions that differ from key to key (multiples of the
/// golden ratio), so that many weights below 1, each rounded, add up to about their sum.
alignas(64) inline constexpr auto weight_fractions = [] {
  std::array<float, segment_keys> fractions{};
  std::uint32_t bits = 0;
  for (float& fraction : fractions) {
    fraction = static_cast<float>(bits >> 16) * 0x1p-16f;
    bits += 2654435769u;
  }
  return fractions;
}();

/// Where in its tile a group of four values lies: the order in which weigh_codes packs the weights.
constexpr std::size_t value_group_place(std::size_t group) { return group % 4 * 4 + group / 4; }

}  // namespace lazyllm::inline v0::detail

LAZYLLM_TARGET_AVX512VNNI_BEGIN
namespace lazyllm::inline v0::detail {

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

/// A tile of keys' codes, rows [words, 4], to [words, key_tile, 4], + 128.
inline void load_code_keys(VnniFloats, const std::int8_t* const* rows, std::size_t words, std::byte* to) {
  const std::size_t whole = words - words % 16;
  for (std::size_t k = 0; k < key_tile; k += 16) {
    const float* columns[16];
    for (std::size_t j = 0; j < 16; ++j) columns[j] = reinterpret_cast<const float*>(rows[k + j]);
    for (std::size_t i = 0; i < whole; i += 16) {
      Avx512Floats::transpose(columns, i, reinterpret_cast<float*>(to) + i * key_tile + k, key_tile);
    }
    for (std::size_t i = whole; i < words; ++i) {
      for (std::size_t j = 0; j < 16; ++j) std::memcpy(to + 4 * (i * key_tile + k + j), rows[k + j] + 4 * i, 4);
    }
  }
  for (std::size_t i = 0; i < words * key_tile * 4; i += 64) {
    _mm512_storeu_si512(to + i, _mm512_xor_si512(_mm512_loadu_si512(to + i), _mm512_set1_epi8(-128)));
  }
}

/// Four values' codes, rows [n], side by side: [n, rounded up to 16, 4].
inline void load_code_values(VnniFloats, const std::int8_t* const* rows, std::size_t n, std::byte* to) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (std::size_t i = 0; i < n; i += 64) {
    const std::size_t count = std::min<std::size_t>(64, n - i);
    const __mmask64 bytes = ~std::uint64_t{0} >> (64 - count);
    __m512i r[4];
    LAZYLLM_UNROLL
    for (std::size_t j = 0; j < 4; ++j) {
      r[j] = _mm512_permutexvar_epi32(order, _mm512_maskz_loadu_epi8(bytes, rows[j] + i));
    }
    const __m512i low_even = _mm512_unpacklo_epi8(r[0], r[1]), high_even = _mm512_unpackhi_epi8(r[0], r[1]);
    const __m512i low_odd = _mm512_unpacklo_epi8(r[2], r[3]), high_odd = _mm512_unpackhi_epi8(r[2], r[3]);
    const __m512i words[4] = {_mm512_unpacklo_epi16(low_even, low_odd), _mm512_unpackhi_epi16(low_even, low_odd),
                              _mm512_unpacklo_epi16(high_even, high_odd), _mm512_unpackhi_epi16(high_even, high_odd)};
    LAZYLLM_UNROLL
    for (std::size_t j = 0; j < 4; ++j) {
      if (16 * j < count) _mm512_storeu_si512(to + 4 * i + 64 * j, words[j]);
    }
  }
}

/// log2 of a positive number, or up to 0.09 less: exponent and linear mantissa. Of 0: -127.
inline __m512 linear_log2(__m512 x) {
  return _mm512_fmsub_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(x)), _mm512_set1_ps(0x1p-23f), _mm512_set1_ps(127.0f));
}

/// The linear_log2 of the first n scales of values, n a multiple of 16. None counts as below -100, so that no weight
/// and no sum of weights is infinite before the scale makes it small.
inline void take_value_logs(VnniFloats, const CodeScales& scales, std::size_t n) {
  for (std::size_t k = 0; k < n; k += 16) {
    _mm512_storeu_ps(scales.value_logs + k,
                     _mm512_max_ps(linear_log2(_mm512_loadu_ps(scales.values + k)), _mm512_set1_ps(-100.0f)));
  }
}

using CodeSums [[gnu::vector_size(64)]] = std::int32_t;  // g++ keeps these in registers, and copies __m512i

/// out[r, c] = scales[c] * (starts[r] + sum over words w of left[r, w] . right[w, c]); R rows, C vectors of c. Of each
/// word's four bytes one side's are unsigned: those of left (weights, with values: no starts and no scales) or of right
/// (keys, with queries).
template <bool LeftUnsigned, std::size_t R, std::size_t C>
void multiply_codes(const std::byte* left, std::size_t left_bytes, const std::byte* right, std::size_t right_bytes,
                    std::size_t words, const std::int32_t* starts, const float* scales, float* out,
                    std::size_t out_stride) {
  CodeSums sums[R][C];
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    LAZYLLM_UNROLL
    for (std::size_t c = 0; c < C; ++c) sums[r][c] = (CodeSums)_mm512_set1_epi32(LeftUnsigned ? 0 : starts[r]);
  }
  std::size_t w = 0;
  do {
    __m512i columns[C];
    LAZYLLM_UNROLL
    for (std::size_t c = 0; c < C; ++c) columns[c] = _mm512_loadu_si512(right + w * right_bytes + 64 * c);
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      std::int32_t word;
      std::memcpy(&word, left + r * left_bytes + 4 * w, sizeof word);
      const __m512i row = _mm512_set1_epi32(word);
      LAZYLLM_UNROLL
      for (std::size_t c = 0; c < C; ++c) {
        const __m512i sum = (__m512i)sums[r][c];
        sums[r][c] = (CodeSums)(LeftUnsigned ? _mm512_dpbusd_epi32(sum, row, columns[c])
                                             : _mm512_dpbusd_epi32(sum, columns[c], row));
      }
    }
  } while (++w < words);
  LAZYLLM_UNROLL
  for (std::size_t c = 0; c < C; ++c) {
    const __m512 scale = LeftUnsigned ? _mm512_set1_ps(1.0f) : _mm512_loadu_ps(scales + 16 * c);
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      const __m512 sum = _mm512_cvtepi32_ps((__m512i)sums[r][c]);
      _mm512_storeu_ps(out + r * out_stride + 16 * c, LeftUnsigned ? sum : _mm512_mul_ps(sum, scale));
    }
  }
}

/// 2^x for x <= 120; relative error 7.6e-5, far below a step of the weights.
inline __m512 rough_exp2(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x)
  __m512 p = _mm512_fmadd_ps(f, _mm512_set1_ps(0.07802452f), _mm512_set1_ps(0.22606716f));
  p = _mm512_fmadd_ps(f, p, _mm512_set1_ps(0.69583354f));
  p = _mm512_fmadd_ps(f, p, _mm512_set1_ps(0.99992522f));
  return _mm512_scalef_ps(p, x);
}

/// A row's products of codes, times the keys' scales, as codes of weights of the first n keys, a multiple of key_tile.
/// With m such that the largest 2^(score log2 e - m) * (value's scale) lies in 240 .. 255, the codes are these numbers,
/// cut after adding a fraction; m is the row's maximum and the sum of 2^(score log2 e - m) its sum of weights.
inline void weigh_codes(const AttentionSegment& segment, std::size_t row, std::size_t n, float* products,
                        std::uint8_t* codes) {
  constexpr float log2_e = 0x1.715476p+0f, log2_240 = 7.9068906f;
  const std::size_t count = segment.counts[row];
  const float query_scale = segment.scales.queries[row];
  if (float* const to = segment.score_rows[row]; to != nullptr) {
    for (std::size_t k = 0; k < count; ++k) to[k] = products[k] * query_scale;
  }
  if (count == 0) {
    std::memset(codes, 0, n);
    return;
  }
  std::fill(products + count, products + n, -std::numeric_limits<float>::infinity());
  const __m512 factor = _mm512_set1_ps(query_scale * log2_e);
  __m512 maxima = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  for (std::size_t k = 0; k < n; k += 16) {
    const __m512 bound =
        _mm512_fmadd_ps(_mm512_loadu_ps(products + k), factor, _mm512_loadu_ps(segment.scales.value_logs + k));
    maxima = _mm512_max_ps(maxima, bound);
  }
  const float max = _mm512_reduce_max_ps(maxima) - log2_240;
  __m512 sum = _mm512_setzero_ps();
  for (std::size_t tile = 0; tile < n; tile += key_tile) {
    __m512i weights[4];
    LAZYLLM_UNROLL
    for (std::size_t c = 0; c < 4; ++c) {
      const std::size_t k = tile + 16 * c;
      const __m512 e = rough_exp2(_mm512_fmsub_ps(_mm512_loadu_ps(products + k), factor, _mm512_set1_ps(max)));
      sum = _mm512_add_ps(sum, e);
      weights[c] = _mm512_cvttps_epi32(
          _mm512_fmadd_ps(e, _mm512_loadu_ps(segment.scales.values + k), _mm512_loadu_ps(weight_fractions.data() + k)));
    }
    // Four neighbours stay together, in the order of value_group_place.
    _mm512_storeu_si512(codes + tile, _mm512_packus_epi16(_mm512_packus_epi32(weights[0], weights[1]),
                                                          _mm512_packus_epi32(weights[2], weights[3])));
  }
  segment.state.max[row] = max * (1.0f / log2_e);
  _mm512_storeu_ps(segment.state.sums + row * sum_lanes, sum);
}

/// out [R, padded_dim] = the values, weighed: from products [R, segment_keys], which weigh_codes describes, of the
/// first `keys` keys. Weights of keys that a row does not see are zeros.
template <std::size_t R>
void sum_code_values(const AttentionSegment& segment, std::size_t row, std::size_t keys, float* products) {
  alignas(64) std::uint8_t weights[R * segment_keys];
  for (std::size_t r = 0; r < R; ++r) {
    weigh_codes(segment, row + r, keys, products + r * segment_keys, weights + r * segment_keys);
  }
  const std::size_t dim = segment.padded_dim;
  float* const out = segment.state.out + row * dim;
  const auto* const weight_codes = reinterpret_cast<const std::byte*>(weights);
  const auto* const value_codes = reinterpret_cast<const std::byte*>(segment.values);
  std::size_t column = 0;
  for (; column + 64 <= dim; column += 64) {
    multiply_codes<true, R, 4>(weight_codes, segment_keys, value_codes + column * 4, dim * 4, keys / 4, nullptr,
                               nullptr, out + column, dim);
  }
  for (; column < dim; column += 16) {
    multiply_codes<true, R, 1>(weight_codes, segment_keys, value_codes + column * 4, dim * 4, keys / 4, nullptr,
                               nullptr, out + column, dim);
  }
}

/// Products of codes [R, segment_keys] of R rows from `row` on, times the keys' scales; times the queries' they are the
/// raw scores. Of the segment's first `keys` keys, a multiple of key_tile.
template <std::size_t R>
void score_panel(VnniFloats, const AttentionSegment& segment, std::size_t row, std::size_t keys, float* products) {
  const std::size_t words = (segment.head_dim + 3) / 4;
  const auto* const query_codes = reinterpret_cast<const std::byte*>(segment.queries) + row * segment.padded_dim;
  const auto* const key_codes = reinterpret_cast<const std::byte*>(segment.keys);
  for (std::size_t first = 0; first < keys; first += key_tile) {
    multiply_codes<false, R, 4>(query_codes, segment.padded_dim, key_codes + first * words * 4, key_tile * 4, words,
                                segment.scales.starts + row, segment.scales.keys + first, products + first,
                                segment_keys);
  }
}

/// R rows from `row` on against one segment.
template <std::size_t R>
void attend_panel(VnniFloats, const AttentionSegment& segment, std::size_t row) {
  alignas(64) float products[R * segment_keys];
  const std::size_t keys = whole_tiles(segment.counts[row + R - 1]);
  score_panel<R>(VnniFloats{}, segment, row, keys, products);
  sum_code_values<R>(segment, row, keys, products);
}

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
