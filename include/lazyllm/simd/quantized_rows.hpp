// Rows of activations as 8-bit codes: per row and block of 32 one scale, value = scale * code, |code| <= 127.
// Codes int8 [rows, cols], a row starting at a cache line; BlockInfo [rows, cols / 32].
// The same bits on every ISA: rounding is to nearest even, the scale is (largest magnitude) / 127.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/simd/dispatch.hpp>
#include <lazyllm/simd/isa.hpp>
#include <lazyllm/simd/kernels/quantize_block.hpp>

#include <cstddef>
#include <cstdint>

namespace lazyllm::inline v0 {

/// 8-bit codes with what kernels need per block. The storage is kept between uses: once grown, no allocation.
class QuantizedRows {
 public:
  static constexpr std::size_t block_size = quantized_block_size;

  /// Room for [rows, cols] codes, contents undefined. cols is a multiple of 32.
  void resize(std::size_t rows, std::size_t cols) {
    LAZYLLM_EXPECTS(cols % block_size == 0);
    rows_ = rows;
    cols_ = cols;
    // An odd number of cache lines a row: rows of a tile then fall into different sets of the L1 cache.
    stride_ = ((cols + 63) / 64 | 1) * 64;
    codes_.resize_discard(rows * stride_);
    block_stride_ = ((block_count() + 3) / 4 | 1) * 4;
    blocks_.resize_discard(rows * block_stride_);
  }

  [[nodiscard]] std::size_t rows() const { return rows_; }
  [[nodiscard]] std::size_t cols() const { return cols_; }
  /// Blocks per row.
  [[nodiscard]] std::size_t block_count() const { return cols_ / block_size; }
  /// Bytes from one row of codes to the next.
  [[nodiscard]] std::size_t stride() const { return stride_; }
  [[nodiscard]] const std::int8_t* codes(std::size_t row) const { return codes_.data() + row * stride_; }
  [[nodiscard]] const QuantizedBlock* blocks(std::size_t row) const { return blocks_.data() + row * block_stride_; }
  /// Blocks from one row to the next.
  [[nodiscard]] std::size_t block_stride() const { return block_stride_; }

  /// Quantises `count` rows of x, from row `first`, into the same rows of this. Safe for disjoint rows on several
  /// threads. Precondition: resize(x.rows(), x.cols()), supports(isa).
  void quantize(ConstRows x, std::size_t first, std::size_t count, Isa isa = active_isa()) {
    LAZYLLM_EXPECTS(x.rows() == rows_ && x.cols() == cols_ && first + count <= rows_);
    dispatch_float(isa, [&](auto tag) {
      for (std::size_t r = first; r < first + count; ++r) {
        const float* values = x.row(r).data();
        std::int8_t* codes = codes_.data() + r * stride_;
        QuantizedBlock* blocks = blocks_.data() + r * block_stride_;
        detail::quantize_row(tag, values, codes, blocks, block_count());
      }
    });
  }

 private:
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  std::size_t stride_ = 0;
  std::size_t block_stride_ = 0;
  AlignedBuffer<std::int8_t> codes_;
  AlignedBuffer<QuantizedBlock> blocks_;
};

}  // namespace lazyllm::inline v0
