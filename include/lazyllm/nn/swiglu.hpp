// The gate of a Llama feed-forward block.
// Rows [rows, ffn_dim] of gate and up, one output of the same shape.
// Source: Shazeer, arXiv 2002.05202 (SwiGLU with beta = 1).
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/nn/kernels/elementwise.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/simd/dispatch.hpp>

#include <cstddef>

namespace lazyllm::inline v0 {

/// out[r, i] = silu(gate[r, i]) * up[r, i], silu(x) = x / (1 + e^-x); out may be gate or up. No allocation.
/// Relative error about 5e-7 where the result is a normal number; a gate below -88.72 gives 0.
template <Executor E>
void swiglu(ConstRows gate, ConstRows up, Rows out, E& executor, Isa isa = active_isa()) {
  LAZYLLM_EXPECTS(up.rows() == gate.rows() && up.cols() == gate.cols());
  LAZYLLM_EXPECTS(out.rows() == gate.rows() && out.cols() == gate.cols());
  dispatch_float(isa, [&](auto tag) {
    detail::for_rows(gate.rows(), gate.cols(), executor, [&](std::size_t begin, std::size_t end) {
      for (std::size_t r = begin; r < end; ++r) {
        detail::swiglu_row(detail::Floats<decltype(tag)::value>{}, gate.row(r).data(), up.row(r).data(),
                           out.row(r).data(), gate.cols());
      }
    });
  });
}

}  // namespace lazyllm::inline v0
