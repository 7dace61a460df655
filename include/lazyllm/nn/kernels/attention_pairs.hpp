// Tiled attention on pairs of bfloat16, for keys and values in bfloat16 or 8 bits (rounded to bfloat16): how a segment
// is laid out in pairs, for the kernels with dots of AVX-512-BF16 here and those with tiles in attention_amx.hpp.
// Queries and softmax weights are rounded to bfloat16, products summed in float; maximum, exponential and sum of
// weights are those of the float kernels.
#pragma once

#include <lazyllm/nn/kernels/attention.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)

LAZYLLM_TARGET_AVX512BF16_BEGIN
namespace lazyllm::inline v0::detail {

/// Two vectors of 16 floats as 16 pairs: numbers 2 i and 2 i + 1 are pair i.
inline void store_pairs(__m512 low, __m512 high, float* pairs) {
  const __m512bh words = _mm512_cvtne2ps_pbh(high, low);
  std::memcpy(pairs, &words, sizeof words);
}

/// n numbers, times the scale, as pairs [n / 2]; n is a multiple of 32.
inline void load_pair_queries(Bfloat16Floats, const float* from, std::size_t n, float scale, float* pairs) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (std::size_t i = 0; i < n; i += 32) {
    store_pairs(_mm512_mul_ps(_mm512_loadu_ps(from + i), factor), _mm512_mul_ps(_mm512_loadu_ps(from + i + 16), factor),
                pairs + i / 2);
  }
}

/// The first n weights of each row [rows, segment_keys] as pairs [rows, segment_keys / 2]; n is a multiple of 32.
inline void pair_weights(std::size_t rows, std::size_t n, const float* weights, float* pairs) {
  for (std::size_t r = 0; r < rows; ++r) {
    const float* from = weights + r * segment_keys;
    for (std::size_t k = 0; k < n; k += 32) {
      store_pairs(_mm512_loadu_ps(from + k), _mm512_loadu_ps(from + k + 16), pairs + (r * segment_keys + k) / 2);
    }
  }
}

/// The n numbers of a stored row as bfloat16: itself, or converted into `storage`; n is a multiple of 32.
inline const BFloat16* bfloat16_row(Bfloat16Floats, const BFloat16* row, std::size_t, float*) { return row; }
inline const BFloat16* bfloat16_row(Bfloat16Floats, const Int8* row, std::size_t n, float* storage) {
  const std::int8_t* const codes = row_codes(row);
  const __m512 scale = _mm512_set1_ps(row_scale(row));
  for (std::size_t i = 0; i < n; i += 32) {
    store_pairs(_mm512_mul_ps(Avx512Floats::load(codes + i), scale),
                _mm512_mul_ps(Avx512Floats::load(codes + i + 16), scale), storage + i / 2);
  }
  return reinterpret_cast<const BFloat16*>(storage);
}

/// pairs [head_dim]: each dimension of two keys' values, bfloat16 [head_dim], head_dim a multiple of 32.
inline void pair_values(Bfloat16Floats, const BFloat16* even, const BFloat16* odd, std::size_t head_dim, float* pairs) {
  alignas(64) static constexpr auto order = [] {
    std::array<std::uint16_t, 64> words{};
    for (std::size_t i = 0; i < 64; ++i) words[i] = static_cast<std::uint16_t>(i / 2 + i % 2 * 32);
    return words;
  }();
  const __m512i low_order = _mm512_load_si512(order.data());
  const __m512i high_order = _mm512_load_si512(order.data() + 32);
  for (std::size_t i = 0; i < head_dim; i += 32) {
    const __m512i a = _mm512_loadu_si512(even + i);
    const __m512i b = _mm512_loadu_si512(odd + i);
    _mm512_storeu_si512(pairs + i, _mm512_permutex2var_epi16(a, low_order, b));
    _mm512_storeu_si512(pairs + i + 16, _mm512_permutex2var_epi16(a, high_order, b));
  }
}

inline __m512bh load_bfloat16_pairs(const float* p) { return (__m512bh)_mm512_loadu_si512(p); }
inline __m512bh broadcast_bfloat16_pair(const float* p) { return (__m512bh)_mm512_castps_si512(_mm512_set1_ps(*p)); }

/// out[r, c] (+)= sum over pairs p of left[r, p] . right[p, c], in the order of p; R rows, C vectors of c. Strides in
/// pairs and floats.
template <std::size_t R, std::size_t C>
void multiply_pairs(const float* left, std::size_t left_stride, const float* right, std::size_t right_stride,
                    std::size_t pairs, float* out, std::size_t out_stride) {
  __m512 sums[R][C];
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    LAZYLLM_UNROLL
    for (std::size_t c = 0; c < C; ++c) sums[r][c] = _mm512_setzero_ps();
  }
  for (std::size_t p = 0; p < pairs; ++p) {
    __m512bh columns[C];
    LAZYLLM_UNROLL
    for (std::size_t c = 0; c < C; ++c) columns[c] = load_bfloat16_pairs(right + p * right_stride + 16 * c);
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      const __m512bh row = broadcast_bfloat16_pair(left + r * left_stride + p);
      LAZYLLM_UNROLL
      for (std::size_t c = 0; c < C; ++c) sums[r][c] = _mm512_dpbf16_ps(sums[r][c], row, columns[c]);
    }
  }
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    LAZYLLM_UNROLL
    for (std::size_t c = 0; c < C; ++c) _mm512_storeu_ps(out + r * out_stride + 16 * c, sums[r][c]);
  }
}

/// Raw scores [R, segment_keys] of R rows from `row` on. Of the segment's keys from `first` to first + key_tile.
template <std::size_t R>
void score_tile(Bfloat16Floats, const AttentionSegment& segment, std::size_t row, std::size_t first, float* scores) {
  const std::size_t query_pairs = segment.head_dim / 2;
  multiply_pairs<R, 4>(segment.queries + row * query_pairs, query_pairs, segment.keys + first * query_pairs, key_tile,
                       query_pairs, scores + first, segment_keys);
}

/// The same of the segment's first `keys` keys, a multiple of key_tile.
template <std::size_t R>
void score_panel(Bfloat16Floats tag, const AttentionSegment& segment, std::size_t row, std::size_t keys,
                 float* scores) {
  for (std::size_t first = 0; first < keys; first += key_tile) score_tile<R>(tag, segment, row, first, scores);
}

/// R rows from `row` on against one segment. Weights of keys that a row does not see are zeros: such keys add nothing,
/// as long as their values are finite.
template <std::size_t R>
void attend_panel(Bfloat16Floats, const AttentionSegment& segment, std::size_t row) {
  alignas(64) float scores[R * segment_keys];
  alignas(64) float weights[R * segment_keys / 2];
  const std::size_t keys = whole_tiles(segment.counts[row + R - 1]);
  score_panel<R>(Bfloat16Floats{}, segment, row, keys, scores);
  weigh_rows(Avx512Floats{}, segment, row, R, keys, scores);
  pair_weights(R, keys, scores, weights);
  float* out = segment.panel.out;
  std::size_t column = 0;
  for (; column + 64 <= segment.head_dim; column += 64) {
    multiply_pairs<R, 4>(weights, segment_keys / 2, segment.values + column, segment.padded_dim, keys / 2, out + column,
                         segment.padded_dim);
  }
  if (column < segment.head_dim) {
    multiply_pairs<R, 2>(weights, segment_keys / 2, segment.values + column, segment.padded_dim, keys / 2, out + column,
                         segment.padded_dim);
  }
  add_panel(Avx512Floats{}, segment, row, R);
}

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
