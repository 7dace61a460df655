// Evictions of a step: asks the policy which of a layer's keys stay, and has the graph forget the others once the layer
// is through. probs [query_rows, heads, tokens with K and V at the layer], 0 for those that were no keys in the step;
// column sums are of all steps.
// Source: this library's; the policies: prune/eviction.hpp.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/column_sums.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/graph/session_options.hpp>
#include <lazyllm/graph/token_states.hpp>
#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/policy.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace lazyllm::inline v0 {

/// The rows of `from` over `keys`, spread over `tokens`, which contain them all, with zeros between: into `to`, which
/// may begin where `from` does.
inline ScoreView spread_scores(ConstScoreView from, std::span<const TokenIndex> keys,
                               std::span<const TokenIndex> tokens, float* to) {
  // From the back, so that in place nothing is overwritten that is still to be read.
  for (std::size_t r = from.query_rows() * from.heads(); r-- > 0;) {
    const std::span<const float> row = from.row(r / from.heads(), r % from.heads());
    float* const out = to + r * tokens.size();
    for (std::size_t i = tokens.size(), k = keys.size(); i-- > 0;) {
      const bool is_key = k != 0 && keys[k - 1] == tokens[i];
      out[i] = is_key ? row[--k] : 0.0f;
    }
  }
  return {to, from.query_rows(), from.heads(), tokens.size()};
}

/// Works for policies that evict; for others every function does nothing.
template <class Policy>
class KeyEviction {
 public:
  KeyEviction(Policy& policy, const PruningShape& shape) : evicts_(shape.layer_count) {
    if constexpr (EvictionPolicy<Policy>) {
      std::size_t most_rows = 0;
      for (LayerIndex layer = 0; layer < shape.layer_count; ++layer) {
        for (const Phase phase : {Phase::prefill, Phase::decode}) {
          const std::optional<std::size_t> rows = policy.eviction_rows(layer, phase);
          evicts_[layer] = evicts_[layer] || rows;
          most_rows = std::max(most_rows, rows.value_or(0));
        }
      }
      most_rows = std::min(most_rows, shape.context_capacity);
      probs_ = AlignedBuffer<float>(most_rows * shape.head_count * shape.context_capacity);
      stored_.reserve(shape.context_capacity);
      keep_ = std::make_unique_for_overwrite<bool[]>(shape.context_capacity);
    }
    if constexpr (ColumnSumPolicy<Policy>) {
      if (!policy.sums_columns()) return;
      sums_ = ColumnSums(shape);
      step_sums_ = AlignedBuffer<float>(shape.head_count * shape.context_capacity);
    }
  }

  /// Whether the policy evicts at this layer in any phase.
  [[nodiscard]] bool evicts_at(LayerIndex layer) const { return evicts_[layer]; }
  /// How many trailing rows' probabilities it wants after this layer.
  [[nodiscard]] static std::size_t query_rows(Policy& policy, LayerIndex layer, Phase phase) {
    if constexpr (EvictionPolicy<Policy>) {
      const std::optional<std::size_t> rows = policy.eviction_rows(layer, phase);
      return rows.value_or(0);
    }
    return 0;
  }

  /// Of all rows so far; of no heads, where the policy does not ask for it.
  [[nodiscard]] ColumnSums& sums() { return sums_; }
  [[nodiscard]] const ColumnSums& sums() const { return sums_; }

  /// At the start of a step, whose tokens are the last `new_tokens` of `context_size`: forgets what an interrupted one
  /// had decided.
  void start(std::size_t context_size, std::size_t new_tokens) {
    stored_.clear();
    sums_.start(static_cast<TokenIndex>(context_size - new_tokens), new_tokens);
  }
  /// Runs the layer, and sums its attention where the policy asks for it: then all rows' output counts as used.
  template <ModelGraph Graph>
  void run_layer(Graph& graph, LayerStep& step) {
    if constexpr (ColumnSumPolicy<Policy>) {
      if (sums_.head_count() != 0) {
        const Rows sums(step_sums_.data(), sums_.head_count(), step.keys.size());
        std::fill_n(sums.data(), sums.rows() * sums.cols(), 0.0f);
        step.outputs = step.rows.size();
        graph.run_layer(step, sums);
        sums_.add(step.layer, step.keys, sums);
        return;
      }
    }
    graph.run_layer(step);
  }
  /// Decides after the layer's attention; `scores` are over `keys`. The states know the rows at the layer already.
  /// norms_of(tokens) are their value_norms, where the policy needs them, else empty.
  template <class NormsOf>
  void decide(Policy& policy, LayerIndex layer, Phase phase, std::span<const TokenIndex> keys, ConstScoreView scores,
              const NormsOf& norms_of, const TokenStates& states, const SessionHistory& history) {
    if constexpr (EvictionPolicy<Policy>) {
      const std::optional<std::size_t> wanted = policy.eviction_rows(layer, phase);
      if (!wanted) return;
      for (TokenIndex token = 0; token < states.size(); ++token) {
        if (states.has_key(layer, token)) stored_.push_back(token);
      }
      ConstScoreView probs;
      if (const std::size_t rows = std::min(*wanted, scores.query_rows()); rows != 0) {
        probs = spread_scores(scores.middle_query_rows(scores.query_rows() - rows, rows), keys, stored_, probs_.data());
      }
      std::fill_n(keep_.get(), stored_.size(), true);
      policy.evict(PruneContext{.phase = phase,
                                .layer = layer,
                                .context_size = states.size(),
                                .tokens = stored_,
                                .probs = probs,
                                .prompt_size = history.prompt_size,
                                .value_norms = norms_of(stored_),
                                .column_sums = sums_of_stored(layer)},
                   {keep_.get(), stored_.size()});
    }
  }

  /// Carries it out when the layer is done. Who lacks the layer's second half keeps K and V there until it has it.
  template <ModelGraph Graph>
  void apply(Graph& graph, LayerIndex layer, TokenStates& states) {
    if constexpr (EvictionPolicy<Policy>) {
      std::size_t evicted = 0;
      for (std::size_t i = 0; i < stored_.size(); ++i) {
        const TokenIndex token = stored_[i];
        if (keep_[i] || (states.is_unfinished(token) && states.depth(token) == layer + 1)) continue;
        stored_[evicted++] = token;
      }
      const std::span<const TokenIndex> tokens(stored_.data(), evicted);
      if (evicted != 0) {
        graph.evict(layer, tokens);
        states.evict(layer, tokens);
      }
      stored_.clear();
    }
  }

 private:
  [[nodiscard]] ConstScoreView sums_of_stored(LayerIndex layer) {
    return sums_.head_count() == 0 ? ConstScoreView() : sums_.gather(layer, stored_, step_sums_.data());
  }

  std::vector<bool> evicts_;        // by layer
  std::vector<TokenIndex> stored_;  // tokens with K and V at the layer
  std::unique_ptr<bool[]> keep_;    // by stored token
  AlignedBuffer<float> probs_;
  ColumnSums sums_;
  AlignedBuffer<float> step_sums_;  // [heads, keys] of one layer and step
};

}  // namespace lazyllm::inline v0
