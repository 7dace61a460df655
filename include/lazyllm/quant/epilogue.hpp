// What becomes of a matmul's sums: they replace the output, are added to it, or go through a function of the caller's.
// An epilogue sees blocks of finished sums, still in the cache of the thread that made them.
#pragma once

#include <lazyllm/core/matrix_view.hpp>

#include <algorithm>
#include <cstddef>

namespace lazyllm::inline v0 {

/// p(row, column, sums, out): `sums` [rows, columns] are finished, `out` is the same part of the output, which begins
/// at (row, column). Called once per sum, from the executor's threads; the shape of the parts is not fixed.
template <class P>
concept MatmulEpilogue = requires(const P& p, std::size_t row, std::size_t column, ConstRows sums, Rows out) {
  p(row, column, sums, out);
};

/// Replaces the output.
struct Store {
  void operator()(std::size_t, std::size_t, ConstRows sums, Rows out) const {
    for (std::size_t r = 0; r < sums.rows(); ++r) std::copy_n(sums.row(r).data(), sums.cols(), out.row(r).data());
  }
};

/// Adds to the output: a residual connection without a pass of its own.
struct AddTo {
  void operator()(std::size_t, std::size_t, ConstRows sums, Rows out) const {
    for (std::size_t r = 0; r < sums.rows(); ++r) {
      const float* from = sums.row(r).data();
      float* to = out.row(r).data();
      for (std::size_t c = 0; c < sums.cols(); ++c) to[c] += from[c];
    }
  }
};
static_assert(MatmulEpilogue<Store> && MatmulEpilogue<AddTo>);

}  // namespace lazyllm::inline v0
