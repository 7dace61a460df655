// The LazyLLM engine: drives any model graph layer by layer, lets the policy choose who enters the next layer, parks
// the pruned tokens' hidden states in the Aux Cache and revives them when a later step selects them again. What is
// known of each token: graph/token_states.hpp; how a layer's selection is made: graph/layer_selection.hpp.
// Source: LazyLLM, arXiv 2407.14057, section 3; the halves of a layer: docs/design.md.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/layer_selection.hpp>
#include <lazyllm/graph/memory_budget.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/graph/saved_session.hpp>
#include <lazyllm/graph/session_graph.hpp>
#include <lazyllm/graph/session_options.hpp>
#include <lazyllm/graph/token_states.hpp>
#include <lazyllm/prune/policy.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// One sequence on one graph under one policy. Not thread-safe: one session per thread; sessions may share weights.
/// The graph must be fresh (no K and V) and outlive the session. Decode steps allocate nothing.
template <ModelGraph Graph, PruningPolicy Policy>
class LazySession {
 public:
  /// Throws Error when the policy names layers that the graph lacks or the context size is 0.
  LazySession(Graph& graph, Policy policy, SessionOptions options);

  /// Runs the prompt (or appends to it). Returns the logits [vocab_size] of the token after it, valid until the next
  /// step. Throws Error for an empty prompt, an id outside the vocabulary, or more tokens than the context
  /// or the byte budget holds; nothing ran then. `on_layer` is called for this prefill, after the session's own hook.
  std::span<const float> prefill(std::span<const TokenId> ids,
                                 const PrefillHook& on_layer = {}) requires LanguageGraph<Graph> {
    return language_step(ids, Phase::prefill, on_layer);
  }
  /// Runs one generated token. Returns the logits of the next. Throws Error as prefill does.
  std::span<const float> decode(TokenId id) requires LanguageGraph<Graph> {
    return language_step({&id, 1}, Phase::decode, {});
  }
  /// For graphs without a vocabulary: runs new tokens given as inputs of layer 0, [tokens, hidden_dim], and returns the
  /// last token's output of the last layer [hidden_dim]. Throws Error for no tokens or more than the context holds.
  std::span<const float> step(ConstRows inputs, Phase phase);

  /// Forgets the tokens from index `tokens` on; the others keep what was computed for them. Throws Error for more
  /// tokens than there are.
  void truncate(std::size_t tokens) requires SessionGraph<Graph>;
  /// A session on `fresh`, a graph of the same weights without K and V, that goes on as this one would, bit for bit:
  /// same options, a copy of the policy and of all state. Throws Error for a graph that computes other bits.
  [[nodiscard]] LazySession fork(Graph& fresh) const requires SessionGraph<Graph> && std::copy_constructible<Policy>;
  /// All state but the policy's, as bytes that load takes: K and V, Aux Cache, counters.
  [[nodiscard]] std::vector<std::byte> save() const requires SessionGraph<Graph> {
    check_whole();
    return detail::save_session(graph_, states_, history_);
  }
  /// Becomes the session that gave the bytes, and goes on as it would, bit for bit, under an equal policy and options.
  /// Throws Error, with nothing changed, for damaged bytes, those of another model, kernel, type of K and V or version,
  /// and more tokens than the context holds.
  void load(std::span<const std::byte> bytes) requires SessionGraph<Graph>;

  [[nodiscard]] std::size_t context_size() const { return states_.size(); }             ///< tokens so far
  [[nodiscard]] std::size_t context_capacity() const { return options_.context_size; }  ///< most tokens it holds
  [[nodiscard]] std::size_t step_count() const { return history_.steps; }               ///< steps so far
  /// Layers at which the token has K and V: 0 .. depth - 1.
  [[nodiscard]] std::size_t depth(TokenIndex token) const { return states_.depth(token); }
  [[nodiscard]] const StepCounters& last_step() const { return last_; }
  [[nodiscard]] const StepCounters& totals(Phase phase) const { return history_.totals(phase); }
  [[nodiscard]] std::size_t aux_bytes() const { return states_.aux_bytes(); }
  [[nodiscard]] Graph& graph() { return graph_; }
  [[nodiscard]] const Graph& graph() const { return graph_; }
  [[nodiscard]] Policy& policy() { return selection_.policy(); }

 private:
  std::span<const float> language_step(std::span<const TokenId> ids, Phase phase, const PrefillHook& on_layer);
  void check_whole() const;
  void check_room(std::size_t new_tokens, Phase phase);
  ConstRows run(std::size_t new_tokens, Phase phase, const PrefillHook& on_layer);
  void run_whole(LayerIndex layer, Phase phase, std::size_t query_rows);
  void run_split(LayerIndex layer, Phase phase, std::size_t query_rows) requires SplitGraph<Graph>;
  void select(LayerIndex layer, Phase phase, ScoreView scores) {
    selection_.select(layer, phase, scores, states_, options_, history_);
  }
  [[nodiscard]] ScoreView scores_view(std::size_t query_rows) {
    const std::size_t keys = selection_.entering().size();
    return query_rows == 0 ? ScoreView() : ScoreView(scores_.data(), query_rows, graph_.head_count(), keys);
  }

