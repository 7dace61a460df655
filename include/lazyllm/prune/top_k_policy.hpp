// The LazyLLM policy: after the layers of a schedule, keep the tokens that the scorer ranks highest.
// Prefill and decode may follow different schedules; by default they share one, as in the paper.
// Source: LazyLLM, arXiv 2407.14057, sections 3.2 and 3.3.
#pragma once

#include <lazyllm/prune/policy.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/scorer.hpp>
#include <lazyllm/prune/selection.hpp>

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// Keeps what the schedule's entry says, by the entry's own score or else the policy's scorer. How ties, NaNs, the last
/// token and protected ones count: Selector. O(heads * rows * n) a selection, n entering tokens; no allocation.
template <TokenScorer Scorer = MeanOverHeads, PruningSchedule Schedule = StepSchedule>
class TopKPolicy {
 public:
  /// One schedule for prefill and decode.
  explicit TopKPolicy(Scorer scorer, Schedule schedule) : TopKPolicy(std::move(scorer), schedule, schedule) {}
  TopKPolicy(Scorer scorer, Schedule prefill, Schedule decode)
      : scorer_(std::move(scorer)), prefill_(std::move(prefill)), decode_(std::move(decode)) {}

  /// Checks scorer and schedules against the model (where they can) and reserves scratch.
  void prepare(const PruningShape& shape) {
    if constexpr (requires { scorer_.check(shape.head_count); }) scorer_.check(shape.head_count);
    if constexpr (requires { prefill_.check(shape.layer_count, shape.head_count); }) {
      prefill_.check(shape.layer_count, shape.head_count);
      decode_.check(shape.layer_count, shape.head_count);
    }
    importance_.reserve(shape.context_capacity);
    selector_.reserve(shape.context_capacity);
  }

  [[nodiscard]] std::size_t query_rows(LayerIndex layer, Phase phase) const {
    const ScheduleEntry* const entry = schedule(phase).entry_after(layer);
    if (entry == nullptr) return 0;
    return entry->score ? entry->score->query_rows() : scorer_.query_rows();
  }

  [[nodiscard]] bool needs_value_norms(LayerIndex layer, Phase phase) const {
    const ScheduleEntry* const entry = schedule(phase).entry_after(layer);
    if (entry == nullptr) return false;
    return entry->score ? detail::weighs_by_value(*entry->score) : detail::weighs_by_value(scorer_);
  }

  void select(const PruneContext& context, std::span<bool> keep) {
    importance_.clear();
    const ScheduleEntry* const entry = schedule(context.phase).entry_after(context.layer);
    if (entry == nullptr) return;
    importance_.resize(context.tokens.size());
    if (entry->score) {
      detail::score_tokens(*entry->score, context.probs, context.value_norms, importance_);
    } else {
      detail::score_tokens(scorer_, context.probs, context.value_norms, importance_);
    }
    selector_.select(entry->rule, importance_, context.tokens, context.context_size, keep);
  }

  [[nodiscard]] std::span<const float> importance() const { return importance_; }

  [[nodiscard]] KeptBounds kept_bounds(LayerIndex layer, Phase phase, std::size_t entering,
                                       std::size_t context_size) const {
    const ScheduleEntry* const entry = schedule(phase).entry_after(layer);
    return entry == nullptr ? KeptBounds{entering, entering} : entry->rule.kept_bounds(entering, context_size);
  }

 private:
  [[nodiscard]] const Schedule& schedule(Phase phase) const { return phase == Phase::prefill ? prefill_ : decode_; }

  Scorer scorer_;
  Schedule prefill_;
  Schedule decode_;
  std::vector<float> importance_;
  Selector selector_;
};
static_assert(ScoringPolicy<TopKPolicy<>> && BoundedPolicy<TopKPolicy<>>);

}  // namespace lazyllm::inline v0
