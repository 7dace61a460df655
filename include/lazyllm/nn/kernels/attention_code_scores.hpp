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

/// Adds the products of four codes of 16 C keys and of a query.
template <std::size_t C>
[[gnu::always_inline]] inline void add_products(CodeSums (&sums)[C], const __m512i (&keys)[C], const std::byte* query) {
  const __m512i codes = broadcast_word(query);
  LAZYLLM_UNROLL
  for (std::size_t c = 0; c < C; ++c) sums[c] = (CodeSums)_mm512_dpbusd_epi32((__m512i)sums[c], keys[c], codes);
}

/// Calls use(r, sums) with the sums of products of codes of row + r, for R rows, and the segment's keys from `first` to
/// first + key_tile, sixteen a vector: between the last dots of one row and those of the next, as a CPU that sees only
/// dots for a while, and then only what is made of their sums, uses its ports less.
template <std::size_t R, class Use>
[[gnu::always_inline]] inline void multiply_codes(const AttentionSegment& segment, std::size_t row, std::size_t first,
                                                  const Use& use) {
  constexpr std::size_t vectors = key_tile / 16;
  const std::size_t words = (segment.head_dim + 3) / 4;
  const auto* queries = reinterpret_cast<const std::byte*>(segment.queries) + row * segment.padded_dim;
  const auto* keys = reinterpret_cast<const std::byte*>(segment.keys) + first * words * 4;
  CodeSums sums[R][vectors];
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    LAZYLLM_UNROLL
    for (CodeSums& sum : sums[r]) sum = (CodeSums)_mm512_set1_epi32(segment.scales.starts[row + r]);
  }
  __m512i columns[vectors];
  const auto next_columns = [&] {
    LAZYLLM_UNROLL
    for (std::size_t c = 0; c < vectors; ++c) columns[c] = _mm512_loadu_si512(keys + 64 * c);
    keys += key_tile * 4;
  };
  for (std::size_t w = 1; w < words; ++w) {
    next_columns();
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) add_products(sums[r], columns, queries + r * segment.padded_dim);
    queries += 4;
  }
  next_columns();
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) {
    add_products(sums[r], columns, queries + r * segment.padded_dim);
    use(r, sums[r]);
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
  multiply_codes<R>(segment, row, first, [&](std::size_t r, const CodeSums(&sums)[key_tile / 16]) {
    LAZYLLM_UNROLL
    for (std::size_t k = 0; k < key_tile; k += 16) {
      _mm512_storeu_ps(products + r * segment_keys + first + k,
                       scaled_sums(sums[k / 16], segment.scales.keys + first + k));
    }
  });
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
