// Row kernels of the elementwise operations (norm, rotations, SwiGLU, softmax), one overload an ISA.
// Each takes one row; the order of its float operations depends on the row's length only.
#pragma once

#include <lazyllm/nn/kernels/vector_exp.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
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

/// The sign of a lane's own number in a sum or difference with lane i ^ Distance.
template <std::size_t Distance>
alignas(64) inline constexpr auto butterfly_signs = [] {
  std::array<float, 16> signs{};
  for (std::size_t i = 0; i < signs.size(); ++i) signs[i] = (i & Distance) == 0 ? 1.0f : -1.0f;
  return signs;
}();

/// What numbers are multiplied by before they are mixed: a period of it, signs over sqrt(block).
using HadamardFactors = std::array<float, 64>;

/// Fixed signs, the same for each block and, of longer ones, each 64 numbers: numbers that are alike do not add up to
/// one large one.
[[nodiscard]] inline HadamardFactors hadamard_factors(std::size_t block) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(block));
  HadamardFactors factors;
  std::uint32_t bits = 2;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    bits = bits * 1664525u + 1013904223u;  // a linear congruential generator
    factors[i] = i < block ? (bits >> 31 == 0 ? scale : -scale) : factors[i - block];
  }
  return factors;
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
