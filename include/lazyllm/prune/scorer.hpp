// How important each token is for the next one, from the attention probabilities of the last rows: small scorers that
// compose. probs [query_rows, heads, keys] -> importance [keys], by the order of the candidates.
// Source: LazyLLM, arXiv 2407.14057, section 3.2; windows and pooling: SnapKV, arXiv 2404.14469; value norms: VATP,
// arXiv 2406.12335.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/matrix_view.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lazyllm::inline v0 {

/// query_rows(): how many of the last rows' probabilities it reads (>= 1; it may be given fewer, never none).
/// score(probs, importance): fills importance [keys]; higher is kept first.
/// A scorer may have check(head_count) too: throws Error when it does not fit a model of so many query heads.
template <class S>
concept TokenScorer = requires(const S& s, ConstScoreView probs, std::span<float> importance) {
  { s.query_rows() } -> std::convertible_to<std::size_t>;
  s.score(probs, importance);
};

/// A scorer that looks at each key alone and says so: `static constexpr bool key_by_key = true`.
template <class S>
concept KeyByKeyScorer = TokenScorer<S> && S::key_by_key;

/// A scorer that may weigh by the values: where needs_value_norms(), score(probs, value_norms, importance) is called,
/// value_norms [1, heads, keys].
template <class S>
concept ValueScorer = TokenScorer<S> &&
    requires(const S& s, ConstScoreView probs, ConstScoreView value_norms, std::span<float> importance) {
  { s.needs_value_norms() } -> std::convertible_to<bool>;
  s.score(probs, value_norms, importance);
};

/// How several numbers become one.
enum class Reduction { mean, maximum };

namespace detail {

/// importance = reduction of `values` into it, number by number; for the mean the sum so far.
void reduce_into(Reduction reduction, std::span<const float> values, std::span<float> importance);
/// What is left to do after the last of `count` reduce_into.
void finish_reduction(Reduction reduction, std::size_t count, std::span<float> importance);
/// The last row of probs, each times its key's norm where there are any, over `heads` (none: all).
void reduce_heads(Reduction reduction, std::span<const std::uint32_t> heads, ConstScoreView probs,
                  ConstScoreView value_norms, std::span<float> importance);
/// score_row(one row's probs of the keys from `first` on, first, their importance), reduced over the last `rows` rows;
/// allocates nothing.
template <class ScoreRow>
void reduce_rows(Reduction reduction, std::size_t rows, ConstScoreView probs, std::span<float> importance,
                 const ScoreRow& score_row);
/// Each number becomes the reduction of its `width` neighbours (itself in the middle; fewer at the ends), in place.
void pool(Reduction reduction, std::size_t width, std::span<float> importance);

inline constexpr std::size_t most_pool_width = 255;
void check_pool_width(std::size_t width);
void check_heads(std::span<const std::uint32_t> heads, std::size_t head_count);

}  // namespace detail

// Available scorers, and when to use which; a schedule's text names them as the last column says (prune/schedule.hpp).
//
// | scorer                  | use it                                                                        | text  |
// |-------------------------|-------------------------------------------------------------------------------|-------|
// | MeanOverHeads           | the paper's; late layers, where most heads agree                              | mean  |
// | MaxOverHeads            | early and middle layers, where single heads find the answer                   | max   |
// | OverHeads<R>{heads}     | the heads that are known to find it                                           | @3.5  |
// | OverHeads<R>{{}, true}  | attention that falls on small values changes little; on a ValueNormGraph      | meanv |
// | OverRows<S, R>{rows}    | a question longer than a token: its last rows vote; costs rows x heads x keys | ^48   |
// | Pooled<S, R>{width}     | keeps the neighbours of what scores high: whole words and numbers             | ~7    |
//
// They nest: Pooled<OverRows<MaxOverHeads>>{15, {48}}.

/// The last row's probabilities over the query heads, or over chosen ones. O(heads * keys), no allocation.
template <Reduction R = Reduction::mean>
struct OverHeads {
  static constexpr bool key_by_key = true;
  std::vector<std::uint32_t> heads = {};  ///< none: all
  bool by_value = false;                  ///< each probability counts times the norm of the key's value

  [[nodiscard]] static constexpr std::size_t query_rows() { return 1; }
  [[nodiscard]] bool needs_value_norms() const { return by_value; }
  void check(std::size_t head_count) const { detail::check_heads(heads, head_count); }
  void score(ConstScoreView probs, std::span<float> importance) const { score(probs, {}, importance); }
  void score(ConstScoreView probs, ConstScoreView value_norms, std::span<float> importance) const {
    LAZYLLM_EXPECTS(by_value == !value_norms.empty());
    detail::reduce_heads(R, heads, probs, value_norms, importance);
  }
};
/// The paper's score; importance sums to 1.
using MeanOverHeads = OverHeads<Reduction::mean>;
using MaxOverHeads = OverHeads<Reduction::maximum>;
static_assert(KeyByKeyScorer<MeanOverHeads> && KeyByKeyScorer<MaxOverHeads>);

