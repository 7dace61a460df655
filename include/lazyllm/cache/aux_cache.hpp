// Hidden states of pruned tokens, one row a token: the input of the layer that the token has not reached yet.
// Rows live in slots that are reused when a token is revived; storage is reserved for the whole context, touched as
// used; a row is stored as float or as something smaller (RowFormat). Source: the Aux Cache of LazyLLM, arXiv
// 2407.14057, section 3.3.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/row_element.hpp>
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
  AuxCache(std::size_t capacity, std::size_t hidden_dim, RowFormat format = RowFormat::float32)
      : hidden_dim_(hidden_dim),
        format_(format),
        row_bytes_(with_element(format, [&](auto element) { return row_bytes<decltype(element)>(hidden_dim); })),
        rows_(capacity * row_bytes_),
        slot_of_(capacity, no_slot) {
    free_slots_.reserve(capacity);
  }

  [[nodiscard]] bool contains(TokenIndex token) const {
    LAZYLLM_EXPECTS(token < slot_of_.size());
    return slot_of_[token] != no_slot;
  }
  /// Saves a copy of `row`, rounded to the format. Precondition: the token has none yet.
  void store(TokenIndex token, std::span<const float> row) {
    LAZYLLM_EXPECTS(row.size() == hidden_dim_);
    std::byte* const to = add(token);
    with_element(format_, [&]<class Element>(Element) { encode_row(row, reinterpret_cast<Element*>(to)); });
  }
  /// Saves a row as stored() gave it. Preconditions: the token has none yet, bits has row_size_bytes().
  void store_bits(TokenIndex token, std::span<const std::byte> bits) {
    LAZYLLM_EXPECTS(bits.size() == row_bytes_);
    std::copy(bits.begin(), bits.end(), add(token));
  }
  /// Copies the token's row to `row`. Precondition: contains(token).
  void read(TokenIndex token, std::span<float> row) const {
    LAZYLLM_EXPECTS(contains(token) && row.size() == hidden_dim_);
    const std::byte* const from = stored(token).data();
    with_element(format_, [&]<class Element>(Element) { decode_row(reinterpret_cast<const Element*>(from), row); });
  }
  /// The bits of the token's row [row_size_bytes()], until the token is forgotten. Precondition: contains(token).
  [[nodiscard]] std::span<const std::byte> stored(TokenIndex token) const {
    LAZYLLM_EXPECTS(contains(token));
    return {rows_.data() + slot_of_[token] * row_bytes_, row_bytes_};
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
  [[nodiscard]] std::size_t size_bytes() const { return size() * row_bytes_; }
  [[nodiscard]] RowFormat format() const { return format_; }
  /// Bytes of one row.
  [[nodiscard]] std::size_t row_size_bytes() const { return row_bytes_; }

 private:
  static constexpr std::uint32_t no_slot = std::numeric_limits<std::uint32_t>::max();

  /// Gives a new token its slot.
  std::byte* add(TokenIndex token) {
    LAZYLLM_EXPECTS(!contains(token));
    std::uint32_t slot = used_slots_;
    if (free_slots_.empty()) {
      ++used_slots_;
    } else {
      slot = free_slots_.back();
      free_slots_.pop_back();
    }
    slot_of_[token] = slot;
    return rows_.data() + slot * row_bytes_;
  }

  [[maybe_unused]] std::size_t hidden_dim_;  // of rows, for the contracts
  RowFormat format_;
  std::size_t row_bytes_;
  AlignedBuffer<std::byte> rows_;
  std::vector<std::uint32_t> slot_of_;     // by token
  std::vector<std::uint32_t> free_slots_;  // given back, last in first out
  std::uint32_t used_slots_ = 0;           // slots ever handed out
};

}  // namespace lazyllm::inline v0
