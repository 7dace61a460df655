// Runs one item under several policies and makes a record of each, continuations compared with the dense model.
// The dense model runs first, just before the policies that it is compared with.
// Source: this library's.
#pragma once

#include <lazyllm/core/types.hpp>
#include <lazyllm/eval/any_policy.hpp>
#include <lazyllm/eval/continuation.hpp>
#include <lazyllm/eval/item.hpp>
#include <lazyllm/eval/item_run.hpp>
#include <lazyllm/eval/record.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace lazyllm::inline v0 {

/// The logits [vocab_size] before each scored token of an item, of the dense model.
using ScoredLogits = std::vector<std::vector<float>>;

/// An item's dense run; `logits` becomes what it said before each scored token.
template <GraphMaker MakeGraph>
ItemResult run_dense(MakeGraph& make_graph, const Item& item, ScoredLogits& logits) {
  logits.clear();
  return run_item(make_graph, PolicySpec{.text = dense_policy}, item,
                  [&](std::span<const float> row, TokenId) { logits.emplace_back(row.begin(), row.end()); });
}

/// The item under a policy, its scored tokens compared with what the dense model said before them.
template <GraphMaker MakeGraph>
Record compare_with_dense(MakeGraph& make_graph, const PolicySpec& spec, const Item& item, const ScoredLogits& dense) {
  ContinuationScorer scorer;
  std::size_t position = 0;
  const ItemResult result = run_item(make_graph, spec, item, [&](std::span<const float> logits, TokenId id) {
    scorer.add(dense[position++], logits, id);
  });
  return {item.key, spec.text, result, scorer.score()};
}

/// Runs the item under the policies that `wanted(spec)` names, in their order, and calls on_record(record) after each;
/// of a continuation the dense model runs in any case, as the others are compared with it.
template <GraphMaker MakeGraph, class Wanted, class OnRecord>
void run_policies(MakeGraph& make_graph, const Item& item, std::span<const PolicySpec> specs, Wanted wanted,
                  OnRecord on_record) {
  const bool continuation = item.key.task == Task::continuation;
  ScoredLogits dense;
  for (const PolicySpec& spec : specs) {
    if (!wanted(spec)) continue;
    const bool is_dense = spec.text == dense_policy;
    if (!continuation) {
      on_record(Record{item.key, spec.text, run_item(make_graph, spec, item)});
      continue;
    }
    if (dense.empty()) {
      const ItemResult result = run_dense(make_graph, item, dense);
      if (is_dense) on_record(Record{item.key, spec.text, result});
    }
    if (!is_dense) on_record(compare_with_dense(make_graph, spec, item, dense));
  }
}

}  // namespace lazyllm::inline v0
