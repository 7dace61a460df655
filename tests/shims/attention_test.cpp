// The attention tests on AMX, for CPUs without it: the tile registers in plain C++.
#if defined(__x86_64__)

#include <lazyllm/simd/amx_tiles.hpp>
#include <lazyllm/simd/target_region.hpp>

#include "shims/amx_tiles_shim.hpp"

#define AmxTiles AmxTilesShim
#define LAZYLLM_TEST_SHIMS
#include "nn/attention_test.cpp"

#endif
