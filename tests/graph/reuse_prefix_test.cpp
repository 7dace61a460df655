#include <lazyllm/graph/reuse_prefix.hpp>
#include <lazyllm/prune/top_k_policy.hpp>

#include <doctest/doctest.h>

#include "support/naive_graph.hpp"
#include "support/random_model.hpp"

#include <cstddef>
#include <span>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

using Ids = std::vector<TokenId>;

std::vector<float> copy(std::span<const float> values) { return {values.begin(), values.end()}; }

NaiveLlama some_model() {
  Random random(4);
  NaiveLlama model;
  while (model.layers.size() < 3) model = random_llama(random);
  return model;
}

}  // namespace

TEST_CASE("A new prompt goes on from the start that it shares with the old one; dense it is as if it were fresh") {
  const NaiveLlama model = some_model();
  NaiveGraph graph(model), fresh_graph(model);
  LazySession session(graph, KeepAll{}, {.context_size = 20}), fresh(fresh_graph, KeepAll{}, {.context_size = 20});
  session.prefill(Ids{1, 2, 3, 4, 5});
  session.decode(6);
  const Ids prompt{1, 2, 3, 9, 5, 6, 7};
  CHECK(reuse_prefix(session, Ids{1, 2, 3, 4, 5, 6}, prompt) == 3);
  CHECK(session.context_size() == 3);
  CHECK(copy(session.prefill(std::span(prompt).subspan(3))) == copy(fresh.prefill(prompt)));
}

TEST_CASE("At least the last token of the prompt is left to run") {
  const NaiveLlama model = some_model();
  NaiveGraph graph(model);
  LazySession session(graph, KeepAll{}, {.context_size = 20});
  session.prefill(Ids{1, 2, 3, 4});
  CHECK(reuse_prefix(session, Ids{1, 2, 3, 4}, Ids{1, 2, 3, 4}) == 3);
  CHECK(reuse_prefix(session, Ids{1, 2, 3}, Ids{1, 2}) == 1);
  CHECK(reuse_prefix(session, Ids{1}, Ids{7, 8}) == 0);
  CHECK(reuse_prefix(session, Ids{}, Ids{7}) == 0);
}

TEST_CASE("Prefix reuse after a pruned prompt revives what the new prompt selects") {
  const NaiveLlama model = some_model();
  NaiveGraph graph(model);
  const TopKPolicy<> policy(MeanOverHeads{}, parse_schedule("0:3"));
  LazySession session(graph, policy, {.context_size = 20});
  Ids ids;
  for (TokenId id = 0; id < 12; ++id) ids.push_back(id);
  session.prefill(ids);
  Ids prompt(ids.begin(), ids.begin() + 10);
  prompt.push_back(30);
  CHECK(reuse_prefix(session, ids, prompt) == 10);
  CHECK(session.aux_bytes() > 0);
  session.prefill(std::span(prompt).subspan(10));
  CHECK(session.last_step().rows_computed[0] == 1);
  CHECK(session.context_size() == 11);
}

TEST_CASE("Prefix reuse refuses an empty prompt and tokens that are not the session's, and changes nothing") {
  const NaiveLlama model = some_model();
  NaiveGraph graph(model);
  LazySession session(graph, KeepAll{}, {.context_size = 20});
  session.prefill(Ids{1, 2, 3, 4});
  CHECK_THROWS_WITH_AS(reuse_prefix(session, Ids{1, 2, 3, 4}, Ids{}), doctest::Contains("empty"), Error);
  CHECK_THROWS_WITH_AS(reuse_prefix(session, Ids{1, 2, 3}, Ids{1}), doctest::Contains("3 tokens"), Error);
  CHECK(session.context_size() == 4);
}
