// Scores of keys stored as Int8: dots of four unsigned and four signed bytes (AVX-512-VNNI), codes of keys, + 128,
// times codes of queries, made here with a scale a row. Their integer sums are exact: below 2^31 for head sizes up to
// 65,536. With values of floats, attention on them.
#pragma once

#include <lazyllm/core/row_element.hpp>
#include <lazyllm/nn/kernels/attention.hpp>
#include <lazyllm/nn/kernels/attention_code_operands.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)

LAZYLLM_TARGET_AVX512VNNI_BEGIN
namespace lazyllm::inline v0::detail {

/// The four bytes at p, sixteen times.
inline __m512i broadcast_word(const void* p) {
  std::int32_t word;
  std::memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}

/// Sums of products of codes of R rows from `row` on and the segment's keys from `first` to first + key_tile, sixteen
/// a vector.
template <std::size_t R, std::size_t C = key_tile / 16>
[[gnu::always_inline]] inline void multiply_codes(const AttentionSegment& segment, std::size_t row, std::size_t first,
                                                  CodeSums (&sums)[R][C]) {
  const std::size_t words = (segment.head_dim + 3) / 4;
  const auto* const queries = reinterpret_cast<const std::byte*>(segment.queries) + row * segment.padded_dim;
  const auto* const keys = reinterpret_cast<const std::byte*>(segment.keys) + first * words * 4;
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    LAZYLLM_UNROLL
    for (std::size_t c = 0; c < C; ++c) sums[r][c] = (CodeSums)_mm512_set1_epi32(segment.scales.starts[row + r]);
  }
  std::size_t w = 0;
  do {
    __m512i columns[C];
    LAZYLLM_UNROLL
    for (std::size_t c = 0; c < C; ++c) columns[c] = _mm512_loadu_si512(keys + (w * key_tile + 16 * c) * 4);
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      const __m512i query = broadcast_word(queries + r * segment.padded_dim + 4 * w);
      LAZYLLM_UNROLL
      for (std::size_t c = 0; c < C; ++c) {
        sums[r][c] = (CodeSums)_mm512_dpbusd_epi32((__m512i)sums[r][c], columns[c], query);
      }
    }
  } while (++w < words);
}

/// The same of key_group keys, whose stored rows these are; head_dim is a multiple of 64.
template <std::size_t R>
[[gnu::always_inline]] inline void multiply_stored_codes(const AttentionSegment& segment, std::size_t row,
                                                         const Int8* const* rows, CodeSums (&sums)[R]) {
  const auto* const queries = reinterpret_cast<const std::byte*>(segment.queries) + row * segment.padded_dim;
  const __m512 signs = _mm512_castsi512_ps(_mm512_set1_epi8(-128));
  const float* codes[key_group];
  for (std::size_t j = 0; j < key_group; ++j) codes[j] = reinterpret_cast<const float*>(row_codes(rows[j]));
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) sums[r] = (CodeSums)_mm512_set1_epi32(segment.scales.starts[row + r]);
  for (std::size_t w = 0; w < segment.head_dim / 4; w += 16) {
    __m512 columns[16];
    Avx512Floats::transpose(codes, w, columns);
    LAZYLLM_UNROLL
    for (std::size_t j = 0; j < 16; ++j) {
      const __m512i keys = _mm512_castps_si512(_mm512_xor_ps(columns[j], signs));
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        const __m512i query = broadcast_word(queries + r * segment.padded_dim + 4 * (w + j));
        sums[r] = (CodeSums)_mm512_dpbusd_epi32((__m512i)sums[r], keys, query);
      }
    }
  }
}

/// Sixteen sums of products of codes as floats, times the keys' scales.
inline __m512 scaled_sums(CodeSums sums, const float* key_scales) {
  return _mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)sums), _mm512_loadu_ps(key_scales));
}

/// Products of codes [R, segment_keys] of R rows from `row` on, times the keys' scales; times the queries' they are the
/// raw scores. Of the segment's keys from `first` to first + key_tile.
template <std::size_t R>
void score_tile(VnniFloats, const AttentionSegment& segment, std::size_t row, std::size_t first, float* products) {
  CodeSums sums[R][key_tile / 16];
  multiply_codes(segment, row, first, sums);
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    LAZYLLM_UNROLL
    for (std::size_t k = 0; k < key_tile; k += 16) {
      _mm512_storeu_ps(products + r * segment_keys + first + k,
                       scaled_sums(sums[r][k / 16], segment.scales.keys + first + k));
    }
  }
}

/// Raw scores [R, segment_keys] of R rows from `row` on, of the segment's first `keys` keys, a multiple of key_tile.
template <std::size_t R>
void score_panel(VnniFloats tag, const AttentionSegment& segment, std::size_t row, std::size_t keys, float* scores) {
  for (std::size_t first = 0; first < keys; first += key_tile) score_tile<R>(tag, segment, row, first, scores);
  for (std::size_t r = 0; r < R; ++r) {
    const __m512 factor = _mm512_set1_ps(segment.scales.queries[row + r]);
    float* const own = scores + r * segment_keys;
    for (std::size_t k = 0; k < keys; k += 16) _mm512_store_ps(own + k, _mm512_mul_ps(_mm512_load_ps(own + k), factor));
  }
}

/// R rows from `row` on against one segment, for keys of codes and values of floats.
template <std::size_t R>
void attend_panel(CodeKeyFloats tag, const AttentionSegment& segment, std::size_t row) {
  alignas(64) float scores[R * segment_keys];
  score_panel<R>(tag, segment, row, whole_tiles(segment.counts[row + R - 1]), scores);
  attend_scored<R>(tag, segment, row, scores);
}

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
