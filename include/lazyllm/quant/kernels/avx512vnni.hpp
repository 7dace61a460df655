// Matmul tiles for avx512vnni.
#pragma once

#include <lazyllm/quant/kernels/portable.hpp>
#include <lazyllm/quant/kernels/tile.hpp>

namespace lazyllm::inline v0::detail {

template <class Panel>
struct TileKernel<Isa::avx512vnni, Panel> : TileKernel<Isa::portable, Panel> {};

}  // namespace lazyllm::inline v0::detail
