// The exponential that softmax, SwiGLU and attention share, for every ISA's vectors.
// vector_exp(tag, x), where the tag is one of simd/vector_ops.hpp's types.
#pragma once

#include <lazyllm/simd/vector_ops.hpp>

#include <array>
#include <cstddef>
#include <cstring>

namespace lazyllm::inline v0::detail {

#define LAZYLLM_FLOATS PortableFloats<xsimd::default_arch>
#include <lazyllm/nn/kernels/vector_exp.inc>
#undef LAZYLLM_FLOATS

#if defined(__x86_64__)
LAZYLLM_TARGET_AVX2_BEGIN
#define LAZYLLM_FLOATS Avx2Floats
#include <lazyllm/nn/kernels/vector_exp.inc>
#undef LAZYLLM_FLOATS
LAZYLLM_TARGET_END

LAZYLLM_TARGET_AVX512VNNI_BEGIN
#define LAZYLLM_FLOATS Avx512Floats
#include <lazyllm/nn/kernels/vector_exp.inc>
#undef LAZYLLM_FLOATS
LAZYLLM_TARGET_END
#endif

}  // namespace lazyllm::inline v0::detail
