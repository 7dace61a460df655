// The input rows of one or more matmuls: floats, and their 8-bit codes made when the first kernel asks for them.
#pragma once

#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/simd/quantized_rows.hpp>

#include <cstddef>

namespace lazyllm::inline v0 {

/// Keep one per layer input that several matmuls share (q, k, v): it is quantised once. The storage is reused by the
/// next assign: no allocation once it has grown.
class Activations {
 public:
  Activations() = default;
  explicit Activations(ConstRows x) : floats_(x) {}

  /// Makes room for the codes of `rows` rows of up to `cols` columns: quantized() then allocates nothing for them.
  void reserve(std::size_t rows, std::size_t cols) {
    constexpr std::size_t block = QuantizedRows::block_size;
    quantized_.resize(rows, (cols + block - 1) / block * block);
    quantized_valid_ = false;
  }

  /// Remembers the view, not the values, and drops the old codes. The floats must stay as they are while in use.
  void assign(ConstRows x) {
    floats_ = x;
    quantized_valid_ = false;
  }

  [[nodiscard]] ConstRows floats() const { return floats_; }
  [[nodiscard]] std::size_t rows() const { return floats_.rows(); }
  [[nodiscard]] std::size_t cols() const { return floats_.cols(); }

  /// The rows as codes; cols() is a multiple of 32.
  template <Executor E>
  [[nodiscard]] const QuantizedRows& quantized(E& executor) {
    if (!quantized_valid_) {
      quantized_.resize(floats_.rows(), floats_.cols());
      if (floats_.rows() * floats_.cols() <= serial_limit) {
        quantized_.quantize(floats_, 0, floats_.rows());
      } else {
        executor.parallel_for(floats_.rows(), [this](std::size_t begin, std::size_t end) {
          quantized_.quantize(floats_, begin, end - begin);
        });
      }
      quantized_valid_ = true;
    }
    return quantized_;
  }

 private:
  static constexpr std::size_t serial_limit = std::size_t{1} << 15;  // about as long as waking another thread

  ConstRows floats_;
  QuantizedRows quantized_;
  bool quantized_valid_ = false;
};

}  // namespace lazyllm::inline v0
