// Rows of activations as bfloat16, rounded to nearest even: the operand of tile-register matmuls (AMX).
// [rows, cols], a row starting at a cache line; behind the last row there is room that a tile of 32 rows may read.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/simd/kernels/to_bfloat16.hpp>

#include <cstddef>
#include <cstdint>

namespace lazyllm::inline v0 {

/// The storage is kept between uses: once grown, no allocation.
class BFloat16Rows {
 public:
  static constexpr std::size_t tile_rows = 32;

  /// Room for [rows, cols], contents undefined. cols is a multiple of 32.
  void resize(std::size_t rows, std::size_t cols) {
    LAZYLLM_EXPECTS(cols % 32 == 0);
    rows_ = rows;
    cols_ = cols;
    stride_ = (cols / 32 | 1) * 32;  // an odd number of cache lines: rows fall into different sets of the L1 cache
    values_.resize_discard((rows + tile_rows - 1) * stride_);
  }

  [[nodiscard]] std::size_t rows() const { return rows_; }
  [[nodiscard]] std::size_t cols() const { return cols_; }
  /// Elements from one row to the next.
  [[nodiscard]] std::size_t stride() const { return stride_; }
  [[nodiscard]] const std::uint16_t* row(std::size_t r) const { return values_.data() + r * stride_; }

  /// Converts `count` rows of x, from row `first`, into the same rows of this. Safe for disjoint rows on several
  /// threads. Precondition: resize(x.rows(), x.cols()), supports(Isa::amx).
  void convert(ConstRows x, std::size_t first, std::size_t count) {
    LAZYLLM_EXPECTS(x.rows() == rows_ && x.cols() == cols_ && first + count <= rows_);
    for (std::size_t r = first; r < first + count; ++r) {
      detail::to_bfloat16(x.row(r).data(), values_.data() + r * stride_, cols_);
    }
  }

 private:
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  std::size_t stride_ = 0;
  AlignedBuffer<std::uint16_t> values_;
};

}  // namespace lazyllm::inline v0
