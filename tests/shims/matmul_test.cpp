// The matmul tests on AVX-VNNI and AMX, for CPUs without them: scalar shims stand in for the one instruction that
// AVX-VNNI adds to AVX2, and for the tile registers that AMX adds to AVX-512-BF16. A program of its own, since these
// kernels are others than the library's of the same name.
#if defined(__x86_64__)

#include <lazyllm/simd/amx_tiles.hpp>
#include <lazyllm/simd/target_region.hpp>

#include "shims/amx_tiles_shim.hpp"
#include "shims/dpbusd_shim.hpp"

#define AmxTiles AmxTilesShim
#define _mm256_dpbusd_avx_epi32 dpbusd_shim
#define LAZYLLM_TEST_SHIMS
#include "quant/matmul_test.cpp"

#endif
