// The LazyLLM policy: after the layers of a schedule, keep the tokens that the scorer ranks highest.
// Prefill and decode may follow different schedules; by default they share one, as in the paper.
// Source: LazyLLM, arXiv 2407.14057, sections 3.2 and 3.3.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/prune/policy.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/scorer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// Keeps the schedule's count of highest-scored tokens. The last token is always kept and counts as one of them; of
/// equal scores the lower index stays; a NaN counts as the lowest score. O(heads * n) a selection, n entering tokens.
template <TokenScorer Scorer = MeanOverHeads, PruningSchedule Schedule = StepSchedule>
class TopKPolicy {
 public:
  /// One schedule for prefill and decode.
  explicit TopKPolicy(Scorer scorer, Schedule schedule) : TopKPolicy(std::move(scorer), schedule, schedule) {}
  TopKPolicy(Scorer scorer, Schedule prefill, Schedule decode)
      : scorer_(std::move(scorer)), prefill_(std::move(prefill)), decode_(std::move(decode)) {}

  /// Checks both schedules against the model (where the schedule can) and reserves scratch for `context_capacity`
  /// tokens.
  void prepare(std::size_t layer_count, std::size_t context_capacity) {
    if constexpr (requires { prefill_.check(layer_count); }) {
      prefill_.check(layer_count);
      decode_.check(layer_count);
    }
    importance_.reserve(context_capacity);
    order_.reserve(context_capacity);
  }

  [[nodiscard]] std::size_t query_rows(LayerIndex layer, Phase phase) const {
    return schedule(phase).prunes_after(layer) ? scorer_.query_rows() : 0;
  }

  void select(const PruneContext& context, std::span<bool> keep) {
    const Schedule& schedule = this->schedule(context.phase);
    if (!schedule.prunes_after(context.layer)) return;
    const std::size_t count = context.tokens.size();
    importance_.resize(count);
    scorer_.score(context.probs, importance_);
    select_top(importance_, schedule.keep_count(context.layer, count, context.context_size), keep);
  }

 private:
  [[nodiscard]] const Schedule& schedule(Phase phase) const { return phase == Phase::prefill ? prefill_ : decode_; }

  void select_top(std::span<float> importance, std::size_t keep_count, std::span<bool> keep) {
    const std::size_t others = importance.size() - 1;  // all but the last token, which stays anyway
    LAZYLLM_EXPECTS(keep_count >= 1 && keep_count <= importance.size());
    if (keep_count > others) return;
    for (float& value : importance) {
      if (value != value) value = -std::numeric_limits<float>::infinity();
    }
    order_.resize(others);
    for (std::size_t i = 0; i < others; ++i) order_[i] = static_cast<std::uint32_t>(i);
    const auto cut = order_.begin() + static_cast<std::ptrdiff_t>(keep_count - 1);
    std::nth_element(order_.begin(), cut, order_.end(), [importance](std::uint32_t a, std::uint32_t b) {
      return importance[a] != importance[b] ? importance[a] > importance[b] : a < b;
    });
    for (auto dropped = cut; dropped != order_.end(); ++dropped) keep[*dropped] = false;
  }

  Scorer scorer_;
  Schedule prefill_;
  Schedule decode_;
  std::vector<float> importance_;
  std::vector<std::uint32_t> order_;
};
static_assert(PruningPolicy<TopKPolicy<>>);

}  // namespace lazyllm::inline v0
