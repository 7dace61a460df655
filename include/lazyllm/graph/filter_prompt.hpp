// GemFilter as a session operation: the first layers read the whole prompt and pick tokens; the model then starts again
// on those alone, which stand at new positions 0, 1, 2, ...
// Source: GemFilter, arXiv 2409.17422, algorithm 1.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/prune/policy.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/top_k_policy.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// The ids of the prompt's tokens that the entry's rule picks after its layer, in their order. Runs that layer and
/// those before it on `graph`, which must be fresh and is used up; start a session on another graph with the result.
/// Throws Error as LazySession and its prefill do.
template <LanguageGraph Graph>
[[nodiscard]] std::vector<TokenId> filter_prompt(Graph& graph, std::span<const TokenId> ids, ScheduleEntry entry) {
  std::vector<TokenId> picked;
  const LayerIndex layer = entry.layer;
  const SessionOptions options{.context_size = std::max<std::size_t>(1, ids.size()),
                               .on_select = [&](const Selection& s) {
                                 for (const TokenIndex token : s.kept) picked.push_back(ids[token]);
                               }};
  LazySession session(graph, TopKPolicy<>(MeanOverHeads{}, StepSchedule({std::move(entry)})), options);
  try {
    session.prefill(ids, [layer](LayerIndex next, std::size_t) { return next <= layer; });
  } catch (const Cancelled&) {  // the layers after it are not needed
  }
  return picked;
}

}  // namespace lazyllm::inline v0
