// One step over all layers of a graph: who runs, who is attended to, who goes on, who is parked, whose keys go. What is
// known of each token: graph/token_states.hpp; how a layer's selection is made: graph/layer_selection.hpp; evictions:
// graph/key_eviction.hpp. Source: LazyLLM, arXiv 2407.14057, section 3; the halves of a layer: docs/design.md.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/key_eviction.hpp>
#include <lazyllm/graph/layer_selection.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/graph/session_options.hpp>
#include <lazyllm/graph/token_states.hpp>
#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/policy.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// The engine's part of a session: the tokens' states, and the step. Allocates nothing after construction.
template <ModelGraph Graph, PruningPolicy Policy>
class StepRunner {
  static_assert(EvictingGraph<Graph> || !EvictionPolicy<Policy>, "the policy evicts, but the graph cannot forget");
  static_assert(ColumnSumGraph<Graph> || !ColumnSumPolicy<Policy>,
                "the policy evicts by the attention of all rows, but the graph does not add it up (ColumnSumGraph)");

 public:
  /// For options.context_size tokens. Throws Error when the policy does not fit the model.
  StepRunner(Graph& graph, Policy policy, const SessionOptions& options);

  /// Runs the next `new_tokens` tokens, whose inputs are in states().new_rows, and returns the last one's output of the
  /// last layer [1, hidden_dim]. After an exception graph and states may disagree.
  ConstRows run(std::size_t new_tokens, Phase phase, const PrefillHook& on_layer, const SessionOptions& options,
                const SessionHistory& history);

  [[nodiscard]] Graph& graph() { return graph_; }
  [[nodiscard]] const Graph& graph() const { return graph_; }
  [[nodiscard]] Policy& policy() { return selection_.policy(); }
  [[nodiscard]] const Policy& policy() const { return selection_.policy(); }
  [[nodiscard]] TokenStates& states() { return states_; }
  [[nodiscard]] const TokenStates& states() const { return states_; }
  [[nodiscard]] ColumnSums& column_sums() { return eviction_.sums(); }
  [[nodiscard]] const ColumnSums& column_sums() const { return eviction_.sums(); }
  /// Of the last step.
  [[nodiscard]] const StepCounters& counters() const { return counters_; }

 private:
  /// What a step was asked to do.
  struct Request {
    Phase phase;
    std::size_t new_tokens;
    const SessionOptions& options;
    const SessionHistory& history;
    bool asks_policy;
  };
  void run_layer(const Request& request, LayerIndex layer);
  void run_whole(const Request& request, LayerIndex layer, std::size_t query_rows);
  void run_split(const Request& request, LayerIndex layer, std::size_t query_rows) requires SplitGraph<Graph>;
  void select(const Request& request, LayerIndex layer, ScoreView scores);
  void collect_keys(LayerIndex layer);
  [[nodiscard]] ScoreView value_norms(LayerIndex layer, Phase phase, std::span<const TokenIndex> tokens);
  [[nodiscard]] bool needs_value_norms(LayerIndex layer, Phase phase) const {
    return detail::asks_for_value_norms(policy(), layer, phase);
  }
  [[nodiscard]] ScoreView scores_view(std::size_t query_rows) {
    return query_rows == 0 ? ScoreView() : ScoreView(scores_.data(), query_rows, shape_.head_count, keys_.size());
  }

  Graph& graph_;
  PruningShape shape_;
  TokenStates states_;
  LayerSelection<Policy> selection_;
  KeyEviction<Policy> eviction_;
  std::vector<TokenIndex> keys_;  // of the layer: who entered it and was not evicted there
  AlignedBuffer<float> scores_;   // [query_rows, heads, keys]
  AlignedBuffer<float> norms_;    // [1, heads, tokens]
  StepCounters counters_;
};