/// Another scorer's importance over the last `rows` rows (as many as there are). No allocation.
template <KeyByKeyScorer Scorer = MeanOverHeads, Reduction R = Reduction::mean>
struct OverRows {
  static constexpr bool key_by_key = true;
  std::size_t rows = 1;
  Scorer scorer = {};

  [[nodiscard]] std::size_t query_rows() const { return rows; }
  void check(std::size_t head_count) const {
    if (rows == 0) throw Error(ErrorCode::invalid_argument, "a scorer over the last 0 rows has nothing to read");
    if constexpr (requires { scorer.check(head_count); }) scorer.check(head_count);
  }
  [[nodiscard]] bool needs_value_norms() const requires ValueScorer<Scorer> { return scorer.needs_value_norms(); }
  void score(ConstScoreView probs, std::span<float> importance) const {
    detail::reduce_rows(R, rows, probs, importance,
                        [this](ConstScoreView row, std::size_t, std::span<float> out) { scorer.score(row, out); });
  }
  void score(ConstScoreView probs, ConstScoreView value_norms,
             std::span<float> importance) const requires ValueScorer<Scorer> {
    detail::reduce_rows(R, rows, probs, importance, [&](ConstScoreView row, std::size_t first, std::span<float> out) {
      scorer.score(row, value_norms.middle_keys(first, out.size()), out);
    });
  }
};
static_assert(KeyByKeyScorer<OverRows<MaxOverHeads>> && ValueScorer<OverRows<MaxOverHeads>>);

/// Another scorer's importance, each token's pooled with its neighbours among the candidates. `width` is odd, at most
/// 255. O(width * keys) more, no allocation.
template <TokenScorer Scorer = MeanOverHeads, Reduction R = Reduction::maximum>
struct Pooled {
  std::size_t width = 7;
  Scorer scorer = {};

  [[nodiscard]] std::size_t query_rows() const { return scorer.query_rows(); }
  void check(std::size_t head_count) const {
    detail::check_pool_width(width);
    if constexpr (requires { scorer.check(head_count); }) scorer.check(head_count);
  }
  void score(ConstScoreView probs, std::span<float> importance) const {
    scorer.score(probs, importance);
    detail::pool(R, width, importance);
  }
  [[nodiscard]] bool needs_value_norms() const requires ValueScorer<Scorer> { return scorer.needs_value_norms(); }
  void score(ConstScoreView probs, ConstScoreView value_norms,
             std::span<float> importance) const requires ValueScorer<Scorer> {
    scorer.score(probs, value_norms, importance);
    detail::pool(R, width, importance);
  }
};
static_assert(ValueScorer<Pooled<OverRows<MaxOverHeads>>>);

/// A scorer put together at run time, as a schedule's text names it: heads, then rows, then neighbours.
struct ScoreRule {
  Reduction over_heads = Reduction::mean;
  std::vector<std::uint32_t> heads = {};  ///< none: all
  std::size_t rows = 1;
  Reduction over_rows = Reduction::mean;
  std::size_t pool_width = 1;  ///< 1: no pooling
  Reduction pooling = Reduction::maximum;
  bool by_value = false;  ///< each probability counts times the norm of the key's value

  [[nodiscard]] std::size_t query_rows() const { return rows; }
  [[nodiscard]] bool needs_value_norms() const { return by_value; }
  void check(std::size_t head_count) const {
    OverRows<>{.rows = rows}.check(head_count);
    detail::check_heads(heads, head_count);
    detail::check_pool_width(pool_width);
  }
  void score(ConstScoreView probs, std::span<float> importance) const { score(probs, {}, importance); }
  void score(ConstScoreView probs, ConstScoreView value_norms, std::span<float> importance) const {
    LAZYLLM_EXPECTS(by_value == !value_norms.empty());
    detail::reduce_rows(
        over_rows, rows, probs, importance, [&](ConstScoreView row, std::size_t first, std::span<float> out) {
          const ConstScoreView norms = by_value ? value_norms.middle_keys(first, out.size()) : ConstScoreView();
          detail::reduce_heads(over_heads, heads, row, norms, out);
        });
    if (pool_width > 1) detail::pool(pooling, pool_width, importance);
  }
  friend bool operator==(const ScoreRule&, const ScoreRule&) = default;
};
static_assert(ValueScorer<ScoreRule>);

