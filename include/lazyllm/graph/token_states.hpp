// What a session knows of each token: how deep it is, and where its hidden state lies: in flight, among the rows
// [rows, hidden_dim] that the step computes now, or parked in the Aux Cache. Depth d: K and V exist at layers < d; the
// parked row is the input of layer d or, of an unfinished token, of layer d - 1, whose second half it lacks. K and V of
// a token may have been evicted from some of the layers < d. Source: LazyLLM, arXiv 2407.14057, section 3.3; the
// halves: docs/design.md.
#pragma once

#include <lazyllm/cache/aux_cache.hpp>
#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/row_element.hpp>
#include <lazyllm/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lazyllm::inline v0 {

/// The tokens of one sequence. Lists of tokens ascend. No operation allocates after construction.
class TokenStates {
 public:
  TokenStates(std::size_t capacity, std::size_t layer_count, std::size_t hidden_dim,
              RowFormat aux_rows = RowFormat::float32)
      : hidden_dim_(hidden_dim),
        aux_(capacity, hidden_dim, aux_rows),
        unfinished_at_(layer_count),
        evicted_(layer_count),
        evicted_at_(layer_count),
        hidden_(capacity * hidden_dim) {
    for (std::vector<bool>& tokens : evicted_) tokens.reserve(capacity);
    depth_.reserve(capacity);
    unfinished_.reserve(capacity);
    rows_.reserve(capacity);
  }

  [[nodiscard]] std::size_t size() const { return depth_.size(); }
  [[nodiscard]] std::size_t depth(TokenIndex token) const { return depth_.at(token); }
  [[nodiscard]] bool is_parked(TokenIndex token) const { return aux_.contains(token); }
  /// Whether the token lacks the second half of layer depth - 1. Such a token is parked.
  [[nodiscard]] bool is_unfinished(TokenIndex token) const { return unfinished_[token]; }
  /// Whether K and V of the token are in the layer's cache: it ran there and was not evicted.
  [[nodiscard]] bool has_key(LayerIndex layer, TokenIndex token) const {
    return depth_[token] > layer && !evicted_[layer][token];
  }
  [[nodiscard]] bool is_evicted(LayerIndex layer, TokenIndex token) const { return evicted_[layer][token]; }
  /// How many tokens were evicted from the layer.
  [[nodiscard]] std::size_t evicted_count(LayerIndex layer) const { return evicted_at_[layer]; }
  [[nodiscard]] std::size_t aux_bytes() const { return aux_.size_bytes(); }

  /// Where the inputs of the next `count` tokens are put before add(count).
  [[nodiscard]] Rows new_rows(std::size_t count) { return {hidden_.data(), count, hidden_dim_}; }
  /// Adds tokens of depth 0, which are the rows in flight.
  void add(std::size_t count);

  /// The tokens in flight, and their hidden states in the same order.
  [[nodiscard]] std::span<const TokenIndex> rows() const { return rows_; }
  [[nodiscard]] Rows hidden() { return {hidden_.data(), rows_.size(), hidden_dim_}; }
  /// How many of the last rows stand at consecutive positions, at most `at_most`.
  [[nodiscard]] std::size_t consecutive_tail(std::size_t at_most) const;

  /// Gathers the entering tokens that have yet to run `layer`: those in flight, and parked ones, which are revived.
  /// Returns how many were.
  std::size_t gather(std::span<const TokenIndex> entering, LayerIndex layer);
  /// The rows have K and V at `layer` now.
  void mark_computed(LayerIndex layer) {
    for (const TokenIndex token : rows_) depth_[token] = static_cast<std::uint32_t>(layer + 1);
  }
  /// Whether an entering token waits for the second half of `layer`.
  [[nodiscard]] bool any_unfinished(std::span<const TokenIndex> entering, LayerIndex layer) const;
  /// Gathers the entering tokens that have yet to run the second half of `layer`: those in flight, and those whom an
  /// earlier step parked half-way, which are revived. Returns how many were.
  std::size_t gather_unfinished(std::span<const TokenIndex> entering, LayerIndex layer);
  /// Rows that are not entering are parked: with the input of `layer`, whose second half they lack then, or with its
  /// output. The others close ranks at the front of hidden(); rows() stays until the next gathering.
  void park_dropped(std::span<const TokenIndex> entering, LayerIndex layer, bool unfinished);

  /// The tokens' K and V left the layer. Precondition: they were there.
  void evict(LayerIndex layer, std::span<const TokenIndex> tokens) {
    for (const TokenIndex token : tokens) {
      LAZYLLM_EXPECTS(has_key(layer, token));
      evicted_[layer][token] = true;
    }
    evicted_at_[layer] += tokens.size();
  }

  /// Forgets the tokens from index `tokens` on, between two steps.
  void truncate(std::size_t tokens);
  [[nodiscard]] const AuxCache& aux() const { return aux_; }
  /// Adds a token as it was in another session between two steps; `parked` is its row as aux() stored it, or empty.
  void restore(std::size_t depth, bool unfinished, std::span<const std::byte> parked);

 private:
  template <class Predicate>
  std::size_t gather_if(std::span<const TokenIndex> entering, Predicate runs);
  void set_unfinished(TokenIndex token, LayerIndex layer, bool unfinished);

