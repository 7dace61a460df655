// Runs one item under one policy on a fresh session: what the answer scored, and what it cost.
// Turn by turn: prefill the prompt, decode the lead, then score and decode the answer; all tokens are given.
// Source: this library's.
#pragma once

#include <lazyllm/core/types.hpp>
#include <lazyllm/eval/answer_score.hpp>
#include <lazyllm/eval/any_policy.hpp>
#include <lazyllm/eval/item.hpp>
#include <lazyllm/graph/filter_prompt.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/prune/eviction.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <functional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

struct ItemCosts {
  double ttft_ms = 0;                    ///< of the first turn's prompt, with all scoring and selecting
  double total_ms = 0;                   ///< of all turns
  std::size_t prompt_tokens = 0;         ///< of the first turn
  std::size_t rows_computed = 0;         ///< in all prefills, over all layers
  std::size_t rows_dense = 0;            ///< what a dense model computes there
  std::size_t decode_rows_computed = 0;  ///< in all decode steps, over all layers
  std::size_t cache_bytes = 0;           ///< K, V (where the graph tells) and the Aux Cache, at the end
};

struct ItemResult {
  AnswerScore score;  ///< of the last turn
  ItemCosts costs;
};

/// Makes fresh graphs of one model: called with the tokens that the graph must hold.
template <class F>
concept GraphMaker = std::invocable<F&, std::size_t> && LanguageGraph<std::invoke_result_t<F&, std::size_t>> &&
    EvictingGraph<std::invoke_result_t<F&, std::size_t>> && ColumnSumGraph<std::invoke_result_t<F&, std::size_t>>;

/// Called for each scored token of the last turn with the logits [vocab_size] before it.
using OnScored = std::function<void(std::span<const float> logits, TokenId id)>;

/// Throws Error as the session does, for an item without turns, and for turns without an answer.
template <class Policy, GraphMaker MakeGraph>
ItemResult run_item(MakeGraph& make_graph, Policy policy, const SessionOptions& options, const Item& item,
                    const OnScored& on_scored = {});

/// The same under a policy of a comparison; its decode options are used, and GemFilter's first pass counted.
template <GraphMaker MakeGraph>
ItemResult run_item(MakeGraph& make_graph, const PolicySpec& spec, const Item& item, const OnScored& on_scored = {}) {
  SessionOptions options{.context_size = item.context_size(),
                         .revive_in_decode = spec.revive_in_decode,
                         .decode_revivals = spec.decode_revivals};
  if (!spec.filter)
    return run_item(make_graph, WithEviction(AnyPolicy(spec.policy), spec.eviction), options, item, on_scored);

  using Clock = std::chrono::steady_clock;
  Item filtered = item;
  const std::size_t tokens = item.turns.at(0).prompt.size();
  const Clock::time_point start = Clock::now();
  std::size_t layers = 0;
  {
    auto graph = make_graph(tokens);
    layers = graph.layer_count();
    filtered.turns[0].prompt = filter_prompt(graph, item.turns[0].prompt, *spec.filter);
  }
  const double filter_ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  ItemResult result =
      run_item(make_graph, WithEviction(AnyPolicy(spec.policy), spec.eviction), options, filtered, on_scored);
  result.costs.ttft_ms += filter_ms;
  result.costs.total_ms += filter_ms;
  result.costs.rows_computed += (spec.filter->layer + 1) * tokens;
  result.costs.rows_dense += layers * (tokens - filtered.turns[0].prompt.size());
  result.costs.prompt_tokens = tokens;
  return result;
}

template <class Policy, GraphMaker MakeGraph>
ItemResult run_item(MakeGraph& make_graph, Policy policy, const SessionOptions& options, const Item& item,
                    const OnScored& on_scored) {
  using Clock = std::chrono::steady_clock;
  const auto milliseconds = [](Clock::duration time) {
    return std::chrono::duration<double, std::milli>(time).count();
  };
  if (item.turns.empty()) throw Error(ErrorCode::invalid_argument, "an item without turns");
  auto graph = make_graph(options.context_size);
  LazySession session(graph, std::move(policy), options);
  ItemResult result;
  std::size_t prefilled = 0;
  const Clock::time_point start = Clock::now();
  for (const Turn& turn : item.turns) {
    if (turn.answer.empty()) throw Error(ErrorCode::invalid_argument, "an item's turn without an answer");
    const bool last = &turn == &item.turns.back();
    std::span<const float> logits = session.prefill(turn.prompt);
    prefilled += turn.prompt.size();
    if (&turn == &item.turns.front()) result.costs.ttft_ms = milliseconds(Clock::now() - start);
    for (const TokenId id : turn.lead) logits = session.decode(id);
    for (std::size_t i = 0; i < turn.answer.size(); ++i) {
      const TokenId id = turn.answer[i];
      if (last) {
        result.score.add(logits, id);
        if (on_scored) on_scored(logits, id);
        if (i + 1 == turn.answer.size()) break;  // nothing needs the logits after it
      }
      logits = session.decode(id);
    }
  }
  result.costs.total_ms = milliseconds(Clock::now() - start);
  result.costs.prompt_tokens = item.turns.front().prompt.size();
  result.costs.rows_computed = session.totals(Phase::prefill).total_rows();
  result.costs.rows_dense = prefilled * graph.layer_count();
  result.costs.decode_rows_computed = session.totals(Phase::decode).total_rows();
  result.costs.cache_bytes = session.aux_bytes();
  if constexpr (requires { graph.kv_bytes(); }) result.costs.cache_bytes += graph.kv_bytes();
  return result;
}

}  // namespace lazyllm::inline v0
