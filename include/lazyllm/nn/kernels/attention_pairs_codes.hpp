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

/// Raw scores [R, segment_keys] of R rows from `row` on. Of the segment's keys from `first` to first + key_tile.
template <std::size_t R>
void score_tile(PairCodeFloats, const AttentionSegment& segment, std::size_t row, std::size_t first, float* scores) {
  const std::size_t pairs = segment.head_dim / 2;
  multiply_pairs<R, 4>(segment.queries + row * pairs, pairs, segment.keys + first * pairs, key_tile, pairs,
                       scores + first, segment_keys);
}

inline void attend(PairCodeFloats tag, const AttentionSegment& segment) { attend_with_codes(tag, segment); }

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
