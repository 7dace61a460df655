// The input rows of one or more matmuls: floats, and what kernels read in their place, made when the first kernel asks
// for it.
#pragma once

#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/simd/bfloat16_rows.hpp>
#include <lazyllm/simd/isa.hpp>
#include <lazyllm/simd/quantized_rows.hpp>

#include <concepts>
#include <cstddef>

namespace lazyllm::inline v0 {

/// Keep one per layer input that several matmuls share (q, k, v): it is converted once. The storage is reused by the
/// next assign: no allocation once it has grown.
class Activations {
 public:
  Activations() = default;
  explicit Activations(ConstRows x) : floats_(x) {}

  /// Makes room for `rows` rows of up to `cols` columns as the kernels of `isa` read them: as() then allocates nothing.
  void reserve(std::size_t rows, std::size_t cols, Isa isa = active_isa()) {
    const std::size_t padded_cols = (cols + 31) / 32 * 32;
    if (isa == Isa::amx) {
      bfloat16_.resize(rows, padded_cols);
    } else {
      quantized_.resize(rows, padded_cols);
    }
    assign(floats_);
  }

  /// Remembers the view, not the values, and drops what was made of the old ones. The floats must stay as they are
  /// while in use.
  void assign(ConstRows x) {
    floats_ = x;
    quantized_valid_ = bfloat16_valid_ = false;
  }

  [[nodiscard]] ConstRows floats() const { return floats_; }
  [[nodiscard]] std::size_t rows() const { return floats_.rows(); }
  [[nodiscard]] std::size_t cols() const { return floats_.cols(); }

  /// The rows as kernels read them: ConstRows (as they are), QuantizedRows or BFloat16Rows, converted at the first
  /// call; for the latter two cols() is a multiple of 32.
  template <class Operand, Executor E>
  [[nodiscard]] const Operand& as(E& executor) {
    if constexpr (std::same_as<Operand, ConstRows>) {
      return floats_;
    } else if constexpr (std::same_as<Operand, QuantizedRows>) {
      convert(quantized_, quantized_valid_, executor,
              [this](std::size_t first, std::size_t count) { quantized_.quantize(floats_, first, count); });
      return quantized_;
    } else {
      static_assert(std::same_as<Operand, BFloat16Rows>);
      convert(bfloat16_, bfloat16_valid_, executor,
              [this](std::size_t first, std::size_t count) { bfloat16_.convert(floats_, first, count); });
      return bfloat16_;
    }
  }

 private:
  template <class Operand, Executor E, class Convert>
  void convert(Operand& operand, bool& valid, E& executor, const Convert& convert_rows) {
    if (valid) return;
    operand.resize(rows(), cols());
    detail::for_rows(rows(), cols(), executor,
                     [&](std::size_t begin, std::size_t end) { convert_rows(begin, end - begin); });
    valid = true;
  }

  ConstRows floats_;
  QuantizedRows quantized_;
  BFloat16Rows bfloat16_;
  bool quantized_valid_ = false;
  bool bfloat16_valid_ = false;
};

}  // namespace lazyllm::inline v0
