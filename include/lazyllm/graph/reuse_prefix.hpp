// Prefix reuse: what a session has computed for the common start of an old and a new prompt serves the new one.
// Source: this library's.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/graph/session_graph.hpp>
#include <lazyllm/prune/policy.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>

namespace lazyllm::inline v0 {

/// Cuts the session, which holds the tokens `held` (prompt and generated, as run), back to the start that they share
/// with `prompt`, and returns how many tokens that is: prefill (or generate) then runs the prompt from there on. At
/// least the prompt's last token is left to run.
/// Not the same as a fresh session: the start's tokens were pruned, and their K and V computed, for what came after
/// them then; the new step revives whom it selects. With a policy that keeps everything it is the same, bit for bit.
/// Throws Error, before it changes anything, when the prompt is empty or `held` has another length than the session.
template <ModelGraph Graph, PruningPolicy Policy>
requires SessionGraph<Graph> std::size_t reuse_prefix(LazySession<Graph, Policy>& session,
                                                      std::span<const TokenId> held, std::span<const TokenId> prompt) {
  if (prompt.empty()) throw Error(ErrorCode::invalid_argument, "the prompt is empty");
  if (held.size() != session.context_size()) {
    throw Error(ErrorCode::invalid_argument, "prefix reuse: " + std::to_string(held.size()) +
                                                 " tokens are given for a session of " +
                                                 std::to_string(session.context_size()));
  }
  const auto limit = std::min(held.size(), prompt.size() - 1);
  const auto differ = std::ranges::mismatch(held.first(limit), prompt.first(limit));
  const auto common = static_cast<std::size_t>(differ.in1 - held.begin());
  session.truncate(common);
  return common;
}

}  // namespace lazyllm::inline v0