template <ModelGraph Graph, PruningPolicy Policy>
StepRunner<Graph, Policy>::StepRunner(Graph& graph, Policy policy, const SessionOptions& options)
    : graph_(graph),
      shape_{.layer_count = graph.layer_count(),
             .head_count = graph.head_count(),
             .context_capacity = options.context_size},
      states_(options.context_size, shape_.layer_count, graph.hidden_dim(), options.aux_rows),
      selection_(std::move(policy), shape_),
      eviction_(this->policy(), shape_),
      counters_(shape_.layer_count) {
  std::size_t query_rows = 0;
  bool weighs_by_value = false;
  for (LayerIndex layer = 0; layer < shape_.layer_count; ++layer) {
    for (const Phase phase : {Phase::prefill, Phase::decode}) {
      weighs_by_value = weighs_by_value || needs_value_norms(layer, phase);
      query_rows = std::max({query_rows, std::size_t{this->policy().query_rows(layer, phase)},
                             eviction_.query_rows(this->policy(), layer, phase)});
    }
  }
  if (weighs_by_value && !ValueNormGraph<Graph>) {
    throw Error(ErrorCode::unsupported, "the policy weighs by values, but the graph does not tell their norms");
  }
  if (weighs_by_value) norms_ = AlignedBuffer<float>(shape_.head_count * options.context_size);
  keys_.reserve(options.context_size);
  scores_ = AlignedBuffer<float>(std::min(query_rows, options.context_size) * shape_.head_count * options.context_size);
}

template <ModelGraph Graph, PruningPolicy Policy>
ConstRows StepRunner<Graph, Policy>::run(std::size_t new_tokens, Phase phase, const PrefillHook& on_layer,
                                         const SessionOptions& options, const SessionHistory& history) {
  states_.add(new_tokens);
  counters_.revived = 0;
  const Request request{.phase = phase,
                        .new_tokens = new_tokens,
                        .options = options,
                        .history = history,
                        .asks_policy = states_.size() >= options.dense_below};
  selection_.start(states_.size());
  eviction_.start(states_.size(), new_tokens);
  select(request, before_first_layer, {});
  states_.park_dropped(selection_.entering(), before_first_layer, false);
  for (LayerIndex layer = 0; layer < shape_.layer_count; ++layer) {
    for (const PrefillHook* hook : {&options.on_prefill_layer, &on_layer}) {
      if (phase == Phase::prefill && *hook && !(*hook)(layer, shape_.layer_count)) throw Cancelled();
    }
    run_layer(request, layer);
  }
  return states_.hidden().middle_rows(states_.rows().size() - 1, 1);
}

template <ModelGraph Graph, PruningPolicy Policy>
void StepRunner<Graph, Policy>::run_layer(const Request& request, LayerIndex layer) {
  counters_.revived += states_.gather(selection_.entering(), layer);
  counters_.rows_computed[layer] = states_.rows().size();
  collect_keys(layer);
  std::size_t pruning_rows = 0, eviction_rows = 0;
  if (request.asks_policy) {
    pruning_rows = policy().query_rows(layer, request.phase);
    eviction_rows = eviction_.query_rows(policy(), layer, request.phase);
  }
  // Query rows are new tokens: with at most as many as these, the rows at the end are no revived ones.
  const std::size_t wanted = std::min(std::max(pruning_rows, eviction_rows), request.new_tokens);
  const std::size_t query_rows = states_.consecutive_tail(wanted);
  if constexpr (SplitGraph<Graph>) {
    const bool prunes_before_work = pruning_rows != 0 && !eviction_.evicts_at(layer);
    if (prunes_before_work || states_.any_unfinished(selection_.entering(), layer)) {
      run_split(request, layer, query_rows);
      return;
    }
  }
  run_whole(request, layer, query_rows);
}

/// keys_ becomes who entered the layer and has K and V there, or gets them now.
template <ModelGraph Graph, PruningPolicy Policy>
void StepRunner<Graph, Policy>::collect_keys(LayerIndex layer) {
  keys_.assign(selection_.entering().begin(), selection_.entering().end());
  if (states_.evicted_count(layer) == 0) return;
  std::erase_if(keys_, [&](TokenIndex token) { return states_.is_evicted(layer, token); });
}

