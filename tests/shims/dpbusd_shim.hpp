// _mm256_dpbusd_avx_epi32 in plain C++: sum[i] += the four products of unsigned bytes of u and signed bytes of s in
// lane i, without saturation. Source: Intel Intrinsics Guide.
#pragma once

#include <lazyllm/simd/target_region.hpp>

#include <cstdint>
#include <cstring>

LAZYLLM_TARGET_AVX2_BEGIN
namespace lazyllm::inline v0::detail {

// Not inlined: the callers' target would let the compiler use the very instruction.
[[gnu::noinline]] inline __m256i dpbusd_shim(__m256i sum, __m256i u, __m256i s) {
  std::int32_t sums[8];
  std::uint8_t left[32];
  std::int8_t right[32];
  std::memcpy(sums, &sum, 32);
  std::memcpy(left, &u, 32);
  std::memcpy(right, &s, 32);
  for (int i = 0; i < 32; ++i) sums[i / 4] += left[i] * right[i];
  std::memcpy(&sum, sums, 32);
  return sum;
}

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END
