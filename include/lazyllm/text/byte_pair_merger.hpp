// Byte pair encoding of one pre-token: the adjacent pair of lowest rank becomes one token, until no pair has a rank.
// The merges lie in one array in rank order; an open hash table of ranks finds a pair: about 24 bytes a merge in all.
// Source: Sennrich et al., arXiv 1508.07909; of equal ranks the leftmost goes first, as in the `tokenizers` package.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>

#include <algorithm>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// Tokens `left` and `right`, side by side, become `result`.
struct Merge {
  TokenId left;
  TokenId right;
  TokenId result;
};

/// The merges of a vocabulary; a merge's rank is its place in the list.
class MergeTable {
 public:
  MergeTable() = default;
  /// Throws Error (malformed) when a pair appears twice: which of its ranks holds would be a guess.
  explicit MergeTable(std::vector<Merge> merges);

  [[nodiscard]] std::size_t size() const { return merges_.size(); }
  [[nodiscard]] const Merge& operator[](std::size_t rank) const { return merges_[rank]; }
  /// The rank of a pair, if it has one. O(1).
  [[nodiscard]] std::optional<std::uint32_t> rank(TokenId left, TokenId right) const;

 private:
  static constexpr std::uint32_t empty_slot = std::numeric_limits<std::uint32_t>::max();

  /// Where the pair is, or the empty slot where it would be.
  [[nodiscard]] std::size_t slot(TokenId left, TokenId right) const;

  std::vector<Merge> merges_;
  std::vector<std::uint32_t> slots_;  // ranks; the size is a power of two, at least 4/3 of the merges
};

/// Merges the tokens of one pre-token at a time; keeps its buffers between calls.
class BytePairMerger {
 public:
  explicit BytePairMerger(const MergeTable& merges) : merges_(&merges) {}

  /// Appends the merged tokens to `out`. O(n log n): returns the number of candidate pairs that went through the heap,
  /// at most 3 n. Throws Error (limit) at 2^32 tokens.
  std::size_t merge(std::span<const TokenId> tokens, std::vector<TokenId>& out);

 private:
  /// A token of the pre-token; the neighbours are indices, `none` at the ends. A token that went into its left
  /// neighbour has id -1.
  struct Symbol {
    TokenId id;
    std::uint32_t previous;
    std::uint32_t next;
  };
  /// The pair whose left symbol is `left`; stale when the symbols there are no longer those of the merge.
  struct Candidate {
    std::uint32_t rank;
    std::uint32_t left;
    friend constexpr auto operator<=>(const Candidate&, const Candidate&) = default;
  };
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  void push_pair(std::uint32_t left);

  const MergeTable* merges_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

inline MergeTable::MergeTable(std::vector<Merge> merges) : merges_(std::move(merges)) {
  if (merges_.size() >= empty_slot / 4) {
    throw Error(ErrorCode::limit, "tokenizer: " + std::to_string(merges_.size()) + " merges, at most " +
                                      std::to_string(empty_slot / 4) + " are supported");
  }
  slots_.assign(std::bit_ceil(merges_.size() + merges_.size() / 3 + 1), empty_slot);
  for (std::size_t rank = 0; rank < merges_.size(); ++rank) {
    std::uint32_t& place = slots_[slot(merges_[rank].left, merges_[rank].right)];
    if (place != empty_slot) {
      throw Error(ErrorCode::malformed, "tokenizer.ggml.merges: entries " + std::to_string(place) + " and " +
                                            std::to_string(rank) + " merge the same pair");
    }
    place = static_cast<std::uint32_t>(rank);
  }
}

inline std::size_t MergeTable::slot(TokenId left, TokenId right) const {
  const std::uint64_t pair =
      (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) | static_cast<std::uint32_t>(right);
  // Fibonacci hashing: the high bits of the product depend on all bits of both ids.
  std::uint64_t hash = (pair ^ (pair >> 29)) * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 32;
  const std::size_t mask = slots_.size() - 1;
  std::size_t place = static_cast<std::size_t>(hash) & mask;
  while (slots_[place] != empty_slot) {
    const Merge& merge = merges_[slots_[place]];
    if (merge.left == left && merge.right == right) break;
    place = (place + 1) & mask;
  }
  return place;
}

inline std::optional<std::uint32_t> MergeTable::rank(TokenId left, TokenId right) const {
  if (merges_.empty()) return std::nullopt;
  const std::uint32_t found = slots_[slot(left, right)];
  if (found == empty_slot) return std::nullopt;
  return found;
}

inline void BytePairMerger::push_pair(std::uint32_t left) {
  const std::uint32_t right = symbols_[left].next;
  if (right == none) return;
  if (const auto rank = merges_->rank(symbols_[left].id, symbols_[right].id)) {
    heap_.push_back({*rank, left});
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>{});
  }
}

inline std::size_t BytePairMerger::merge(std::span<const TokenId> tokens, std::vector<TokenId>& out) {
  if (tokens.empty()) return 0;
  if (tokens.size() >= none) {
    throw Error(ErrorCode::limit, "tokenizer: a word of " + std::to_string(tokens.size()) + " bytes, at most " +
                                      std::to_string(none - 1) + " are supported");
  }
  const auto count = static_cast<std::uint32_t>(tokens.size());
  symbols_.clear();
  heap_.clear();
  for (std::uint32_t i = 0; i < count; ++i) {
    symbols_.push_back({tokens[i], i == 0 ? none : i - 1, i + 1 == count ? none : i + 1});
  }
  for (std::uint32_t i = 0; i < count; ++i) push_pair(i);

  std::size_t steps = 0;
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>{});
    const Candidate best = heap_.back();
    heap_.pop_back();
    ++steps;
    const Merge& merge = (*merges_)[best.rank];
    Symbol& left = symbols_[best.left];
    if (left.id != merge.left || left.next == none || symbols_[left.next].id != merge.right) continue;

    Symbol& right = symbols_[left.next];
    left.id = merge.result;
    left.next = right.next;
    right.id = -1;
    if (left.next != none) symbols_[left.next].previous = best.left;
    if (left.previous != none) push_pair(left.previous);
    push_pair(best.left);
  }
  for (std::uint32_t i = 0; i != none; i = symbols_[i].next) out.push_back(symbols_[i].id);
  return steps;
}

}  // namespace lazyllm::inline v0
