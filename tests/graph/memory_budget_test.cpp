// The byte budget of a session, on the naive graph of tests/support.
#include <lazyllm/core/error.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/graph/memory_budget.hpp>
#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/top_k_policy.hpp>

#include <doctest/doctest.h>

#include "support/build_kind.hpp"
#include "support/naive_graph.hpp"
#include "support/random_case.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

static_assert(CountedGraph<NaiveGraph>);

struct Uncounted {
  [[nodiscard]] static std::size_t layer_count() { return 1; }
  [[nodiscard]] static std::size_t head_count() { return 1; }
  [[nodiscard]] static std::size_t hidden_dim() { return 1; }
  static void run_layer(const LayerStep&) {}
};
static_assert(ModelGraph<Uncounted> && !CountedGraph<Uncounted>);

struct KeepsSome {
  [[nodiscard]] static std::size_t query_rows(LayerIndex, Phase) { return 0; }
  static void select(const PruneContext& context, std::span<bool> keep) {
    for (std::size_t i = 0; i < keep.size(); ++i) keep[i] = context.tokens[i] % 2 == 0;
  }
};
static_assert(PruningPolicy<KeepsSome> && !BoundedPolicy<KeepsSome>);

using Logits = std::vector<float>;

Logits run(auto& session, const Turn& turn) {
  const std::vector<TokenId> ids(turn.ids.begin(), turn.ids.end());
  if (turn.cut_to < session.context_size()) session.truncate(turn.cut_to);
  const std::span<const float> logits = turn.decode ? session.decode(ids[0]) : session.prefill(ids);
  return {logits.begin(), logits.end()};
}

/// A model of at least 3 layers.
NaiveLlama deep_model() {
  Random random(21);
  NaiveLlama model = random_llama(random);
  while (model.layers.size() < 3) model = random_llama(random);
  return model;
}

/// Whether a fresh session of this budget takes a prompt of `tokens`.
template <PruningPolicy Policy>
bool takes(const NaiveLlama& model, const Policy& policy, std::size_t tokens, std::size_t budget,
           std::size_t dense_below = 0) {
  NaiveGraph graph(model);
  SessionOptions options{.context_size = 40};
  options.dense_below = dense_below;
  options.memory_budget_bytes = budget;
  LazySession session(graph, policy, options);
  try {
    session.prefill(std::vector<TokenId>(tokens, 1));
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::limit);
    CHECK(session.context_size() == 0);
    CHECK(graph.kv_bytes() == 0);
    return false;
  }
  CHECK(graph.kv_bytes() + session.aux_bytes() <= budget);
  return true;
}

}  // namespace

TEST_CASE("A dense prompt needs its K and V, to the byte") {
  const NaiveLlama model = deep_model();
  const std::size_t bytes = 9 * model.layers.size() * NaiveGraph(model).token_bytes();
  CHECK(takes(model, KeepAll{}, 9, bytes));
  CHECK_FALSE(takes(model, KeepAll{}, 9, bytes - 1));
}

TEST_CASE("A pruned prompt needs K and V of those that the schedule keeps, and rows for the others, to the byte") {
  const NaiveLlama model = deep_model();
  const TopKPolicy<> policy(MeanOverHeads{}, parse_schedule("0:5"));
  const std::size_t bytes =
      (9 + 5 * (model.layers.size() - 1)) * NaiveGraph(model).token_bytes() + 4 * model.hidden_dim * sizeof(float);
  CHECK(takes(model, policy, 9, bytes));
  CHECK_FALSE(takes(model, policy, 9, bytes - 1));
}

TEST_CASE("A prompt short enough to stay dense is counted as a dense one") {
  const NaiveLlama model = deep_model();
  const TopKPolicy<> policy(MeanOverHeads{}, parse_schedule("0:5"));
  const std::size_t bytes = 9 * model.layers.size() * NaiveGraph(model).token_bytes();
  CHECK(takes(model, policy, 9, bytes, 10));
  CHECK_FALSE(takes(model, policy, 9, bytes - 1, 10));
}

