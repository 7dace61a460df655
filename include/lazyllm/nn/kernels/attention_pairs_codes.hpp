// Tiled attention with keys in bfloat16 and values of 8 bits: scores are the dots of attention_pairs.hpp, weights and
// the sum of values those of attention_codes.hpp.
#pragma once

#include <lazyllm/nn/kernels/attention_codes.hpp>
#include <lazyllm/nn/kernels/attention_pairs.hpp>

#include <algorithm>
#include <cstddef>

#if defined(__x86_64__)

LAZYLLM_TARGET_AVX512BF16_BEGIN
namespace lazyllm::inline v0::detail {

/// R rows from `row` on against one segment.
template <std::size_t R>
void attend_panel(PairCodeFloats, const AttentionSegment& segment, std::size_t row) {
  alignas(64) float scores[R * segment_keys];
  const std::size_t keys = whole_tiles(segment.counts[row + R - 1]);
  score_panel<R>(Bfloat16Floats{}, segment, row, keys, scores);
  sum_code_values<R>(segment, row, keys, scores);
}

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