  std::size_t hidden_dim_;
  AuxCache aux_;
  std::vector<std::uint32_t> depth_;        // by token
  std::vector<bool> unfinished_;            // by token: lacks the second half of layer depth - 1
  std::vector<std::size_t> unfinished_at_;  // by layer: how many tokens lack its second half
  std::vector<std::vector<bool>> evicted_;  // by layer and token: K and V left the layer
  std::vector<std::size_t> evicted_at_;     // by layer: how many
  std::vector<TokenIndex> rows_;
  AlignedBuffer<float> hidden_;
};

inline void TokenStates::add(std::size_t count) {
  rows_.clear();
  for (std::size_t i = 0; i < count; ++i) {
    rows_.push_back(static_cast<TokenIndex>(depth_.size()));
    depth_.push_back(0);
    unfinished_.push_back(false);
  }
  for (std::vector<bool>& evicted : evicted_) evicted.resize(depth_.size(), false);
}

inline std::size_t TokenStates::consecutive_tail(std::size_t at_most) const {
  std::size_t count = std::min<std::size_t>(at_most, 1);
  while (count < std::min(at_most, rows_.size()) &&
         rows_[rows_.size() - count] == rows_[rows_.size() - count - 1] + 1) {
    ++count;
  }
  return count;
}

inline std::size_t TokenStates::gather(std::span<const TokenIndex> entering, LayerIndex layer) {
  return gather_if(entering, [&](TokenIndex token) { return depth_[token] == layer; });
}

inline bool TokenStates::any_unfinished(std::span<const TokenIndex> entering, LayerIndex layer) const {
  return unfinished_at_[layer] != 0 && std::any_of(entering.begin(), entering.end(), [&](TokenIndex token) {
           return unfinished_[token] && depth_[token] == layer + 1;
         });
}

inline std::size_t TokenStates::gather_unfinished(std::span<const TokenIndex> entering, LayerIndex layer) {
  const std::size_t revived = gather_if(entering, [&](TokenIndex token) {
    return depth_[token] == layer + 1 && (unfinished_[token] || !aux_.contains(token));
  });
  for (const TokenIndex token : rows_) set_unfinished(token, layer, false);
  return revived;
}

/// rows_ becomes the entering tokens for which runs(token). Those in flight lie at the front of hidden_ in order;
/// parked ones come out of the Aux Cache into their places between them.
template <class Predicate>
std::size_t TokenStates::gather_if(std::span<const TokenIndex> entering, Predicate runs) {
  rows_.clear();
  std::size_t in_flight = 0;
  for (const TokenIndex token : entering) {
    if (!runs(token)) continue;
    rows_.push_back(token);
    in_flight += aux_.contains(token) ? 0 : 1;
  }
  const std::size_t revived = rows_.size() - in_flight;
  // From the back, so that a row in flight moves only to places that are already free.
  const Rows rows = hidden();
  for (std::size_t i = rows_.size(); i-- > in_flight;) {
    if (aux_.contains(rows_[i])) {
      aux_.take(rows_[i], rows.row(i));
    } else {
      std::ranges::copy(rows.row(--in_flight), rows.row(i).begin());
    }
  }
  return revived;
}

inline void TokenStates::park_dropped(std::span<const TokenIndex> entering, LayerIndex layer, bool unfinished) {
  const Rows rows = hidden();
  std::size_t kept = 0;
  auto next = entering.begin();
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    next = std::lower_bound(next, entering.end(), rows_[i]);
    if (next == entering.end() || *next != rows_[i]) {
      aux_.store(rows_[i], rows.row(i));
      if (unfinished) set_unfinished(rows_[i], layer, true);
    } else {
      if (kept != i) std::ranges::copy(rows.row(i), rows.row(kept).begin());
      ++kept;
    }
  }
}

inline void TokenStates::truncate(std::size_t tokens) {
  while (depth_.size() > tokens) {
    const auto token = static_cast<TokenIndex>(depth_.size() - 1);
    if (unfinished_[token]) set_unfinished(token, depth_[token] - 1, false);
    if (aux_.contains(token)) aux_.forget(token);
    depth_.pop_back();
    unfinished_.pop_back();
  }
  for (LayerIndex layer = 0; layer < evicted_.size(); ++layer) {
    std::vector<bool>& evicted = evicted_[layer];
    for (; evicted.size() > tokens; evicted.pop_back()) evicted_at_[layer] -= evicted.back() ? 1 : 0;
  }
  rows_.clear();
}

inline void TokenStates::restore(std::size_t depth, bool unfinished, std::span<const std::byte> parked) {
  const auto token = static_cast<TokenIndex>(depth_.size());
  depth_.push_back(static_cast<std::uint32_t>(depth));
  unfinished_.push_back(false);
  for (std::vector<bool>& evicted : evicted_) evicted.push_back(false);
  if (unfinished) set_unfinished(token, depth - 1, true);
  if (!parked.empty()) aux_.store_bits(token, parked);
}

inline void TokenStates::set_unfinished(TokenIndex token, LayerIndex layer, bool unfinished) {
  if (unfinished_[token] == unfinished) return;
  unfinished_[token] = unfinished;
  unfinished_at_[layer] += unfinished ? 1 : static_cast<std::size_t>(-1);
}

}  // namespace lazyllm::inline v0
