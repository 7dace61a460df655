// How important each token is for the next one, from the attention probabilities of the last rows.
// probs [query_rows, heads, keys] -> importance [keys].
// Source: LazyLLM, arXiv 2407.14057, section 3.2.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/matrix_view.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>

namespace lazyllm::inline v0 {

/// query_rows(): how many of the last rows' probabilities it reads (>= 1; it may be given fewer, never none).
/// score(probs, importance): fills importance [keys]; higher is kept first.
template <class S>
concept TokenScorer = requires(const S& s, ConstScoreView probs, std::span<float> importance) {
  { s.query_rows() } -> std::convertible_to<std::size_t>;
  s.score(probs, importance);
};

/// The paper's score: the mean over query heads of the last row's attention probabilities.
/// importance sums to 1. O(heads * keys), no allocation.
struct MeanOverHeads {
  [[nodiscard]] static constexpr std::size_t query_rows() { return 1; }

  static void score(ConstScoreView probs, std::span<float> importance) {
    LAZYLLM_EXPECTS(!probs.empty() && probs.keys() == importance.size());
    std::fill(importance.begin(), importance.end(), 0.0f);
    for (std::size_t head = 0; head < probs.heads(); ++head) {
      const std::span<const float> row = probs.row(probs.query_rows() - 1, head);
      for (std::size_t key = 0; key < row.size(); ++key) importance[key] += row[key];
    }
    const float scale = 1.0f / static_cast<float>(probs.heads());
    for (float& value : importance) value *= scale;
  }
};
static_assert(TokenScorer<MeanOverHeads>);

}  // namespace lazyllm::inline v0
