// Which keys of a layer stay in its cache after a step: what an eviction policy is, those of the field, and their text
// form. They select tokens, the same for all heads of a layer; each layer selects for itself.
// Sources: StreamingLLM, arXiv 2309.17453; TOVA, arXiv 2401.06104; SnapKV, arXiv 2404.14469; H2O, arXiv 2306.14048;
// VATP, arXiv 2406.12335.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/prune/keep_rule.hpp>
#include <lazyllm/prune/policy.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/scorer.hpp>
#include <lazyllm/prune/selection.hpp>

#include <concepts>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lazyllm::inline v0 {

/// Two functions make an eviction policy:
/// eviction_rows(layer, phase): how many trailing rows' probabilities evict wants after this layer, 0: none; nothing:
/// it is not asked there.
/// evict(context, keep): context.tokens are all tokens that have K and V at context.layer, ascending, the last token of
/// the context among them; probs are 0 for those that were no keys in this step. `keep` [tokens] arrives all true; what
/// becomes false leaves the layer's cache for good.
/// It may have prepare(shape), as a PruningPolicy. One type may be both: the session asks it for both.
template <class P>
concept EvictionPolicy = requires(P& p, const PruneContext& context, LayerIndex layer, Phase phase,
                                  std::span<bool> keep) {
  { p.eviction_rows(layer, phase) } -> std::convertible_to<std::optional<std::size_t>>;
  p.evict(context, keep);
};

/// An EvictionPolicy that reads what all rows so far attended to each key: while sums_columns(), which never changes,
/// the session has the graph, a ColumnSumGraph, add it up at every layer, and evict finds it in context.column_sums.
template <class P>
concept ColumnSumPolicy = EvictionPolicy<P> && requires(const P& p) {
  { p.sums_columns() } -> std::convertible_to<bool>;
};

// Available eviction policies, and when to use which; a text names them as the last column says.
//
// | policy           | use it                                                                   | text          |
// |------------------|--------------------------------------------------------------------------|---------------|
// | streaming_window | endless text: the first tokens and a window of recent ones, no scores    | window:4,1020 |
// | tova             | a fixed memory: in every step the last row's attention decides who stays | tova:512      |
// | snap_kv          | long prompts, short answers: the prompt's last rows select once, pooled  | snapkv:0.25   |
// | HeavyHitters     | a fixed memory: all rows so far decide, and recent tokens stay; costs    | h2o:512,256   |
// |                  | another product of queries and keys                                      |               |
// | vatp             | the same, each sum times the norm of the key's value                     | vatp:512,256  |

/// Evicts whom a SelectionRule does not keep, by a ScoreRule or, without one, all that are not protected.
class RuleEviction {
 public:
  /// Evicts nothing and asks for nothing.
  RuleEviction() : rule_(KeepRule::fraction(1)), evicts_(false) {}
  explicit RuleEviction(SelectionRule rule, std::optional<ScoreRule> score = {}, bool in_decode = true)
      : rule_(std::move(rule)), score_(std::move(score)), in_decode_(in_decode) {}

  /// Throws Error when the score cannot be made of so many query heads.
  void check(std::size_t head_count) const {
    if (score_) score_->check(head_count);
  }
  void prepare(const PruningShape& shape) {
    check(shape.head_count);
    importance_.reserve(shape.context_capacity);
    selector_.reserve(shape.context_capacity);
  }
  [[nodiscard]] std::optional<std::size_t> eviction_rows(LayerIndex, Phase phase) const {
    if (!evicts_ || (phase == Phase::decode && !in_decode_)) return std::nullopt;
    return score_ ? score_->query_rows() : 0;
  }
  [[nodiscard]] bool needs_value_norms(LayerIndex layer, Phase phase) const {
    return score_ && score_->needs_value_norms() && eviction_rows(layer, phase);
  }
  void evict(const PruneContext& context, std::span<bool> keep) {
    importance_.assign(context.tokens.size(), 0.0f);
    if (score_) detail::score_tokens(*score_, context.probs, context.value_norms, importance_);
    selector_.select(rule_, importance_, context.tokens, context.context_size, keep);
  }

 private:
  SelectionRule rule_;
  std::optional<ScoreRule> score_;
  bool in_decode_ = true;
  bool evicts_ = true;
  std::vector<float> importance_;
  Selector selector_;
};
static_assert(EvictionPolicy<RuleEviction>);

/// The first tokens, whose keys collect attention that belongs nowhere, and the most recent ones. Positions stay those
/// of the text. Source: StreamingLLM.
[[nodiscard]] inline RuleEviction streaming_window(std::size_t first = 4, std::size_t recent = 1020) {
  return RuleEviction({KeepRule::count(0), 1, {.first = first, .last = recent}});
}