TEST_CASE("Of a policy that does not tell how many it keeps, all are counted, with a row for all but one") {
  const NaiveLlama model = deep_model();
  const std::size_t bytes =
      9 * model.layers.size() * NaiveGraph(model).token_bytes() + 8 * model.hidden_dim * sizeof(float);
  CHECK(takes(model, KeepsSome{}, 9, bytes));
  CHECK_FALSE(takes(model, KeepsSome{}, 9, bytes - 1));
}

TEST_CASE("Column sums of all layers and heads are counted, to the byte") {
  const NaiveLlama model = deep_model();
  const WithEviction policy(KeepAll{}, parse_eviction("h2o:30"));
  const NaiveGraph graph(model);
  const std::size_t bytes = 9 * model.layers.size() * (graph.token_bytes() + graph.head_count() * sizeof(float));
  CHECK(takes(model, policy, 9, bytes));
  CHECK_FALSE(takes(model, policy, 9, bytes - 1));
}

TEST_CASE("The error names what the step may take, what is in use and the budget; the session goes on") {
  const NaiveLlama model = deep_model();
  NaiveGraph graph(model), twin_graph(model);
  const std::size_t token = model.layers.size() * graph.token_bytes();
  SessionOptions options{.context_size = 40};
  LazySession twin(twin_graph, KeepAll{}, options);
  options.memory_budget_bytes = 7 * token;
  LazySession session(graph, KeepAll{}, options);
  const Turn prompt{.decode = false, .ids = {1, 2, 3, 4, 5}}, more{.decode = false, .ids = {6, 7, 8}};
  CHECK(run(session, prompt) == run(twin, prompt));
  CHECK_THROWS_WITH_AS(
      run(session, more),
      ("3 new tokens may take " + std::to_string(3 * token) + " bytes of K, V, Aux Cache and column sums; with the " +
       std::to_string(5 * token) + " in use that exceeds the session's budget of " + std::to_string(7 * token))
          .c_str(),
      Error);
  for (const std::size_t id : {4u, 2u}) {
    const Turn decode{.decode = true, .ids = {id}};
    CHECK(run(session, decode) == run(twin, decode));
  }
  CHECK_THROWS_AS(run(session, Turn{.decode = true, .ids = {1}}), Error);
  session.truncate(5);
  CHECK_NOTHROW(run(session, Turn{.decode = true, .ids = {1}}));
}

TEST_CASE(
    "A session never holds more bytes than its budget, at no moment of random runs, and what runs has the same bits") {
  std::size_t refused = 0, ran = 0;
  const std::uint64_t cases = sanitized_build ? 60 : 400;
  for (std::uint64_t seed = 0; seed < cases; ++seed) {
    CAPTURE(seed);
    const RandomCase c = random_case(seed);
    Random random(seed);
    const TopKPolicy<> policy(MeanOverHeads{}, parse_schedule(c.prefill_text), parse_schedule(c.decode_text));
    SessionOptions options{.context_size = c.context_size};
    options.revive_in_decode = c.mode != NaiveDecode::cached;
    options.decode_revivals = revival_budget(c.engine);
    options.dense_below = c.engine.dense_below;
    options.aux_rows = static_cast<RowFormat>(seed % 4);
    NaiveGraph graph(c.model), free_graph(c.model);
    LazySession unlimited(free_graph, policy, options);
    const std::size_t dense = c.context_size * c.model.layers.size() * graph.token_bytes();
    options.memory_budget_bytes = dense * random.integer(20, 100) / 100;
    LazySession<NaiveGraph, TopKPolicy<>>* watched = nullptr;
    std::size_t most = 0;
    const auto look = [&] { most = std::max(most, graph.kv_bytes() + watched->aux_bytes()); };
    options.on_select = [&](const Selection&) { look(); };
    LazySession session(graph, policy, options);
    watched = &session;
    for (const Turn& turn : c.turns) {
      const Logits expected = run(unlimited, turn);
      Logits logits;
      bool limited = false;
      try {
        logits = run(session, turn);
      } catch (const Error& error) {
        limited = error.code() == ErrorCode::limit;
      }
      look();
      REQUIRE(most <= options.memory_budget_bytes);
      refused += limited ? 1 : 0;
      if (limited) break;
      REQUIRE(logits == expected);
      ++ran;
    }
  }
  CHECK(refused * 5 > cases);
  CHECK(ran > cases);
}
