// Root-mean-square normalisation of rows, the norm of a Llama layer.
// Rows [rows, dim] in and out, one weight a column.
// Source: Zhang and Sennrich, arXiv 1910.07467.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/nn/kernels/elementwise.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/simd/dispatch.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

namespace lazyllm::inline v0 {

/// out[r, i] = x[r, i] * weight[i] / sqrt(mean(x[r]^2) + epsilon); out may be x. A row's bits depend on that row alone.
/// No allocation. Sums that leave float's range are taken in double.
template <Executor E>
void rms_norm(ConstRows x, std::span<const float> weight, float epsilon, Rows out, E& executor,
              Isa isa = active_isa()) {
  LAZYLLM_EXPECTS(weight.size() == x.cols() && out.cols() == x.cols() && out.rows() == x.rows());
  if (x.empty()) return;
  dispatch_float(isa, [&](auto tag) {
    constexpr detail::Floats<decltype(tag)::value> vectors;
    detail::for_rows(x.rows(), x.cols(), executor, [&](std::size_t begin, std::size_t end) {
      // The scales of a few rows first: to wait for each would keep the CPU from looking ahead.
      std::array<float, 4> scales;
      for (std::size_t first = begin; first < end; first += scales.size()) {
        const std::size_t rows = std::min(scales.size(), end - first);
        for (std::size_t r = 0; r < rows; ++r) {
          scales[r] = detail::rms_scale(vectors, x.row(first + r).data(), epsilon, x.cols());
        }
        for (std::size_t r = 0; r < rows; ++r) {
          detail::scale_row(vectors, x.row(first + r).data(), scales[r], weight.data(), out.row(first + r).data(),
                            x.cols());
        }
      }
    });
  });
}

}  // namespace lazyllm::inline v0