namespace detail {

/// By the scorer's own needs: with the norms, or without.
template <TokenScorer S>
void score_tokens(const S& scorer, ConstScoreView probs, ConstScoreView value_norms, std::span<float> importance) {
  if constexpr (ValueScorer<S>) {
    if (scorer.needs_value_norms()) return scorer.score(probs, value_norms, importance);
  }
  scorer.score(probs, importance);
}
template <TokenScorer S>
[[nodiscard]] bool weighs_by_value(const S& scorer) {
  if constexpr (ValueScorer<S>) return scorer.needs_value_norms();
  return false;
}

inline void reduce_into(Reduction reduction, std::span<const float> values, std::span<float> importance) {
  if (reduction == Reduction::mean) {
    for (std::size_t i = 0; i < values.size(); ++i) importance[i] += values[i];
  } else {
    for (std::size_t i = 0; i < values.size(); ++i) importance[i] = std::max(importance[i], values[i]);
  }
}

inline void finish_reduction(Reduction reduction, std::size_t count, std::span<float> importance) {
  if (reduction != Reduction::mean || count == 1) return;
  const float scale = 1.0f / static_cast<float>(count);
  for (float& value : importance) value *= scale;
}

inline void reduce_heads(Reduction reduction, std::span<const std::uint32_t> heads, ConstScoreView probs,
                         ConstScoreView value_norms, std::span<float> importance) {
  LAZYLLM_EXPECTS(!probs.empty() && probs.keys() == importance.size());
  LAZYLLM_EXPECTS(value_norms.empty() || value_norms.keys() == probs.keys());
  const std::size_t count = heads.empty() ? probs.heads() : heads.size();
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t head = heads.empty() ? i : heads[i];
    const auto row = probs.row(probs.query_rows() - 1, head);
    if (!value_norms.empty()) {
      const auto norms = value_norms.row(0, head);
      for (std::size_t k = 0; k < row.size(); ++k) {
        const float weighed = row[k] * norms[k];
        if (i == 0) importance[k] = weighed;
        if (i != 0) reduce_into(reduction, {&weighed, 1}, importance.subspan(k, 1));
      }
    } else if (i == 0) {
      std::copy(row.begin(), row.end(), importance.begin());
    } else {
      reduce_into(reduction, row, importance);
    }
  }
  finish_reduction(reduction, count, importance);
}

template <class ScoreRow>
void reduce_rows(Reduction reduction, std::size_t rows, ConstScoreView probs, std::span<float> importance,
                 const ScoreRow& score_row) {
  const std::size_t count = std::min(rows, probs.query_rows());
  const std::size_t first_row = probs.query_rows() - count;
  std::array<float, 256> buffer;  // keys at a time: their probabilities stay in the cache
  for (std::size_t first = 0; first < importance.size(); first += buffer.size()) {
    const std::size_t keys = std::min(buffer.size(), importance.size() - first);
    const ConstScoreView some = probs.middle_keys(first, keys);
    const std::span<float> out = importance.subspan(first, keys);
    score_row(some.middle_query_rows(first_row, 1), first, out);
    for (std::size_t r = 1; r < count; ++r) {
      score_row(some.middle_query_rows(first_row + r, 1), first, std::span<float>(buffer).first(keys));
      reduce_into(reduction, std::span<const float>(buffer).first(keys), out);
    }
    finish_reduction(reduction, count, out);
  }
}

inline void pool(Reduction reduction, std::size_t width, std::span<float> importance) {
  LAZYLLM_EXPECTS(width % 2 == 1 && width <= most_pool_width);
  const std::size_t half = width / 2;
  if (half == 0) return;
  std::array<float, most_pool_width / 2> before;  // the numbers before i as they came: of i - k at (i - k) % half
  for (std::size_t i = 0; i < importance.size(); ++i) {
    const float own = importance[i];
    const std::size_t left = std::min(half, i), right = std::min(half, importance.size() - 1 - i);
    // From left to right, so that the same neighbours give the same bits.
    float pooled = left == 0 ? own : before[(i - left) % half];
    const auto add = [&](float value) {
      pooled = reduction == Reduction::mean ? pooled + value : std::max(pooled, value);
    };
    for (std::size_t k = left; k-- > 1;) add(before[(i - k) % half]);
    if (left != 0) add(own);
    for (std::size_t k = 1; k <= right; ++k) add(importance[i + k]);
    before[i % half] = own;
    importance[i] = reduction == Reduction::mean ? pooled / static_cast<float>(left + right + 1) : pooled;
  }
}

inline void check_pool_width(std::size_t width) {
  if (width % 2 == 1 && width <= most_pool_width) return;
  throw Error(ErrorCode::invalid_argument, "pooling over " + std::to_string(width) +
                                               " tokens: the width is odd, 1 to " + std::to_string(most_pool_width));
}

inline void check_heads(std::span<const std::uint32_t> heads, std::size_t head_count) {
  for (const std::uint32_t head : heads) {
    if (head < head_count) continue;
    throw Error(ErrorCode::invalid_argument, "a scorer names head " + std::to_string(head) +
                                                 ", but the model's heads are 0 to " + std::to_string(head_count - 1));
  }
}

}  // namespace detail

}  // namespace lazyllm::inline v0