/// A layer as a whole, then the selection: who does not go on is parked with the layer's output.
template <ModelGraph Graph, PruningPolicy Policy>
void StepRunner<Graph, Policy>::run_whole(const Request& request, LayerIndex layer, std::size_t query_rows) {
  const bool last_layer = layer + 1 == shape_.layer_count;
  const ScoreView scores = scores_view(query_rows);
  LayerStep step{.layer = layer,
                 .rows = states_.rows(),
                 .keys = keys_,
                 .outputs = last_layer ? std::max<std::size_t>(1, query_rows) : states_.rows().size(),
                 .hidden = states_.hidden(),
                 .scores = scores};
  eviction_.run_layer(graph_, step);
  counters_.rows_finished[layer] = step.outputs;
  states_.mark_computed(layer);
  select(request, layer, scores);
  if (!last_layer) states_.park_dropped(selection_.entering(), layer, false);
  eviction_.apply(graph_, layer, states_);
}

/// K and V, the selection, then the rest of the layer for those who go on: rows in flight, and tokens that an earlier
/// step parked half-way. Who does not go on is parked with the layer's input.
template <ModelGraph Graph, PruningPolicy Policy>
void StepRunner<Graph, Policy>::run_split(const Request& request, LayerIndex layer,
                                          std::size_t query_rows) requires SplitGraph<Graph> {
  const bool last_layer = layer + 1 == shape_.layer_count;
  LayerStep step{.layer = layer,
                 .rows = states_.rows(),
                 .keys = keys_,
                 .outputs = states_.rows().size(),
                 .hidden = states_.hidden(),
                 .scores = scores_view(query_rows)};
  graph_.project_kv(step);
  states_.mark_computed(layer);
  if (query_rows != 0) graph_.score(step);
  select(request, layer, step.scores);
  if (last_layer) {
    step.rows = step.rows.last(1);
    step.hidden = step.hidden.middle_rows(states_.rows().size() - 1, 1);
  } else {
    states_.park_dropped(selection_.entering(), layer, true);
    counters_.revived += states_.gather_unfinished(selection_.entering(), layer);
    step.rows = states_.rows();
    step.hidden = states_.hidden();
  }
  step.outputs = step.rows.size();
  step.scores = {};
  graph_.finish(step);
  counters_.rows_finished[layer] = step.outputs;
  eviction_.apply(graph_, layer, states_);
}

/// Whom the policy lets into the next layer, and whose keys stay in this one, by the scores over keys_.
template <ModelGraph Graph, PruningPolicy Policy>
void StepRunner<Graph, Policy>::select(const Request& request, LayerIndex layer, ScoreView scores) {
  if (request.asks_policy && layer != before_first_layer) {
    const auto norms_of = [&](std::span<const TokenIndex> tokens) { return value_norms(layer, request.phase, tokens); };
    eviction_.decide(policy(), layer, request.phase, keys_, scores, norms_of, states_, request.history);
  }
  if (const std::size_t all = scores.query_rows(); all != 0) {
    const std::size_t rows = std::min<std::size_t>(all, policy().query_rows(layer, request.phase));
    scores = rows == 0 ? ScoreView() : scores.middle_query_rows(all - rows, rows);
  }
  ScoreView norms;
  if (!scores.empty()) norms = value_norms(layer, request.phase, keys_);
  const std::span<const TokenIndex> entering = selection_.entering();
  if (keys_.size() != entering.size()) {
    for (ScoreView* const view : {&scores, &norms}) {
      if (!view->empty()) *view = spread_scores(*view, keys_, entering, view->data());
    }
  }
  selection_.select(layer, request.phase, scores, norms, states_, request.options, request.history);
}

/// Norms of the tokens' values at the layer, where the policy needs them; valid until the next call.
template <ModelGraph Graph, PruningPolicy Policy>
ScoreView StepRunner<Graph, Policy>::value_norms(LayerIndex layer, Phase phase, std::span<const TokenIndex> tokens) {
  if constexpr (ValueNormGraph<Graph>) {
    if (needs_value_norms(layer, phase)) {
      graph_.value_norms(layer, tokens, Rows(norms_.data(), shape_.head_count, tokens.size()));
      return {norms_.data(), 1, shape_.head_count, tokens.size()};
    }
  }
  return {};
}

}  // namespace lazyllm::inline v0
