// A rotation that spreads each head's numbers over the head, so that none of them is much larger than the others.
// Source: Ashkboos et al., arXiv 2404.00456 (QuaRot).
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/nn/kernels/elementwise.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/simd/dispatch.hpp>

#include <cstddef>

namespace lazyllm::inline v0 {

/// x [rows, heads * head_dim], in place: each head times fixed signs and an orthonormal Walsh-Hadamard matrix; if
/// head_dim is no power of two, each block of the largest power of two that divides it. Queries and keys that are both
/// rotated have the dots of those that are not, and lose less when they are stored as 8-bit codes with a scale a row.
/// The same bits on every ISA, whatever the other rows and the number of threads. O(log head_dim) operations a number,
/// no allocation.
template <Executor E>
void hadamard_rotate(std::size_t head_dim, Rows x, E& executor, Isa isa = active_isa()) {
  LAZYLLM_EXPECTS(head_dim > 0 && x.cols() % head_dim == 0);
  const std::size_t block = head_dim & (~head_dim + 1);
  const detail::HadamardFactors factors = detail::hadamard_factors(block);
  dispatch_float(isa, [&](auto tag) {
    detail::for_rows(x.rows(), x.cols(), executor, [&](std::size_t begin, std::size_t end) {
      for (std::size_t r = begin; r < end; ++r) {
        detail::hadamard_row(detail::Floats<decltype(tag)::value>{}, factors, x.row(r).data(), block, x.cols());
      }
    });
  });
}

}  // namespace lazyllm::inline v0