  Graph& graph_;
  SessionOptions options_;
  std::size_t layer_count_;
  TokenStates states_;
  LayerSelection<Policy> selection_;
  std::vector<TokenIndex> keys_;           // who entered a layer whose selection has been made already
  std::vector<std::size_t> depth_counts_;  // scratch of the budget's check
  AlignedBuffer<float> scores_;            // [query_rows, heads, entering]
  AlignedBuffer<float> logits_;
  SessionHistory history_;
  StepCounters last_;
  bool interrupted_ = false;  // a step ended in an exception: graph and session may disagree
};

namespace detail {

inline std::size_t checked_context_size(std::size_t tokens) {
  if (tokens == 0) throw Error(ErrorCode::invalid_argument, "a session needs a context size of at least 1 token");
  return tokens;
}

}  // namespace detail

template <ModelGraph Graph, PruningPolicy Policy>
LazySession<Graph, Policy>::LazySession(Graph& graph, Policy policy, SessionOptions options)
    : graph_(graph),
      options_(std::move(options)),
      layer_count_(graph.layer_count()),
      states_(detail::checked_context_size(options_.context_size), layer_count_, graph.hidden_dim(), options_.aux_rows),
      selection_(
          std::move(policy),
          {.layer_count = layer_count_, .head_count = graph.head_count(), .context_capacity = options_.context_size}),
      history_(layer_count_),
      last_(layer_count_) {
  const std::size_t capacity = options_.context_size;
  std::size_t query_rows = 0;
  for (LayerIndex layer = 0; layer < layer_count_; ++layer) {
    for (const Phase phase : {Phase::prefill, Phase::decode}) {
      query_rows = std::max<std::size_t>(query_rows, this->policy().query_rows(layer, phase));
    }
  }
  keys_.reserve(capacity);
  depth_counts_.resize(layer_count_ + 1);
  scores_ = AlignedBuffer<float>(std::min(query_rows, capacity) * graph.head_count() * capacity);
  if constexpr (LanguageGraph<Graph>) logits_ = AlignedBuffer<float>(graph.vocab_size());
}

template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::check_whole() const {
  if (interrupted_)
    throw Error(ErrorCode::invalid_argument, "this session's last step was interrupted: start a new one");
}

template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::check_room(std::size_t new_tokens, Phase phase) {
  check_whole();
  if (new_tokens == 0) throw Error(ErrorCode::invalid_argument, "the prompt is empty");
  if (new_tokens > options_.context_size - states_.size()) {
    throw Error(ErrorCode::limit, std::to_string(new_tokens) + " new tokens after " + std::to_string(states_.size()) +
                                      " exceed the session's context of " + std::to_string(options_.context_size));
  }
  check_memory_budget(graph_, policy(), states_, new_tokens, phase, options_, depth_counts_);
}

template <ModelGraph Graph, PruningPolicy Policy>
std::span<const float> LazySession<Graph, Policy>::language_step(std::span<const TokenId> ids, Phase phase,
                                                                 const PrefillHook& on_layer) {
  check_room(ids.size(), phase);
  for (const TokenId id : ids) {
    if (id < 0 || static_cast<std::size_t>(id) >= graph_.vocab_size()) {
      throw Error(ErrorCode::invalid_argument, "token id " + std::to_string(id) + " is outside the vocabulary of " +
                                                   std::to_string(graph_.vocab_size()) + " tokens");
    }
  }
  graph_.embed(ids, states_.new_rows(ids.size()));
  const ConstRows output = run(ids.size(), phase, on_layer);
  graph_.project(output, Rows(logits_.data(), 1, logits_.size()));
  return logits_.span();
}

template <ModelGraph Graph, PruningPolicy Policy>
std::span<const float> LazySession<Graph, Policy>::step(ConstRows inputs, Phase phase) {
  check_room(inputs.rows(), phase);
  const Rows hidden = states_.new_rows(inputs.rows());
  LAZYLLM_EXPECTS(inputs.cols() == hidden.cols());
  for (std::size_t r = 0; r < inputs.rows(); ++r) std::ranges::copy(inputs.row(r), hidden.row(r).begin());
  return run(inputs.rows(), phase, {}).row(0);
}

