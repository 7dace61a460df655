// One row of floats to bfloat16, rounded to nearest even; denormal numbers become zeros.
#pragma once

#include <lazyllm/simd/target_region.hpp>

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)

LAZYLLM_TARGET_AMX_BEGIN
namespace lazyllm::inline v0::detail {

/// n is a multiple of 32.
inline void to_bfloat16(const float* x, std::uint16_t* out, std::size_t n) {
  for (std::size_t i = 0; i < n; i += 32) {
    const __m512bh pair = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i));
    static_assert(sizeof pair == 64);
    __builtin_memcpy(out + i, &pair, sizeof pair);
  }
}

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#else

namespace lazyllm::inline v0::detail {

/// Only AMX reads bfloat16: never called on other architectures.
inline void to_bfloat16(const float*, std::uint16_t*, std::size_t) {}

}  // namespace lazyllm::inline v0::detail

#endif
