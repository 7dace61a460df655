// Which tokens stay, given how important each is: the best by a KeepRule, singly or in blocks, and the protected ones.
// importance [tokens] by candidate, tokens ascending -> keep [tokens].
// Blocks: Quest, arXiv 2406.10774 (pages); protected first tokens: StreamingLLM, arXiv 2309.17453.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/prune/keep_rule.hpp>
#include <lazyllm/prune/policy.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// Token indices [begin, end).
struct IndexRange {
  TokenIndex begin = 0;
  TokenIndex end = 0;
  friend bool operator==(const IndexRange&, const IndexRange&) = default;
};

/// Tokens that stay whatever their importance: the first, the last, and named ranges of the context.
struct ProtectedTokens {
  std::size_t first = 0;
  std::size_t last = 0;
  std::vector<IndexRange> ranges = {};

  [[nodiscard]] bool contains(TokenIndex token, std::size_t context_size) const {
    return token < first || token + last >= context_size ||
           std::any_of(ranges.begin(), ranges.end(), [&](IndexRange r) { return r.begin <= token && token < r.end; });
  }
  friend bool operator==(const ProtectedTokens&, const ProtectedTokens&) = default;
};

/// What one pruning point keeps.
struct SelectionRule {
  SelectionRule(KeepRule rule, std::size_t block = 1, ProtectedTokens always = {})
      : keep(rule), block_tokens(block), protect(std::move(always)) {}

  KeepRule keep;
  /// Tokens b * block_tokens to (b + 1) * block_tokens - 1 stay or go together, at least 1.
  std::size_t block_tokens;
  ProtectedTokens protect;

  /// Fewest and most of `entering` >= 1 tokens that may stay; both rise with `entering`.
  [[nodiscard]] KeptBounds kept_bounds(std::size_t entering, std::size_t context_size) const {
    const std::size_t wanted = keep.keep_count(entering, context_size);
    // What must stay reaches up to a block beyond both of its ends; the last block that is kept may exceed the rule.
    const std::size_t beyond = block_tokens - 1;
    std::size_t staying = protect.first + protect.last + 1 + 3 * beyond;
    for (const IndexRange range : protect.ranges) {
      if (range.begin < range.end) staying += range.end - range.begin + 2 * beyond;
    }
    return {keep.least_count(entering, context_size), std::min(entering, std::max(staying, wanted + beyond))};
  }

  friend bool operator==(const SelectionRule&, const SelectionRule&) = default;
};

/// Applies a SelectionRule. The last token and the protected ones always stay and count among the kept; so more stay
/// than the rule says only where these alone are more. A block is as important as its most important token; blocks that
/// hold a token that must stay are kept whole, then the best whole blocks until the rule's number of tokens is reached.
/// Of equal importance the lower index stays; a NaN counts as the lowest. Allocates nothing within what was reserved.
class Selector {
 public:
  void reserve(std::size_t tokens) { units_.reserve(tokens); }

  /// Clears `keep`, which arrives all true, for the tokens that go. NaNs of importance become -infinity.
  /// O(n) for n tokens; for blocks and attention mass O(n log n).
  void select(const SelectionRule& rule, std::span<float> importance, std::span<const TokenIndex> tokens,
              std::size_t context_size, std::span<bool> keep) {
    LAZYLLM_EXPECTS(!tokens.empty() && importance.size() == tokens.size() && keep.size() == tokens.size());
    for (float& value : importance) {
      if (value != value) value = -std::numeric_limits<float>::infinity();
    }
    Sum kept = collect(rule, importance, tokens, context_size);
    const bool by_mass = rule.keep.is_mass();
    const std::size_t wanted = rule.keep.least_count(tokens.size(), context_size);
    double wanted_mass = 0;
    if (by_mass) wanted_mass = rule.keep.mass_share() * sum(importance, 0, tokens.size()).mass;
    const auto enough = [&] { return kept.tokens >= wanted && kept.mass >= wanted_mass; };
    if (by_mass || rule.block_tokens > 1) {
      std::sort(units_.begin(), units_.end());
    } else if (!enough() && wanted - kept.tokens < units_.size()) {
      std::nth_element(units_.begin(), units_.begin() + static_cast<std::ptrdiff_t>(wanted - kept.tokens),
                       units_.end());
    }
    for (const Unit& unit : units_) {
      if (enough()) {
        std::fill_n(keep.begin() + unit.first, unit.count, false);
      } else {
        kept += sum(importance, unit.first, unit.count);
      }
    }
  }

 private:
  /// A token or a block of tokens that may go.
  struct Unit {
    float importance;
    std::uint32_t first;  // place among the candidates
    std::uint32_t count;
    friend bool operator<(const Unit& a, const Unit& b) {
      return a.importance != b.importance ? a.importance > b.importance : a.first < b.first;
    }
  };
  struct Sum {
    std::size_t tokens = 0;
    double mass = 0;
    Sum& operator+=(const Sum& more) {
      tokens += more.tokens;
      mass += more.mass;
      return *this;
    }
  };

  /// Nothing less than 0 counts as mass.
  static Sum sum(std::span<const float> importance, std::size_t first, std::size_t count) {
    Sum result{count, 0};
    for (const float value : importance.subspan(first, count)) result.mass += std::max(0.0, double{value});
    return result;
  }

  /// units_ becomes what may go. Returns what must stay.
  Sum collect(const SelectionRule& rule, std::span<const float> importance, std::span<const TokenIndex> tokens,
              std::size_t context_size) {
    LAZYLLM_EXPECTS(rule.block_tokens >= 1);
    units_.clear();
    Sum staying;
    for (std::size_t first = 0, end = 0; first < tokens.size(); first = end) {
      bool stays = false;
      float best = importance[first];
      const std::size_t block = tokens[first] / rule.block_tokens;
      for (; end < tokens.size() && tokens[end] / rule.block_tokens == block; ++end) {
        stays = stays || end + 1 == tokens.size() || rule.protect.contains(tokens[end], context_size);
        best = std::max(best, importance[end]);
      }
      if (stays) {
        staying += sum(importance, first, end - first);
      } else {
        units_.push_back({best, static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(end - first)});
      }
    }
    return staying;
  }

  std::vector<Unit> units_;
};

}  // namespace lazyllm::inline v0
