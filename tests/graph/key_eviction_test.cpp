// Evictions in the engine: what is asked, what leaves the graph, and how it goes together with pruning.
#include <lazyllm/graph/key_eviction.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/top_k_policy.hpp>

#include <doctest/doctest.h>

#include "support/naive_graph.hpp"
#include "support/random_model.hpp"

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

using Tokens = std::vector<TokenIndex>;

struct NoEviction {
  std::size_t layer_count() const { return 1; }
  std::size_t head_count() const { return 1; }
  std::size_t hidden_dim() const { return 1; }
  void run_layer(const LayerStep&) {}
};
static_assert(EvictingGraph<NaiveGraph> && ModelGraph<NoEviction> && !EvictingGraph<NoEviction>);

NaiveLlama three_layers() {
  Random random(8);
  NaiveLlama model;
  while (model.layers.size() != 3) model = random_llama(random);
  return model;
}

template <class Session>
Tokens keys(const Session& session, LayerIndex layer) {
  Tokens tokens;
  for (TokenIndex token = 0; token < session.context_size(); ++token) {
    if (session.has_key(layer, token)) tokens.push_back(token);
  }
  return tokens;
}

/// Evicts odd tokens after layer 1 of a prefill, and remembers what it was told.
struct OddTokens {
  std::vector<Tokens>* asked;
  static std::optional<std::size_t> eviction_rows(LayerIndex layer, Phase phase) {
    if (layer != 1 || phase != Phase::prefill) return std::nullopt;
    return 2;
  }
  void evict(const PruneContext& context, std::span<bool> keep) const {
    CHECK(context.layer == 1);
    CHECK(context.probs.keys() == context.tokens.size());
    asked->emplace_back(context.tokens.begin(), context.tokens.end());
    for (std::size_t i = 0; i < keep.size(); ++i) keep[i] = context.tokens[i] % 2 == 0;
  }
};

}  // namespace

TEST_CASE("Scores are spread over more tokens with zeros between, also in place") {
  std::vector<float> scores{1, 2, 3, 4, 5, 6};
  scores.resize(10);
  const Tokens keys{2, 5, 7}, tokens{1, 2, 5, 6, 7};
  const ScoreView spread = spread_scores(ConstScoreView(scores.data(), 1, 2, 3), keys, tokens, scores.data());
  CHECK(spread.keys() == 5);
  CHECK(scores == std::vector<float>{0, 1, 2, 0, 3, 0, 4, 5, 0, 6});
}

TEST_CASE("Evicted keys leave the layer they were evicted from, no other; what is asked is what is stored") {
  const NaiveLlama model = three_layers();
  NaiveGraph graph(model);
  std::vector<Tokens> asked;
  LazySession session(graph, WithEviction(KeepAll{}, OddTokens{&asked}), {.context_size = 12});
  session.prefill(std::vector<TokenId>{1, 2, 3, 4, 5});
  CHECK(keys(session, 0) == Tokens{0, 1, 2, 3, 4});
  CHECK(keys(session, 1) == Tokens{0, 2, 4});
  CHECK(keys(session, 2) == Tokens{0, 1, 2, 3, 4});
  session.decode(6);
  session.prefill(std::vector<TokenId>{7, 8});
  CHECK(asked == std::vector<Tokens>{{0, 1, 2, 3, 4}, {0, 2, 4, 5, 6, 7}});
  CHECK(keys(session, 1) == Tokens{0, 2, 4, 6});
  session.truncate(6);
  CHECK(keys(session, 1) == Tokens{0, 2, 4});
  CHECK(session.depth(1) == 3);
}

TEST_CASE("Where keys are evicted, the next layer's tokens are chosen with probability 0 for them") {
  const NaiveLlama model = three_layers();
  NaiveGraph graph(model);
  std::vector<Tokens> asked, kept;
  SessionOptions options{.context_size = 12};
  options.on_select = [&](const Selection& s) {
    kept.emplace_back(s.kept.begin(), s.kept.end());
    for (std::size_t i = 0; i < s.candidates.size(); ++i) {
      if (s.step == 1 && s.candidates[i] % 2 == 1 && s.candidates[i] < 5) CHECK(s.scores[i] == 0.0f);
    }
  };
  const TopKPolicy<> pruning(MeanOverHeads{}, parse_schedule("1:4"));
  LazySession session(graph, WithEviction(pruning, OddTokens{&asked}), options);
  session.prefill(std::vector<TokenId>{1, 2, 3, 4, 5, 6});
  CHECK(asked.size() == 1);
  CHECK(keys(session, 1) == Tokens{0, 2, 4});  // nobody waits half-way: a layer that evicts runs whole
  CHECK(session.last_step().rows_finished[1] == 6);
  session.decode(7);
  CHECK(kept.back() == Tokens{0, 2, 4, 6});  // 1, 3 and 5 have probability 0
}

TEST_CASE("What an interrupted step had decided is forgotten") {
  struct Throwing {
    bool* throws;
    static std::size_t query_rows(LayerIndex, Phase) { return 0; }
    void select(const PruneContext& context, std::span<bool>) const {
      if (context.layer == 1 && *throws) throw Cancelled();
    }
  };
  const NaiveLlama model = three_layers();
  NaiveGraph graph(model);
  std::vector<Tokens> asked;
  bool throws = false;
  SessionOptions options{.context_size = 12};
  options.dense_below = 4;
  LazySession session(graph, WithEviction(Throwing{&throws}, OddTokens{&asked}), options);
  session.prefill(std::vector<TokenId>{1, 2});  // nothing is asked
  const std::vector<std::byte> saved = session.save();
  throws = true;
  CHECK_THROWS_AS(session.prefill(std::vector<TokenId>{3, 4, 5}), Cancelled);
  throws = false;
  session.load(saved);
  session.prefill(std::vector<TokenId>{3});
  CHECK(keys(session, 1) == Tokens{0, 1, 2});
}

TEST_CASE("A fixed budget of keys holds at every layer through a generation, with pruning and without") {
  const NaiveLlama model = three_layers();
  for (const char* schedule : {"none", "0:5,1:3"}) {
    NaiveGraph graph(model);
    const TopKPolicy<> pruning(MeanOverHeads{}, parse_schedule(schedule));
    LazySession session(graph, WithEviction(pruning, tova(KeepRule::count(4))), {.context_size = 40});
    session.prefill(std::vector<TokenId>{1, 2, 3, 4, 5, 6, 7, 8, 9});
    for (TokenId id = 0; id < 20; ++id) {
      session.decode(id);
      for (LayerIndex layer = 0; layer < 3; ++layer) CHECK(keys(session, layer).size() <= 4);
      CHECK(session.depth(static_cast<TokenIndex>(session.context_size() - 1)) == 3);
    }
  }
}
