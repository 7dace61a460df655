// Rows of activations as 8-bit codes: per row and block of 32 one scale, value = scale * code, |code| <= 127.
// Groups of up to 12 rows, each [cols / 32 blocks][codes [rows of the group][32], then QuantizedBlock [rows of the
// group]]: what a matmul tile reads lies together, at distances that are constants of the kernel. The same bits on
// every ISA: rounding is to nearest even, the scale is (largest magnitude) / 127.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/simd/dispatch.hpp>
#include <lazyllm/simd/isa.hpp>
#include <lazyllm/simd/kernels/quantize_block.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace lazyllm::inline v0 {

/// Consecutive rows of one group at one block of columns.
class QuantizedTile {
 public:
  QuantizedTile(const std::byte* codes, const std::byte* blocks, std::size_t block_bytes)
      : codes_(codes), blocks_(blocks), block_bytes_(block_bytes) {}
  /// The 32 codes of row r.
  [[nodiscard]] const std::int8_t* codes(std::size_t r) const {
    return reinterpret_cast<const std::int8_t*>(codes_) + r * quantized_block_size;
  }
  [[nodiscard]] const QuantizedBlock& block(std::size_t r) const {
    return reinterpret_cast<const QuantizedBlock*>(blocks_)[r];
  }
  void next_block() {
    codes_ += block_bytes_;
    blocks_ += block_bytes_;
  }

 private:
  const std::byte* codes_;
  const std::byte* blocks_;
  std::size_t block_bytes_;
};

/// 8-bit codes with what kernels need per block. The storage is kept between uses: once grown, no allocation.
class QuantizedRows {
 public:
  static constexpr std::size_t block_size = quantized_block_size;
  /// Rows of a group; a tile must not reach over its end.
  static constexpr std::size_t group_rows = 12;

  /// Room for [rows, cols] codes, contents undefined. cols is a multiple of 32.
  void resize(std::size_t rows, std::size_t cols) {
    LAZYLLM_EXPECTS(cols % block_size == 0);
    rows_ = rows;
    cols_ = cols;
    // Few rows lie as close together as many. A kernel may read up to a power of two of rows: undefined, but there.
    stored_rows_ = std::min(std::bit_ceil(rows), group_rows);
    const std::size_t groups = (rows + group_rows - 1) / group_rows;
    bytes_.resize_discard(groups * block_count() * block_bytes());
  }

  [[nodiscard]] std::size_t rows() const { return rows_; }
  [[nodiscard]] std::size_t cols() const { return cols_; }
  /// Blocks per row.
  [[nodiscard]] std::size_t block_count() const { return cols_ / block_size; }

  /// Block `block` of the rows of a group from `first_row` on.
  [[nodiscard]] QuantizedTile tile(std::size_t first_row, std::size_t block = 0) const {
    LAZYLLM_EXPECTS(first_row < rows_ && block < block_count());
    return {bytes_.data() + codes_offset(first_row, block), bytes_.data() + blocks_offset(first_row, block),
            block_bytes()};
  }
  [[nodiscard]] const std::int8_t* codes(std::size_t row, std::size_t block) const { return tile(row, block).codes(0); }
  [[nodiscard]] const QuantizedBlock& block(std::size_t row, std::size_t block) const {
    return tile(row, block).block(0);
  }

  /// Quantises `count` rows of x, from row `first`, into the same rows of this. Safe for disjoint rows on several
  /// threads. Precondition: resize(x.rows(), x.cols()), supports(isa).
  void quantize(ConstRows x, std::size_t first, std::size_t count, Isa isa = active_isa()) {
    LAZYLLM_EXPECTS(x.rows() == rows_ && x.cols() == cols_ && first + count <= rows_);
    dispatch_float(isa, [&](auto tag) {
      for (std::size_t r = first; r < first + count; ++r) {
        const detail::QuantizedTarget target{bytes_.data() + codes_offset(r, 0), bytes_.data() + blocks_offset(r, 0),
                                             block_bytes()};
        detail::quantize_row(tag, x.row(r).data(), target, block_count());
      }
    });
  }

 private:
  /// Bytes from one block of a group to the next.
  [[nodiscard]] std::size_t block_bytes() const { return stored_rows_ * (block_size + sizeof(QuantizedBlock)); }
  /// Where the group of a row has its block.
  [[nodiscard]] std::size_t group_offset(std::size_t row, std::size_t block) const {
    return (row / group_rows * block_count() + block) * block_bytes();
  }
  [[nodiscard]] std::size_t codes_offset(std::size_t row, std::size_t block) const {
    return group_offset(row, block) + row % group_rows * block_size;
  }
  [[nodiscard]] std::size_t blocks_offset(std::size_t row, std::size_t block) const {
    return group_offset(row, block) + stored_rows_ * block_size + row % group_rows * sizeof(QuantizedBlock);
  }

  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  std::size_t stored_rows_ = 0;  // of each group
  AlignedBuffer<std::byte> bytes_;
};

}  // namespace lazyllm::inline v0
