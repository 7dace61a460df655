// Matmul tiles for AVX2 with VNNI.
#pragma once

#include <lazyllm/quant/kernels/avx2.hpp>

#if defined(__x86_64__)

namespace lazyllm::inline v0::detail {

template <class Panel>
struct TileKernel<Isa::avxvnni, Panel> : TileKernel<Isa::avx2, Panel> {};

}  // namespace lazyllm::inline v0::detail

#endif
