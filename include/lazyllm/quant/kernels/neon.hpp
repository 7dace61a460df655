// Matmul tiles for AArch64 with the dot product extension.
#pragma once

#include <lazyllm/quant/kernels/portable.hpp>

#if defined(__aarch64__)

namespace lazyllm::inline v0::detail {

template <class Panel>
struct TileKernel<Isa::neon, Panel> : TileKernel<Isa::portable, Panel> {};

}  // namespace lazyllm::inline v0::detail

#endif
