// The most that a step can add to K, V, the Aux Cache and column sums, counted before it runs, and the check against a
// byte budget.
// Counted from the depths of the tokens and from what the policy says beforehand of how many it keeps (BoundedPolicy).
// Source: this library's.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/column_sums.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/graph/session_options.hpp>
#include <lazyllm/graph/token_states.hpp>
#include <lazyllm/prune/policy.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

namespace lazyllm::inline v0 {

/// What a step can add at most.
struct StepGrowth {
  std::size_t key_values = 0;  ///< K and V of a token at a layer
  std::size_t parked = 0;      ///< tokens in the Aux Cache
};

namespace detail {

template <PruningPolicy Policy>
KeptBounds kept_bounds(const Policy& policy, LayerIndex layer, Phase phase, KeptBounds entering,
                       std::size_t context_size) {
  if constexpr (BoundedPolicy<Policy>) {
    return {policy.kept_bounds(layer, phase, entering.least, context_size).least,
            policy.kept_bounds(layer, phase, entering.most, context_size).most};
  }
  return {1, entering.most};
}

}  // namespace detail

/// Of a step that brings `new_tokens`. O(tokens + layers), no allocation: `counts` [layer_count + 1] is scratch.
template <PruningPolicy Policy>
[[nodiscard]] StepGrowth most_growth(const Policy& policy, const TokenStates& states, std::size_t new_tokens,
                                     Phase phase, const SessionOptions& options, std::vector<std::size_t>& counts) {
  const std::size_t layer_count = counts.size() - 1;
  const std::size_t total = states.size() + new_tokens;
  std::fill(counts.begin(), counts.end(), std::size_t{0});
  for (TokenIndex token = 0; token < states.size(); ++token) ++counts[states.depth(token)];

  const bool asks = total >= options.dense_below;
  const std::size_t revivals = phase == Phase::prefill    ? total
                               : options.revive_in_decode ? std::min(options.decode_revivals.most(), total)
                                                          : 0;
  KeptBounds entering{total, total};
  StepGrowth growth;
  std::size_t missing = new_tokens;  // tokens without K and V at the layer
  std::size_t running = new_tokens;  // of them those that may be in flight
  for (LayerIndex layer = 0; layer < layer_count; ++layer) {
    const LayerIndex after = layer == 0 ? before_first_layer : layer - 1;
    if (asks) entering = detail::kept_bounds(policy, after, phase, entering, total);
    missing += counts[layer];
    running += revivals;
    growth.key_values += std::min({missing, running, entering.most});
  }
  // The last token is not parked, nor is who enters the last layer; limited revivals may be fewer than the policy says.
  growth.parked = new_tokens - 1;
  if (phase == Phase::prefill) growth.parked = std::min(growth.parked, total - entering.least);
  return growth;
}

/// Throws Error when a step of `new_tokens` might make K, V, Aux Cache and column sums exceed
/// options.memory_budget_bytes. Of a graph that does not count its bytes (CountedGraph) K and V are left out.
template <ModelGraph Graph, PruningPolicy Policy>
void check_memory_budget(const Graph& graph, const Policy& policy, const TokenStates& states, const ColumnSums& sums,
                         std::size_t new_tokens, Phase phase, const SessionOptions& options,
                         std::vector<std::size_t>& counts) {
  const std::size_t budget = options.memory_budget_bytes;
  if (budget == std::numeric_limits<std::size_t>::max()) return;
  const StepGrowth growth = most_growth(policy, states, new_tokens, phase, options, counts);
  std::size_t in_use = states.aux_bytes() + states.size() * sums.token_bytes();
  std::size_t added = growth.parked * states.aux().row_size_bytes() + new_tokens * sums.token_bytes();
  if constexpr (CountedGraph<Graph>) {
    in_use += graph.kv_bytes();
    added += growth.key_values * graph.token_bytes();
  }
  if (in_use <= budget && added <= budget - in_use) return;
  throw Error(ErrorCode::limit, std::to_string(new_tokens) + " new tokens may take " + std::to_string(added) +
                                    " bytes of K, V, Aux Cache and column sums; with the " + std::to_string(in_use) +
                                    " in use that exceeds the session's budget of " + std::to_string(budget));
}

}  // namespace lazyllm::inline v0
