// Who enters the next layer: the policy's choice among the tokens that entered this one, within the session's rules for
// decode steps and with its report. tokens ascending; scores [query_rows, heads, tokens].
// Source: LazyLLM, arXiv 2407.14057, section 3.2; the budget of revivals is this library's.
#pragma once

#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/session_options.hpp>
#include <lazyllm/graph/token_states.hpp>
#include <lazyllm/prune/policy.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// The tokens that a step's next layer computes or attends to, narrowed layer by layer. Allocates nothing after
/// construction.
template <PruningPolicy Policy>
class LayerSelection {
 public:
  /// Throws Error when the policy does not fit the model.
  LayerSelection(Policy policy, const PruningShape& shape) : policy_(std::move(policy)) {
    if constexpr (requires { policy_.prepare(shape); }) policy_.prepare(shape);
    for (std::vector<TokenIndex>* tokens : {&entering_, &candidates_, &revivals_})
      tokens->reserve(shape.context_capacity);
    keep_ = std::make_unique_for_overwrite<bool[]>(shape.context_capacity);
  }

  [[nodiscard]] Policy& policy() { return policy_; }
  [[nodiscard]] const Policy& policy() const { return policy_; }
  [[nodiscard]] std::span<const TokenIndex> entering() const { return entering_; }

  /// Every step starts again from the full context.
  void start(std::size_t context_size) {
    entering_.resize(context_size);
    std::iota(entering_.begin(), entering_.end(), TokenIndex{0});
  }
  /// Leaves in entering() those who go on after `layer`, and reports them. Scores and norms may be changed.
  void select(LayerIndex layer, Phase phase, ScoreView scores, ScoreView value_norms, const TokenStates& states,
              const SessionOptions& options, const SessionHistory& history);

 private:
  void drop_parked(LayerIndex layer, ScoreView& scores, ScoreView& value_norms, const TokenStates& states);
  [[nodiscard]] ScoreView drop_columns(ScoreView scores) const;
  void limit_revivals(LayerIndex layer, const TokenStates& states, std::size_t most, std::span<const float> ranks);
  void drop_unkept();
  [[nodiscard]] std::span<const float> importance() const;

  Policy policy_;
  std::vector<TokenIndex> entering_;
  std::vector<TokenIndex> candidates_;   // of the last selection, for the report
  std::vector<std::uint32_t> revivals_;  // places among the candidates
  std::unique_ptr<bool[]> keep_;         // by candidate
};

template <PruningPolicy Policy>
void LayerSelection<Policy>::select(LayerIndex layer, Phase phase, ScoreView scores, ScoreView value_norms,
                                    const TokenStates& states, const SessionOptions& options,
                                    const SessionHistory& history) {
  if (phase == Phase::decode && !options.revive_in_decode) drop_parked(layer, scores, value_norms, states);
  std::fill_n(keep_.get(), entering_.size(), true);
  const bool asks = states.size() >= options.dense_below;
  if (asks) {
    policy_.select(PruneContext{.phase = phase,
                                .layer = layer,
                                .context_size = states.size(),
                                .tokens = entering_,
                                .probs = scores,
                                .prompt_size = history.prompt_size,
                                .value_norms = value_norms},
                   {keep_.get(), entering_.size()});
    keep_[entering_.size() - 1] = true;
  }
  const std::span<const float> ranks = asks ? importance() : std::span<const float>();
  if (phase == Phase::decode) {
    limit_revivals(layer, states, options.decode_revivals.of(states.size() - history.prompt_size), ranks);
  }
  if (options.on_select) candidates_.assign(entering_.begin(), entering_.end());
  drop_unkept();
  if (options.on_select && (!scores.empty() || entering_.size() != candidates_.size())) {
    options.on_select(Selection{
        .step = history.steps, .layer = layer, .candidates = candidates_, .scores = ranks, .kept = entering_});
  }
}

/// Without revival: leaves in entering_, scores and norms the tokens that are in flight or have K and V at the next
/// layer. The others are parked with the input of that layer.
template <PruningPolicy Policy>
void LayerSelection<Policy>::drop_parked(LayerIndex layer, ScoreView& scores, ScoreView& value_norms,
                                         const TokenStates& states) {
  for (std::size_t i = 0; i < entering_.size(); ++i) {
    keep_[i] = states.depth(entering_[i]) > layer + 1 || !states.is_parked(entering_[i]);
  }
  scores = drop_columns(scores);
  value_norms = drop_columns(value_norms);
  drop_unkept();
}

/// The view without the keys whose keep_ is not set, in place.
template <PruningPolicy Policy>
ScoreView LayerSelection<Policy>::drop_columns(ScoreView scores) const {
  float* out = scores.data();
  for (std::size_t r = 0; r < scores.query_rows() * scores.heads(); ++r) {
    const float* const row = scores.data() + r * scores.keys();
    for (std::size_t i = 0; i < scores.keys(); ++i) {
      if (keep_[i]) *out++ = row[i];
    }
  }
  const auto kept = static_cast<std::size_t>(std::count(keep_.get(), keep_.get() + scores.keys(), true));
  return {scores.data(), scores.query_rows(), scores.heads(), kept};
}

/// Of the tokens to keep that would be revived for layer + 1, leaves the best `most`; where the policy did not rank,
/// the first ones.
template <PruningPolicy Policy>
void LayerSelection<Policy>::limit_revivals(LayerIndex layer, const TokenStates& states, std::size_t most,
                                            std::span<const float> ranks) {
  if (most >= entering_.size()) return;
  revivals_.clear();
  for (std::size_t i = 0; i < entering_.size(); ++i) {
    if (keep_[i] && states.depth(entering_[i]) == layer + 1 && states.is_parked(entering_[i])) {
      revivals_.push_back(static_cast<std::uint32_t>(i));
    }
  }
  if (revivals_.size() <= most) return;
  const auto cut = revivals_.begin() + static_cast<std::ptrdiff_t>(most);
  std::nth_element(revivals_.begin(), cut, revivals_.end(), [ranks](std::uint32_t a, std::uint32_t b) {
    return !ranks.empty() && ranks[a] != ranks[b] ? ranks[a] > ranks[b] : a < b;
  });
  std::for_each(cut, revivals_.end(), [this](std::uint32_t i) { keep_[i] = false; });
}

/// Leaves in entering_ the tokens whose keep_ is set.
template <PruningPolicy Policy>
void LayerSelection<Policy>::drop_unkept() {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < entering_.size(); ++i) {
    if (keep_[i]) entering_[kept++] = entering_[i];
  }
  entering_.resize(kept);
}

/// How the policy ranked entering_ just now; empty where it does not tell.
template <PruningPolicy Policy>
std::span<const float> LayerSelection<Policy>::importance() const {
  if constexpr (ScoringPolicy<Policy>) return policy_.importance();
  return {};
}

}  // namespace lazyllm::inline v0
