// Row kernels of the elementwise operations (norm, rotation, SwiGLU, softmax), one overload an ISA.
// Each takes one row; the order of its float operations depends on the row's length only.
#pragma once

#include <lazyllm/nn/kernels/vector_exp.hpp>

#include <cmath>
#include <cstddef>
#include <limits>

namespace lazyllm::inline v0::detail {

/// 1 / sqrt(mean(x^2) + epsilon) from the float sum of squares, or from a double one where that over- or underflowed.
inline float rms_scale(const float* x, std::size_t n, float sum, float epsilon) {
  double squares = static_cast<double>(sum);
  if (!(sum > 1e-30f && sum < 1e38f)) {
    squares = 0.0;
    for (std::size_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  return static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(epsilon)));
}

#define LAZYLLM_FLOATS PortableFloats<xsimd::default_arch>
#include <lazyllm/nn/kernels/elementwise.inc>
#undef LAZYLLM_FLOATS

#if defined(__x86_64__)
LAZYLLM_TARGET_AVX2_BEGIN
#define LAZYLLM_FLOATS Avx2Floats
#include <lazyllm/nn/kernels/elementwise.inc>
#undef LAZYLLM_FLOATS
LAZYLLM_TARGET_END

LAZYLLM_TARGET_AVX512VNNI_BEGIN
#define LAZYLLM_FLOATS Avx512Floats
#include <lazyllm/nn/kernels/elementwise.inc>
#undef LAZYLLM_FLOATS
LAZYLLM_TARGET_END
#endif

}  // namespace lazyllm::inline v0::detail
