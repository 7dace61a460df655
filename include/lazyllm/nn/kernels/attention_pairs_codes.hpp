// Tiled attention with keys in bfloat16 and values of 8 bits: scores are the dots of attention_pairs.hpp, weights and
// the sum of values those of attention_codes.hpp.
#pragma once

#include <lazyllm/nn/kernels/attention_codes.hpp>
#include <lazyllm/nn/kernels/attention_pairs.hpp>

#if defined(__x86_64__)

LAZYLLM_TARGET_AVX512BF16_BEGIN
namespace lazyllm::inline v0::detail {

inline void attend(PairCodeFloats tag, const AttentionSegment& segment) { attend_with_codes(tag, segment); }

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
