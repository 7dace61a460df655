// The LazyLLM engine: drives any model graph layer by layer, lets the policy choose who enters the next layer, parks
// the pruned tokens' hidden states in the Aux Cache and revives them when a later step selects them again. How a step
// runs: graph/step_runner.hpp. Source: LazyLLM, arXiv 2407.14057, section 3.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/memory_budget.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/graph/saved_session.hpp>
#include <lazyllm/graph/session_graph.hpp>
#include <lazyllm/graph/session_options.hpp>
#include <lazyllm/graph/step_runner.hpp>
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
/// The graph must be fresh (no K and V) and outlive the session. Decode steps allocate nothing. A policy that is an
/// EvictionPolicy, too, needs an EvictingGraph; a ColumnSumPolicy a ColumnSumGraph.
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
  /// All state but the policy's, as bytes that load takes: K and V, Aux Cache, column sums, counters.
  [[nodiscard]] std::vector<std::byte> save() const requires SessionGraph<Graph> {
    check_whole();
    return detail::save_session(graph(), states(), runner_.column_sums(), history_);
  }
  /// Becomes the session that gave the bytes, and goes on as it would, bit for bit, under an equal policy and options.
  /// Throws Error, with nothing changed, for damaged bytes, those of another model, kernel, type of K and V or version,
  /// more tokens than the context holds, and without the column sums that the policy evicts by.
  void load(std::span<const std::byte> bytes) requires SessionGraph<Graph>;

  [[nodiscard]] std::size_t context_size() const { return states().size(); }            ///< tokens so far
  [[nodiscard]] std::size_t context_capacity() const { return options_.context_size; }  ///< most tokens it holds
  [[nodiscard]] std::size_t step_count() const { return history_.steps; }               ///< steps so far
  /// Layers that the token has run, 0 .. depth - 1; it has K and V there where it was not evicted.
  [[nodiscard]] std::size_t depth(TokenIndex token) const { return states().depth(token); }
  [[nodiscard]] bool has_key(LayerIndex layer, TokenIndex token) const { return states().has_key(layer, token); }
  [[nodiscard]] const StepCounters& last_step() const { return runner_.counters(); }
  [[nodiscard]] const StepCounters& totals(Phase phase) const { return history_.totals(phase); }
  [[nodiscard]] std::size_t aux_bytes() const { return states().aux_bytes(); }
  [[nodiscard]] Graph& graph() { return runner_.graph(); }
  [[nodiscard]] const Graph& graph() const { return runner_.graph(); }
  [[nodiscard]] Policy& policy() { return runner_.policy(); }

 private:
  std::span<const float> language_step(std::span<const TokenId> ids, Phase phase, const PrefillHook& on_layer);
  void check_whole() const;
  void check_room(std::size_t new_tokens, Phase phase);
  ConstRows run(std::size_t new_tokens, Phase phase, const PrefillHook& on_layer);
  [[nodiscard]] TokenStates& states() { return runner_.states(); }
  [[nodiscard]] const TokenStates& states() const { return runner_.states(); }

  SessionOptions options_;
  StepRunner<Graph, Policy> runner_;
  SessionHistory history_;
  AlignedBuffer<float> logits_;
  std::vector<std::size_t> depth_counts_;  // scratch of the budget's check
  bool interrupted_ = false;               // a step ended in an exception: graph and session may disagree
};

namespace detail {

inline const SessionOptions& checked_options(const SessionOptions& options) {
  if (options.context_size == 0)
    throw Error(ErrorCode::invalid_argument, "a session needs a context size of at least 1 token");
  return options;
}

}  // namespace detail

template <ModelGraph Graph, PruningPolicy Policy>
LazySession<Graph, Policy>::LazySession(Graph& graph, Policy policy, SessionOptions options)
    : options_(std::move(options)),
      runner_(graph, std::move(policy), detail::checked_options(options_)),
      history_(graph.layer_count()),
      depth_counts_(graph.layer_count() + 1) {
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
  if (new_tokens > options_.context_size - states().size()) {
    throw Error(ErrorCode::limit, std::to_string(new_tokens) + " new tokens after " + std::to_string(states().size()) +
                                      " exceed the session's context of " + std::to_string(options_.context_size));
  }
  check_memory_budget(graph(), policy(), states(), runner_.column_sums(), new_tokens, phase, options_, depth_counts_);
}

template <ModelGraph Graph, PruningPolicy Policy>
std::span<const float> LazySession<Graph, Policy>::language_step(std::span<const TokenId> ids, Phase phase,
                                                                 const PrefillHook& on_layer) {
  check_room(ids.size(), phase);
  for (const TokenId id : ids) {
    if (id < 0 || static_cast<std::size_t>(id) >= graph().vocab_size()) {
      throw Error(ErrorCode::invalid_argument, "token id " + std::to_string(id) + " is outside the vocabulary of " +
                                                   std::to_string(graph().vocab_size()) + " tokens");
    }
  }
  graph().embed(ids, states().new_rows(ids.size()));
  const ConstRows output = run(ids.size(), phase, on_layer);
  graph().project(output, Rows(logits_.data(), 1, logits_.size()));
  return logits_.span();
}

template <ModelGraph Graph, PruningPolicy Policy>
std::span<const float> LazySession<Graph, Policy>::step(ConstRows inputs, Phase phase) {
  check_room(inputs.rows(), phase);
  const Rows hidden = states().new_rows(inputs.rows());
  LAZYLLM_EXPECTS(inputs.cols() == hidden.cols());
  for (std::size_t r = 0; r < inputs.rows(); ++r) std::ranges::copy(inputs.row(r), hidden.row(r).begin());
  return run(inputs.rows(), phase, {}).row(0);
}

template <ModelGraph Graph, PruningPolicy Policy>
ConstRows LazySession<Graph, Policy>::run(std::size_t new_tokens, Phase phase, const PrefillHook& on_layer) {
  interrupted_ = true;
  if (phase == Phase::prefill) history_.prompt_size = states().size() + new_tokens;
  const ConstRows output = runner_.run(new_tokens, phase, on_layer, options_, history_);
  history_.totals(phase).add(last_step());
  ++history_.steps;
  interrupted_ = false;
  return output;
}

template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::truncate(std::size_t tokens) requires SessionGraph<Graph> {
  check_whole();
  if (tokens > states().size()) {
    throw Error(ErrorCode::invalid_argument, "cannot cut a session of " + std::to_string(states().size()) +
                                                 " tokens back to " + std::to_string(tokens));
  }
  graph().truncate(tokens);
  states().truncate(tokens);
  history_.prompt_size = std::min(history_.prompt_size, tokens);
}

template <ModelGraph Graph, PruningPolicy Policy>
LazySession<Graph, Policy> LazySession<Graph, Policy>::fork(Graph& fresh) const requires
    SessionGraph<Graph> && std::copy_constructible<Policy> {
  check_whole();
  LazySession result(fresh, runner_.policy(), options_);
  detail::copy_session(graph(), states(), runner_.column_sums(), fresh, result.states(), result.runner_.column_sums());
  result.history_ = history_;
  return result;
}

template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::load(std::span<const std::byte> bytes) requires SessionGraph<Graph> {
  const detail::SavedSession saved(bytes, std::as_const(graph()), states().aux(), runner_.column_sums(),
                                   options_.context_size);
  SessionHistory history = saved.history();
  interrupted_ = true;
  graph().truncate(0);
  states().truncate(0);
  saved.restore(graph(), states(), runner_.column_sums());
  history_ = std::move(history);
  interrupted_ = false;
}

}  // namespace lazyllm::inline v0