/// In every step the tokens that the last row attends to most, by the mean over heads. A prompt is cut down at its end,
/// not token by token. Source: TOVA.
[[nodiscard]] inline RuleEviction tova(KeepRule keep) { return RuleEviction(keep, ScoreRule{}); }

/// Once, after a prompt: the tokens that its last `window` rows attend to most, by the mean over heads and rows, pooled
/// over `width` neighbours by their maximum, and these rows; generated tokens all stay. Source: SnapKV, which selects
/// for each head.
[[nodiscard]] inline RuleEviction snap_kv(KeepRule keep, std::size_t window = 32, std::size_t width = 7) {
  ScoreRule score;
  score.rows = window;
  score.pool_width = width;
  return RuleEviction({keep, 1, {.first = 0, .last = window}}, std::move(score), false);
}

/// In every step the tokens that all rows so far attended to most, by the score of their column sums (its rows do not
/// count), and the most recent ones. A prompt is cut down at its end, not token by token. Source: H2O, which selects
/// for each head.
class HeavyHitters {
 public:
  /// `first` and `recent` tokens stay and count among the kept; without it half of those that the rule keeps, as in the
  /// paper. Throws Error for an attention mass without it.
  explicit HeavyHitters(KeepRule keep, std::optional<std::size_t> recent = {}, ScoreRule score = {},
                        std::size_t first = 0)
      : rule_(keep, 1, {.first = first, .last = 0}), recent_(recent), score_(std::move(score)) {
    if (keep.is_mass() && !recent) {
      throw Error(ErrorCode::invalid_argument,
                  "heavy hitters by attention mass: how many recent tokens stay is not "
                  "told, as 256 in h2o:m0.9,256");
    }
  }

  /// Throws Error when the score cannot be made of so many query heads.
  void prepare(const PruningShape& shape) {
    score_.check(shape.head_count);
    importance_.reserve(shape.context_capacity);
    selector_.reserve(shape.context_capacity);
  }
  [[nodiscard]] static constexpr bool sums_columns() { return true; }
  [[nodiscard]] bool needs_value_norms(LayerIndex, Phase) const { return score_.needs_value_norms(); }
  [[nodiscard]] static std::optional<std::size_t> eviction_rows(LayerIndex, Phase) { return 0; }
  void evict(const PruneContext& context, std::span<bool> keep) {
    rule_.protect.last = recent_ ? *recent_ : rule_.keep.keep_count(keep.size(), context.context_size) / 2;
    importance_.resize(keep.size());
    detail::score_tokens(score_, context.column_sums, context.value_norms, importance_);
    selector_.select(rule_, importance_, context.tokens, context.context_size, keep);
  }

 private:
  SelectionRule rule_;
  std::optional<std::size_t> recent_;
  ScoreRule score_;
  std::vector<float> importance_;
  Selector selector_;
};
static_assert(ColumnSumPolicy<HeavyHitters> && !ColumnSumPolicy<RuleEviction>);

/// HeavyHitters by what the rows' attention brings: each sum counts times the norm of the key's value. The first tokens
/// stay: they get much attention because their values are small. Source: VATP, which selects for each head.
[[nodiscard]] inline HeavyHitters vatp(KeepRule keep, std::optional<std::size_t> recent = {}, std::size_t first = 20) {
  ScoreRule score;
  score.by_value = true;
  return HeavyHitters(keep, recent, std::move(score), first);
}

/// Any of the evictions, chosen at run time. Needs a ColumnSumGraph, whose sums are asked for only by HeavyHitters.
class AnyEviction {
 public:
  /// Evicts nothing and asks for nothing.
  AnyEviction() = default;
  AnyEviction(RuleEviction eviction) : eviction_(std::move(eviction)) {}
  AnyEviction(HeavyHitters eviction) : eviction_(std::move(eviction)) {}

  void prepare(const PruningShape& shape) {
    std::visit([&](auto& eviction) { eviction.prepare(shape); }, eviction_);
  }
  [[nodiscard]] bool sums_columns() const { return std::holds_alternative<HeavyHitters>(eviction_); }
  [[nodiscard]] bool needs_value_norms(LayerIndex layer, Phase phase) const {
    return std::visit([&](const auto& eviction) { return eviction.needs_value_norms(layer, phase); }, eviction_);
  }
  [[nodiscard]] std::optional<std::size_t> eviction_rows(LayerIndex layer, Phase phase) const {
    return std::visit([&](const auto& eviction) { return eviction.eviction_rows(layer, phase); }, eviction_);
  }
  void evict(const PruneContext& context, std::span<bool> keep) {
    std::visit([&](auto& eviction) { eviction.evict(context, keep); }, eviction_);
  }