/// One step over all layers; the new tokens' inputs are in states_. Returns the last token's output [1, hidden_dim].
template <ModelGraph Graph, PruningPolicy Policy>
ConstRows LazySession<Graph, Policy>::run(std::size_t new_tokens, Phase phase, const PrefillHook& on_layer) {
  interrupted_ = true;
  states_.add(new_tokens);
  if (phase == Phase::prefill) history_.prompt_size = states_.size();
  last_.revived = 0;
  selection_.start(states_.size());
  select(before_first_layer, phase, {});
  states_.park_dropped(selection_.entering(), before_first_layer, false);

  for (LayerIndex layer = 0; layer < layer_count_; ++layer) {
    for (const PrefillHook* hook : {&std::as_const(options_.on_prefill_layer), &on_layer}) {
      if (phase == Phase::prefill && *hook && !(*hook)(layer, layer_count_)) throw Cancelled();
    }
    last_.revived += states_.gather(selection_.entering(), layer);
    last_.rows_computed[layer] = states_.rows().size();
    // Query rows are new tokens: with at most as many as these, the rows at the end are no revived ones.
    const bool asks = states_.size() >= options_.dense_below;
    const std::size_t wanted = asks ? std::min<std::size_t>(policy().query_rows(layer, phase), new_tokens) : 0;
    const std::size_t query_rows = states_.consecutive_tail(wanted);
    if constexpr (SplitGraph<Graph>) {
      if (query_rows != 0 || states_.any_unfinished(selection_.entering(), layer)) {
        run_split(layer, phase, query_rows);
        continue;
      }
    }
    run_whole(layer, phase, query_rows);
  }

  history_.totals(phase).add(last_);
  ++history_.steps;
  interrupted_ = false;
  return states_.hidden().middle_rows(states_.rows().size() - 1, 1);
}

/// A layer as a whole, then the selection: who does not go on is parked with the layer's output.
template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::run_whole(LayerIndex layer, Phase phase, std::size_t query_rows) {
  const bool last_layer = layer + 1 == layer_count_;
  const ScoreView scores = scores_view(query_rows);
  const std::size_t outputs = last_layer ? std::max<std::size_t>(1, query_rows) : states_.rows().size();
  graph_.run_layer(LayerStep{.layer = layer,
                             .rows = states_.rows(),
                             .keys = selection_.entering(),
                             .outputs = outputs,
                             .hidden = states_.hidden(),
                             .scores = scores});
  last_.rows_finished[layer] = outputs;
  states_.mark_computed(layer);
  select(layer, phase, scores);
  if (!last_layer) states_.park_dropped(selection_.entering(), layer, false);
}

/// K and V, the selection, then the rest of the layer for those who go on: rows in flight, and tokens that an earlier
/// step parked half-way. Who does not go on is parked with the layer's input.
template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::run_split(LayerIndex layer, Phase phase,
                                           std::size_t query_rows) requires SplitGraph<Graph> {
  const bool last_layer = layer + 1 == layer_count_;
  LayerStep step{.layer = layer,
                 .rows = states_.rows(),
                 .keys = selection_.entering(),
                 .outputs = states_.rows().size(),
                 .hidden = states_.hidden(),
                 .scores = scores_view(query_rows)};
  graph_.project_kv(step);
  states_.mark_computed(layer);
  if (query_rows != 0) graph_.score(step);
  keys_.assign(step.keys.begin(), step.keys.end());
  select(layer, phase, step.scores);
  if (last_layer) {
    step.rows = step.rows.last(1);
    step.hidden = step.hidden.middle_rows(states_.rows().size() - 1, 1);
  } else {
    states_.park_dropped(selection_.entering(), layer, true);
    last_.revived += states_.gather_unfinished(selection_.entering(), layer);
    step.rows = states_.rows();
    step.hidden = states_.hidden();
  }
  step.keys = keys_;
  step.outputs = step.rows.size();
  step.scores = {};
  graph_.finish(step);
  last_.rows_finished[layer] = step.outputs;
}

template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::truncate(std::size_t tokens) requires SessionGraph<Graph> {
  check_whole();
  if (tokens > states_.size()) {
    throw Error(ErrorCode::invalid_argument, "cannot cut a session of " + std::to_string(states_.size()) +
                                                 " tokens back to " + std::to_string(tokens));
  }
  graph_.truncate(tokens);
  states_.truncate(tokens);
  history_.prompt_size = std::min(history_.prompt_size, tokens);
}

template <ModelGraph Graph, PruningPolicy Policy>
LazySession<Graph, Policy> LazySession<Graph, Policy>::fork(Graph& fresh) const requires
    SessionGraph<Graph> && std::copy_constructible<Policy> {
  check_whole();
  LazySession result(fresh, selection_.policy(), options_);
  detail::copy_session(graph_, states_, fresh, result.states_);
  result.history_ = history_;
  return result;
}

template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::load(std::span<const std::byte> bytes) requires SessionGraph<Graph> {
  const detail::SavedSession saved(bytes, std::as_const(graph_), states_.aux(), options_.context_size);
  SessionHistory history = saved.history();
  interrupted_ = true;
  graph_.truncate(0);
  states_.truncate(0);
  saved.restore(graph_, states_);
  history_ = std::move(history);
  interrupted_ = false;
}

}  // namespace lazyllm::inline v0
