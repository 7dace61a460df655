// How many tokens a decode step may revive. An answer's first steps need what the prompt's last row did not look at;
// later ones rarely do, and each revived row makes a step longer.
// Source: this library's; measured in docs/comparison.md, "What revival is worth".
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/prune/schedule.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>

namespace lazyllm::inline v0 {

/// The most tokens that a decode step revives for any one layer, by the place of its token in the answer.
struct RevivalBudget {
  static constexpr std::size_t unlimited = std::numeric_limits<std::size_t>::max();

  std::size_t early = unlimited;         ///< of each of the first early_tokens tokens after a prompt
  std::size_t early_tokens = unlimited;  ///< how many these are
  std::size_t later = unlimited;         ///< of each token after them

  /// Of the token number `generated` after the prompt, from 1.
  [[nodiscard]] constexpr std::size_t of(std::size_t generated) const {
    return generated <= early_tokens ? early : later;
  }
  /// Of any token.
  [[nodiscard]] constexpr std::size_t most() const {
    return early_tokens == unlimited ? early : std::max(early, later);
  }
  friend bool operator==(const RevivalBudget&, const RevivalBudget&) = default;
};

/// "8", or "8,16,0": 8 for each of the first 16 tokens, then none. Throws Error (invalid_argument) for others.
[[nodiscard]] inline RevivalBudget parse_revival_budget(std::string_view text) {
  RevivalBudget budget;
  std::string_view early = text, tokens, later;
  const bool changes = detail::split_at(',', early, tokens);
  const bool good =
      detail::parse_number(early, budget.early) &&
      (!changes || (detail::split_at(',', tokens, later) && detail::parse_number(tokens, budget.early_tokens) &&
                    detail::parse_number(later, budget.later)));
  if (!good) {
    throw Error(ErrorCode::invalid_argument,
                "revivals of a decode step: '" + std::string(text) + "' is neither a number nor three as 8,16,0");
  }
  return budget;
}

}  // namespace lazyllm::inline v0