 private:
  std::variant<RuleEviction, HeavyHitters> eviction_;
};
static_assert(ColumnSumPolicy<AnyEviction>);

/// An eviction's text: none, window:FIRST,RECENT, tova:KEEP, h2o:KEEP or h2o:KEEP,RECENT, vatp the same,
/// snapkv:KEEP or snapkv:KEEP^WINDOW~WIDTH; KEEP as in schedules: 512, 0.25, p30 or m0.9 (prune/schedule.hpp). Throws
/// Error for anything else.
[[nodiscard]] AnyEviction parse_eviction(std::string_view text);

/// A pruning and an eviction policy as one, for LazySession.
template <PruningPolicy P, EvictionPolicy E>
class WithEviction {
 public:
  WithEviction(P pruning, E eviction) : pruning_(std::move(pruning)), eviction_(std::move(eviction)) {}

  void prepare(const PruningShape& shape) {
    if constexpr (requires { pruning_.prepare(shape); }) pruning_.prepare(shape);
    if constexpr (requires { eviction_.prepare(shape); }) eviction_.prepare(shape);
  }
  [[nodiscard]] std::size_t query_rows(LayerIndex layer, Phase phase) { return pruning_.query_rows(layer, phase); }
  void select(const PruneContext& context, std::span<bool> keep) { pruning_.select(context, keep); }
  [[nodiscard]] KeptBounds kept_bounds(LayerIndex layer, Phase phase, std::size_t entering,
                                       std::size_t context_size) const requires BoundedPolicy<P> {
    return pruning_.kept_bounds(layer, phase, entering, context_size);
  }
  [[nodiscard]] std::span<const float> importance() const requires ScoringPolicy<P> { return pruning_.importance(); }
  [[nodiscard]] std::optional<std::size_t> eviction_rows(LayerIndex layer, Phase phase) {
    return eviction_.eviction_rows(layer, phase);
  }
  void evict(const PruneContext& context, std::span<bool> keep) { eviction_.evict(context, keep); }
  [[nodiscard]] bool needs_value_norms(LayerIndex layer, Phase phase) const
      requires(ValueNormPolicy<P> || ValueNormPolicy<E>) {
    return detail::asks_for_value_norms(pruning_, layer, phase) ||
           detail::asks_for_value_norms(eviction_, layer, phase);
  }
  [[nodiscard]] bool sums_columns() const requires ColumnSumPolicy<E> { return eviction_.sums_columns(); }

 private:
  P pruning_;
  E eviction_;
};
static_assert(PruningPolicy<WithEviction<KeepAll, RuleEviction>> &&
              EvictionPolicy<WithEviction<KeepAll, RuleEviction>>);

inline AnyEviction parse_eviction(std::string_view text) {
  if (text == "none") return {};
  std::string_view name = text, amount, window, width;
  if (detail::split_at(':', name, amount)) {
    if (name == "window") {
      std::string_view recent;
      std::size_t first = 0, last = 0;
      if (detail::split_at(',', amount, recent) && detail::parse_number(amount, first) &&
          detail::parse_number(recent, last)) {
        return streaming_window(first, last);
      }
    } else if (name == "tova") {
      return tova(parse_keep_rule(amount));
    } else if (name == "h2o" || name == "vatp") {
      std::string_view number;
      std::optional<std::size_t> recent;
      if (!detail::split_at(',', amount, number) || detail::parse_number(number, recent.emplace())) {
        const KeepRule keep = parse_keep_rule(amount);
        return name == "h2o" ? HeavyHitters(keep, recent) : vatp(keep, recent);
      }
    } else if (name == "snapkv") {
      std::size_t rows = 32, neighbours = 7;
      bool good = !detail::split_at('~', amount, width) || detail::parse_number(width, neighbours);
      good = good && (!detail::split_at('^', amount, window) || detail::parse_number(window, rows));
      if (good) {
        RuleEviction eviction = snap_kv(parse_keep_rule(amount), rows, neighbours);
        eviction.check(std::numeric_limits<std::size_t>::max());
        return eviction;
      }
    }
  }
  throw Error(
      ErrorCode::invalid_argument,
      "eviction: '" + std::string(text) + "' is none of none, window:4,1020, tova:512, h2o:512,256, snapkv:0.25^32~7");
}

}  // namespace lazyllm::inline v0
