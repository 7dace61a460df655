// Non-owning views: a row-major matrix with a row stride, and the attention scores [query_rows, heads, keys].
// A view is two words of data and its sizes; copying it copies no elements.
#pragma once

#include <lazyllm/core/contract.hpp>

#include <cstddef>
#include <span>
#include <type_traits>

namespace lazyllm::inline v0 {

/// Row-major view [rows, cols]; row r starts at data + r * stride, stride >= cols.
template <class T>
class MatrixView {
 public:
  constexpr MatrixView() = default;
  constexpr MatrixView(T* data, std::size_t rows, std::size_t cols) : MatrixView(data, rows, cols, cols) {}
  constexpr MatrixView(T* data, std::size_t rows, std::size_t cols, std::size_t stride)
      : data_(data), rows_(rows), cols_(cols), stride_(stride) {}

  /// A mutable view converts to a const one.
  constexpr operator MatrixView<const T>() const requires(!std::is_const_v<T>) {
    return {data_, rows_, cols_, stride_};
  }

  [[nodiscard]] constexpr T* data() const { return data_; }
  [[nodiscard]] constexpr std::size_t rows() const { return rows_; }
  [[nodiscard]] constexpr std::size_t cols() const { return cols_; }
  [[nodiscard]] constexpr std::size_t stride() const { return stride_; }
  [[nodiscard]] constexpr bool empty() const { return rows_ == 0 || cols_ == 0; }

  [[nodiscard]] constexpr std::span<T> row(std::size_t r) const {
    LAZYLLM_EXPECTS(r < rows_);
    return {data_ + r * stride_, cols_};
  }
  /// Rows first .. first + count - 1.
  [[nodiscard]] constexpr MatrixView middle_rows(std::size_t first, std::size_t count) const {
    LAZYLLM_EXPECTS(first + count <= rows_);
    return {data_ + first * stride_, count, cols_, stride_};
  }
  /// Columns first .. first + count - 1 of every row.
  [[nodiscard]] constexpr MatrixView middle_cols(std::size_t first, std::size_t count) const {
    LAZYLLM_EXPECTS(first + count <= cols_);
    return {data_ + first, rows_, count, stride_};
  }

 private:
  T* data_ = nullptr;
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  std::size_t stride_ = 0;
};

using Rows = MatrixView<float>;
using ConstRows = MatrixView<const float>;

/// Attention probabilities of the last rows of a step: [query_rows, heads, keys], each row of keys sums to 1; rows lie
/// key_stride >= keys apart (== keys unless the view is of some keys only).
template <class T>
class BasicScoreView {
 public:
  constexpr BasicScoreView() = default;
  constexpr BasicScoreView(T* data, std::size_t query_rows, std::size_t heads, std::size_t keys)
      : BasicScoreView(data, query_rows, heads, keys, keys) {}
  constexpr BasicScoreView(T* data, std::size_t query_rows, std::size_t heads, std::size_t keys, std::size_t key_stride)
      : data_(data), query_rows_(query_rows), heads_(heads), keys_(keys), key_stride_(key_stride) {}

  constexpr operator BasicScoreView<const T>() const requires(!std::is_const_v<T>) {
    return {data_, query_rows_, heads_, keys_, key_stride_};
  }

  [[nodiscard]] constexpr T* data() const { return data_; }
  [[nodiscard]] constexpr std::size_t query_rows() const { return query_rows_; }
  [[nodiscard]] constexpr std::size_t heads() const { return heads_; }
  [[nodiscard]] constexpr std::size_t keys() const { return keys_; }
  [[nodiscard]] constexpr bool empty() const { return query_rows_ == 0; }

  [[nodiscard]] constexpr std::span<T> row(std::size_t query_row, std::size_t head) const {
    LAZYLLM_EXPECTS(query_row < query_rows_ && head < heads_);
    return {data_ + (query_row * heads_ + head) * key_stride_, keys_};
  }
  /// Query rows first .. first + count - 1.
  [[nodiscard]] constexpr BasicScoreView middle_query_rows(std::size_t first, std::size_t count) const {
    LAZYLLM_EXPECTS(first + count <= query_rows_);
    return {data_ + first * heads_ * key_stride_, count, heads_, keys_, key_stride_};
  }
  /// Keys first .. first + count - 1 of every row.
  [[nodiscard]] constexpr BasicScoreView middle_keys(std::size_t first, std::size_t count) const {
    LAZYLLM_EXPECTS(first + count <= keys_);
    return {data_ + first, query_rows_, heads_, count, key_stride_};
  }

 private:
  T* data_ = nullptr;
  std::size_t query_rows_ = 0;
  std::size_t heads_ = 0;
  std::size_t keys_ = 0;
  std::size_t key_stride_ = 0;
};

using ScoreView = BasicScoreView<float>;
using ConstScoreView = BasicScoreView<const float>;

}  // namespace lazyllm::inline v0
