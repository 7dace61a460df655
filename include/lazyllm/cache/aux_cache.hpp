// Hidden states of pruned tokens, one row a token: the input of the layer that the token has not reached yet.
// Rows live in slots that are reused when a token is revived; storage is reserved for the whole context, touched as
// used. Source: the Aux Cache of LazyLLM, arXiv 2407.14057, section 3.3.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace lazyllm::inline v0 {

/// At most one row [hidden_dim] for each token index below `capacity`. No operation allocates after construction.
class AuxCache {
 public:
  AuxCache(std::size_t capacity, std::size_t hidden_dim)
      : hidden_dim_(hidden_dim), rows_(capacity * hidden_dim), slot_of_(capacity, no_slot) {
    free_slots_.reserve(capacity);
  }

  [[nodiscard]] bool contains(TokenIndex token) const {
    LAZYLLM_EXPECTS(token < slot_of_.size());
    return slot_of_[token] != no_slot;
  }
  /// Saves a copy of `row`. Precondition: the token has none yet.
  void store(TokenIndex token, std::span<const float> row) {
    LAZYLLM_EXPECTS(!contains(token) && row.size() == hidden_dim_);
    std::uint32_t slot = used_slots_;
    if (free_slots_.empty()) {
      ++used_slots_;
    } else {
      slot = free_slots_.back();
      free_slots_.pop_back();
    }
    slot_of_[token] = slot;
    std::copy(row.begin(), row.end(), row_at(slot));
  }
  /// Copies the token's row to `row`. Precondition: contains(token).
  void read(TokenIndex token, std::span<float> row) const {
    LAZYLLM_EXPECTS(contains(token) && row.size() == hidden_dim_);
    std::copy_n(row_at(slot_of_[token]), hidden_dim_, row.begin());
  }
  /// Precondition: contains(token).
  void forget(TokenIndex token) {
    LAZYLLM_EXPECTS(contains(token));
    free_slots_.push_back(slot_of_[token]);
    slot_of_[token] = no_slot;
  }
  /// Moves the token's row to `row` and forgets it. Precondition: contains(token).
  void take(TokenIndex token, std::span<float> row) {
    read(token, row);
    forget(token);
  }

  /// Tokens that have a row.
  [[nodiscard]] std::size_t size() const { return used_slots_ - free_slots_.size(); }
  /// Bytes of the rows in use.
  [[nodiscard]] std::size_t size_bytes() const { return size() * hidden_dim_ * sizeof(float); }

 private:
  static constexpr std::uint32_t no_slot = std::numeric_limits<std::uint32_t>::max();
  [[nodiscard]] float* row_at(std::uint32_t slot) { return rows_.data() + slot * hidden_dim_; }
  [[nodiscard]] const float* row_at(std::uint32_t slot) const { return rows_.data() + slot * hidden_dim_; }

  std::size_t hidden_dim_;
  AlignedBuffer<float> rows_;
  std::vector<std::uint32_t> slot_of_;     // by token
  std::vector<std::uint32_t> free_slots_;  // given back, last in first out
  std::uint32_t used_slots_ = 0;           // slots ever handed out
};

}  // namespace lazyllm::inline v0
