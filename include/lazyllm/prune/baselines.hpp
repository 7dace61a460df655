// Pruning policies beside LazyLLM's, to compare with and to build on: random drop, a window, one selection,
// combinations. They select tokens, the same for all heads, in the same engine as TopKPolicy does.
// Sources: in the table below.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/prune/policy.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/scorer.hpp>
#include <lazyllm/prune/selection.hpp>
#include <lazyllm/prune/top_k_policy.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

// Available policies, and when to use which.
//
// | policy             | use it                                                                 | source       |
// |--------------------|------------------------------------------------------------------------|--------------|
// | KeepAll            | the dense model                                                        |              |
// | TopKPolicy         | long prompts, by a schedule of your own or a recommended one           | LazyLLM      |
// | RandomDrop         | the floor that a policy must beat, at pruning points or before layer 0 | LazyLLM      |
// | static_pruning     | one early selection for good: with revive_in_decode = false            | LazyLLM      |
// | fast_kv            | one selection in the middle, by the last rows, pooled                  | FastKV       |
// | FirstAndRecent     | endless text without needles: first tokens and a window, no scores     | StreamingLLM |
// | filter_prompt      | a middle layer picks, the model restarts (graph/filter_prompt.hpp)     | GemFilter    |
// | compose(a, b, ...) | a token goes on only where all of them say so                          |              |
//
// arXiv: LazyLLM 2407.14057, FastKV 2502.01068, StreamingLLM 2309.17453, GemFilter 2409.17422.

/// Keeps as many tokens as a schedule says, drawn by a hash of the seed and the token: the same token ranks the same in
/// every step and layer. Generated tokens always stay. An entry after before_first_layer drops before the model.
class RandomDrop {
 public:
  RandomDrop(StepSchedule schedule, std::uint64_t seed) : schedule_(std::move(schedule)), seed_(seed) {}

  void prepare(const PruningShape& shape) {
    schedule_.check(shape.layer_count, shape.head_count);
    importance_.reserve(shape.context_capacity);
    selector_.reserve(shape.context_capacity);
  }
  [[nodiscard]] static std::size_t query_rows(LayerIndex, Phase) { return 0; }
  void select(const PruneContext& context, std::span<bool> keep) {
    importance_.clear();
    const ScheduleEntry* const entry = schedule_.entry_after(context.layer);
    if (entry == nullptr) return;
    for (const TokenIndex token : context.tokens) importance_.push_back(rank(token, context.prompt_size));
    selector_.select(entry->rule, importance_, context.tokens, context.context_size, keep);
  }
  [[nodiscard]] std::span<const float> importance() const { return importance_; }

 private:
  /// In [0, 1), from splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
  [[nodiscard]] float rank(TokenIndex token, std::size_t prompt_size) const {
    if (token >= prompt_size) return std::numeric_limits<float>::infinity();
    std::uint64_t z = seed_ + (std::uint64_t{token} + 1) * 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return static_cast<float>((z ^ (z >> 31)) >> 40) * 0x1p-24f;
  }

  StepSchedule schedule_;
  std::uint64_t seed_;
  std::vector<float> importance_;
  Selector selector_;
};
static_assert(ScoringPolicy<RandomDrop>);

/// Keeps the first tokens and the most recent ones after one layer, or before the first.
struct FirstAndRecent {
  LayerIndex layer = before_first_layer;
  std::size_t first = 4;
  std::size_t recent = 1020;

  [[nodiscard]] static std::size_t query_rows(LayerIndex, Phase) { return 0; }
  void select(const PruneContext& context, std::span<bool> keep) const {
    if (context.layer != layer) return;
    const ProtectedTokens stay{.first = first, .last = recent};
    for (std::size_t i = 0; i < keep.size(); ++i) keep[i] = stay.contains(context.tokens[i], context.context_size);
  }
};
static_assert(PruningPolicy<FirstAndRecent>);

/// The paper's static baseline: one selection, after an early layer, by that layer's attention.
[[nodiscard]] inline TopKPolicy<> static_pruning(LayerIndex layer, KeepRule keep) {
  return TopKPolicy<>(MeanOverHeads{}, StepSchedule({{layer, keep}}));
}

/// One selection after a middle layer: the last `window` rows' mean attention, pooled by its mean; those rows stay.
[[nodiscard]] inline auto fast_kv(LayerIndex layer, KeepRule keep, std::size_t window = 8, std::size_t width = 7) {
  using Scorer = Pooled<OverRows<>, Reduction::mean>;
  const SelectionRule rule(keep, 1, {.first = 0, .last = window});
  return TopKPolicy<Scorer>(Scorer{width, {window}}, StepSchedule({{layer, rule}}));
}

/// Several policies at once: a token goes on where each of them, asked about all candidates, keeps it. importance() is
/// that of the first one that ranked.
template <PruningPolicy... P>
class Composed {
 public:
  explicit Composed(P... policies) : policies_(std::move(policies)...) {}

  void prepare(const PruningShape& shape) {
    each([&](auto& policy) {
      if constexpr (requires { policy.prepare(shape); }) policy.prepare(shape);
    });
    one_keep_ = std::make_unique_for_overwrite<bool[]>(shape.context_capacity);
  }
  [[nodiscard]] std::size_t query_rows(LayerIndex layer, Phase phase) {
    std::size_t rows = 0;
    each([&](auto& policy) { rows = std::max<std::size_t>(rows, policy.query_rows(layer, phase)); });
    return rows;
  }
  [[nodiscard]] bool needs_value_norms(LayerIndex layer, Phase phase) const {
    return std::apply(
        [&](const auto&... policy) { return (detail::asks_for_value_norms(policy, layer, phase) || ...); }, policies_);
  }
  /// Precondition: prepare was called for as many tokens.
  void select(const PruneContext& context, std::span<bool> keep) {
    each([&](auto& policy) {
      const std::span<bool> one(one_keep_.get(), keep.size());
      std::fill(one.begin(), one.end(), true);
      PruneContext own = context;  // with as many rows of scores as this policy wants
      const std::size_t all = context.probs.query_rows();
      const bool wants = context.layer != before_first_layer && all != 0;
      const std::size_t rows = wants ? std::min<std::size_t>(all, policy.query_rows(context.layer, context.phase)) : 0;
      own.probs = rows == 0 ? ConstScoreView() : context.probs.middle_query_rows(all - rows, rows);
      policy.select(own, one);
      for (std::size_t i = 0; i < keep.size(); ++i) keep[i] = keep[i] && one[i];
    });
  }
  [[nodiscard]] std::span<const float> importance() const {
    std::span<const float> first;
    std::apply([&](const auto&... policy) { (use_if_ranked(first, policy), ...); }, policies_);
    return first;
  }

 private:
  template <class F>
  void each(F f) {
    std::apply([&](auto&... policy) { (f(policy), ...); }, policies_);
  }
  template <class Policy>
  static void use_if_ranked(std::span<const float>& first, const Policy& policy) {
    if constexpr (ScoringPolicy<Policy>) {
      if (first.empty()) first = policy.importance();
    }
  }

  std::tuple<P...> policies_;
  std::unique_ptr<bool[]> one_keep_;
};
static_assert(ScoringPolicy<Composed<TopKPolicy<>, FirstAndRecent>>);

template <PruningPolicy... P>
[[nodiscard]] Composed<P...> compose(P... policies) {
  return Composed<P...>(std::move(policies)...);
}

}  // namespace lazyllm::inline v0
