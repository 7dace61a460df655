// What the keys of each layer got of the attention of all rows so far, which H2O evicts by: [layers, heads, tokens].
// It belongs to a session's state: it is forked, saved and loaded with the session.
// Source: H2O, arXiv 2306.14048, section 4.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/prune/policy.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace lazyllm::inline v0 {

/// Sums of probabilities by layer, head and token; of no heads where no policy asks for them. No operation allocates
/// after construction; the memory of a token is used when it is added.
class ColumnSums {
 public:
  ColumnSums() = default;
  explicit ColumnSums(const PruningShape& shape)
      : heads_(shape.head_count),
        capacity_(shape.context_capacity),
        rows_(shape.layer_count * heads_),
        numbers_(rows_ * capacity_) {}

  [[nodiscard]] std::size_t head_count() const { return heads_; }
  /// Of one token, at all layers.
  [[nodiscard]] std::size_t token_bytes() const { return rows_ * sizeof(float); }

  /// Zeros for tokens `first` to first + count - 1, at all layers.
  void start(TokenIndex first, std::size_t count) {
    for (std::size_t row = 0; row < rows_; ++row) std::fill_n(numbers_.data() + row * capacity_ + first, count, 0.0f);
  }
  /// sums [heads, keys] of one step.
  void add(LayerIndex layer, std::span<const TokenIndex> keys, ConstRows sums) {
    for (std::size_t head = 0; head < heads_; ++head) {
      float* const own = of(layer, head);
      for (std::size_t k = 0; k < keys.size(); ++k) own[keys[k]] += sums.row(head)[k];
    }
  }
  /// The sums of some tokens, as [1, heads, tokens] at `to`.
  ConstScoreView gather(LayerIndex layer, std::span<const TokenIndex> tokens, float* to) const {
    float* next = to;
    for (std::size_t head = 0; head < heads_; ++head) {
      for (const TokenIndex token : tokens) *next++ = of(layer, head)[token];
    }
    return {to, 1, heads_, tokens.size()};
  }
  /// The opposite for one token: sums [heads].
  void assign(LayerIndex layer, TokenIndex token, std::span<const float> sums) {
    for (std::size_t head = 0; head < heads_; ++head) of(layer, head)[token] = sums[head];
  }

 private:
  [[nodiscard]] float* of(LayerIndex layer, std::size_t head) {
    return numbers_.data() + (layer * heads_ + head) * capacity_;
  }
  [[nodiscard]] const float* of(LayerIndex layer, std::size_t head) const {
    return numbers_.data() + (layer * heads_ + head) * capacity_;
  }

  std::size_t heads_ = 0;
  std::size_t capacity_ = 0;
  std::size_t rows_ = 0;  // layers * heads
  AlignedBuffer<float> numbers_;
};

}  // namespace lazyllm::inline v0
