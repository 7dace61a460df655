// A weight matrix [out_features, in_features] repacked once, at load, for the matmul kernels.
// ceil(out_features / 16) panels of 16 output columns (see panel.hpp); columns beyond out_features are zeros.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/large_pages.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/quant/format.hpp>
#include <lazyllm/quant/panel.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <limits>
#include <span>
#include <string>

namespace lazyllm::inline v0 {

/// Weights of one format, as dense as in the file. Immutable after pack: may be read from many threads.
template <PackableFormat F>
class PackedMatrix {
 public:
  using Format = F;
  using Panel = typename F::Panel;

  PackedMatrix() = default;

  /// `stored`: out_features rows of in_features / block_size blocks, at any alignment; not referenced afterwards.
  /// Throws Error when in_features is no multiple of the block size or `stored` has another size.
  template <Executor E>
  [[nodiscard]] static PackedMatrix pack(std::span<const std::byte> stored, std::size_t out_features,
                                         std::size_t in_features, E& executor) {
    check_size(stored.size(), out_features, in_features);
    PackedMatrix matrix(out_features, in_features);
    executor.parallel_for(matrix.panel_count(), [&](std::size_t begin, std::size_t end) {
      const std::size_t row_bytes = in_features / F::block_size * sizeof(typename F::Block);
      for (std::size_t p = begin; p < end; ++p) {
        matrix.fill_panel(p, [&](std::size_t n) { return stored.data() + n * row_bytes; });
      }
    });
    return matrix;
  }

  /// Quantises: `read_row(n, floats)` writes the weights of output n, [in_features], and is called once an output, from
  /// the executor's threads. Beyond the result, a thread holds one row at a time. Throws Error as pack does.
  template <Executor E, std::invocable<std::size_t, std::span<float>> ReadRow>
  [[nodiscard]] static PackedMatrix quantize(std::size_t out_features, std::size_t in_features, const ReadRow& read_row,
                                             E& executor) {
    check_shape(out_features, in_features);
    PackedMatrix matrix(out_features, in_features);
    executor.parallel_for(matrix.panel_count(), [&](std::size_t begin, std::size_t end) {
      AlignedBuffer<float> values(in_features);
      AlignedBuffer<typename F::Block> blocks(in_features / F::block_size);
      for (std::size_t p = begin; p < end; ++p) {
        matrix.fill_panel(p, [&](std::size_t n) {
          read_row(n, values.span());
          F::quantize(values.span(), blocks.span());
          return reinterpret_cast<const std::byte*>(blocks.data());
        });
      }
    });
    return matrix;
  }

  [[nodiscard]] std::size_t out_features() const { return out_features_; }
  [[nodiscard]] std::size_t in_features() const { return in_features_; }
  /// Bytes of memory that the weights take.
  [[nodiscard]] std::size_t size_bytes() const { return data_.size(); }

  /// The weights of output n as floats [in_features], the same bits as F::dequantize of the stored row.
  void dequantize_row(std::size_t n, std::span<float> out) const {
    LAZYLLM_EXPECTS(n < out_features_ && out.size() == in_features_);
    const std::byte* source = panel(n / panel_columns);
    for (std::size_t i = 0; i < in_features_ / F::block_size; ++i) {
      const typename F::Block block = F::from_panel(Panel::load(source, i, n % panel_columns));
      F::dequantize({&block, 1}, out.subspan(i * F::block_size, F::block_size));
    }
  }

  [[nodiscard]] std::size_t panel_count() const { return (out_features_ + panel_columns - 1) / panel_columns; }
  [[nodiscard]] std::size_t panel_bytes() const { return Panel::size_bytes(block_count_); }
  [[nodiscard]] const std::byte* panel(std::size_t p) const { return data_.data() + p * panel_bytes(); }
  /// Blocks along in_features as kernels read them: of Panel::block_size weights.
  [[nodiscard]] std::size_t block_count() const { return block_count_; }

 private:
  PackedMatrix(std::size_t out_features, std::size_t in_features)
      : out_features_(out_features),
        in_features_(in_features),
        block_count_(in_features / Panel::block_size),
        data_(panel_count() * panel_bytes()) {}

  static std::string described(std::size_t out_features, std::size_t in_features) {
    return std::string(F::name) + " matrix [" + std::to_string(out_features) + ", " + std::to_string(in_features) + "]";
  }
  static void check_shape(std::size_t out_features, std::size_t in_features) {
    if (in_features % F::block_size != 0) {
      throw Error(ErrorCode::malformed,
                  described(out_features, in_features) + ": rows are no multiple of " + std::to_string(F::block_size));
    }
    const std::size_t row_bytes = in_features / F::block_size * sizeof(typename F::Block);
    // The panels may take up to 16 rows, 64 bytes a row and 1 / 36 more than the file.
    const std::size_t limit = std::numeric_limits<std::size_t>::max() / 4;
    if (in_features / F::block_size > limit / (sizeof(typename F::Block) * panel_columns) ||
        out_features > limit / (row_bytes + 64) - panel_columns) {
      throw Error(ErrorCode::malformed, described(out_features, in_features) + ": more than memory holds");
    }
  }
  static void check_size(std::size_t size, std::size_t out_features, std::size_t in_features) {
    check_shape(out_features, in_features);
    const std::size_t expected = out_features * (in_features / F::block_size) * sizeof(typename F::Block);
    if (size != expected) {
      throw Error(ErrorCode::malformed, described(out_features, in_features) + ": " + std::to_string(size) +
                                            " bytes stored, expected " + std::to_string(expected));
    }
  }

  /// `row(n)`: the stored blocks of output n, at any alignment.
  template <class Row>
  void fill_panel(std::size_t p, const Row& row) {
    std::byte* target = data_.data() + p * panel_bytes();
    std::memset(target, 0, panel_bytes());
    const std::size_t first = p * panel_columns;
    const std::size_t columns = std::min(panel_columns, out_features_ - first);
    for (std::size_t column = 0; column < columns; ++column) {
      const std::byte* stored = row(first + column);
      for (std::size_t i = 0; i < in_features_ / F::block_size; ++i) {
        const auto block = detail::load_as<typename F::Block>(stored + i * sizeof(typename F::Block));
        Panel::store(target, i, column, F::to_panel(block));
      }
    }
  }

  std::size_t out_features_ = 0;
  std::size_t in_features_ = 0;
  std::size_t block_count_ = 0;
  LargePageBuffer data_;
};

}  // namespace lazyllm::inline v0
