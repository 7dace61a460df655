// Evictions in the engine: what is asked, what leaves the graph, and how it goes together with pruning.
#include <lazyllm/graph/key_eviction.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/top_k_policy.hpp>

#include <doctest/doctest.h>

#include "support/naive_graph.hpp"
#include "support/random_model.hpp"

#include <cmath>
#include <cstddef>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
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
static_assert(ColumnSumGraph<NaiveGraph> && !ColumnSumGraph<NoEviction>);

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

/// Evicts odd tokens after a layer of a prefill, and remembers what it was told.
struct OddTokens {
  std::vector<Tokens>* asked;
  LayerIndex own = 1;
  [[nodiscard]] std::optional<std::size_t> eviction_rows(LayerIndex layer, Phase phase) const {
    if (layer != own || phase != Phase::prefill) return std::nullopt;
    return 2;
  }
  void evict(const PruneContext& context, std::span<bool> keep) const {
    CHECK(context.layer == own);
    CHECK(context.prompt_size == context.context_size);
    CHECK(context.probs.keys() == context.tokens.size());
    asked->emplace_back(context.tokens.begin(), context.tokens.end());
    for (std::size_t i = 0; i < keep.size(); ++i) keep[i] = context.tokens[i] % 2 == 0;
  }
};

/// Prunes nothing, and wants one row of scores.
struct OneRow {
  static std::size_t query_rows(LayerIndex, Phase) { return 1; }
  static void select(const PruneContext& context, std::span<bool>) {
    CHECK(context.probs.query_rows() == (context.layer == before_first_layer ? 0u : 1u));
  }
};

/// Evicts nothing, and remembers the column sums and phases that it was told of after layer 1.
struct RememberSums {
  std::vector<std::vector<float>>* told;
  std::vector<Phase>* phases;
  static bool sums_columns() { return true; }
  static std::optional<std::size_t> eviction_rows(LayerIndex layer, Phase) {
    return layer == 1 ? std::optional<std::size_t>(0) : std::nullopt;
  }
  void evict(const PruneContext& context, std::span<bool>) const {
    phases->push_back(context.phase);
    CHECK(context.column_sums.keys() == context.tokens.size());
    CHECK(context.column_sums.query_rows() == 1);
    for (std::size_t head = 0; head < context.column_sums.heads(); ++head) {
      const std::span<const float> row = context.column_sums.row(0, head);
      told->emplace_back(row.begin(), row.end());
    }
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
  CHECK(graph.kv_bytes() == (5 + 3 + 5) * graph.token_bytes());
  session.decode(6);
  session.prefill(std::vector<TokenId>{7, 8});
  CHECK(asked == std::vector<Tokens>{{0, 1, 2, 3, 4}, {0, 2, 4, 5, 6, 7}});
  CHECK(keys(session, 1) == Tokens{0, 2, 4, 6});
  session.truncate(6);
  CHECK(keys(session, 1) == Tokens{0, 2, 4});
  CHECK(session.depth(1) == 3);
}

TEST_CASE("A pruning and an eviction policy each get as many rows of scores as they want") {
  const NaiveLlama model = three_layers();
  NaiveGraph graph(model);
  std::vector<Tokens> asked;
  LazySession session(graph, WithEviction(OneRow{}, OddTokens{&asked}), {.context_size = 12});
  session.prefill(std::vector<TokenId>{1, 2, 3, 4, 5});
  session.decode(6);
  CHECK(asked.size() == 1);
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

TEST_CASE(
    "A policy is told what all rows so far attended to each key: each row gives 1 in all, also below dense_below") {
  const NaiveLlama model = three_layers();
  NaiveGraph graph(model);
  std::vector<std::vector<float>> told;
  std::vector<Phase> phases;
  SessionOptions options{.context_size = 12};
  options.dense_below = 5;
  LazySession session(graph, WithEviction(KeepAll{}, RememberSums{&told, &phases}), options);
  const auto total = [&](std::size_t head) { return std::accumulate(told[head].begin(), told[head].end(), 0.0); };
  session.prefill(std::vector<TokenId>{1, 2, 3, 4});
  CHECK(told.empty());
  session.decode(5);
  REQUIRE(told.size() == model.heads);
  for (std::size_t head = 0; head < model.heads; ++head) {
    CHECK(told[head].size() == 5);
    CHECK(std::abs(total(head) - 5) < 5 * 5 * 0x1p-24);  // as many roundings as rows and keys, of numbers up to 5
    CHECK(told[head][0] >= 1);                           // the first row attends to itself alone
  }
  CHECK(session.last_step().rows_finished[2] == 1);
  // Cut back, the others keep what the rows after them gave; a token that comes anew has got nothing yet.
  const std::vector<std::vector<float>> before = std::exchange(told, {});
  session.truncate(4);
  session.prefill(std::vector<TokenId>{6, 7});
  CHECK(session.last_step().rows_finished[2] == 2);  // all rows' attention is wanted, also at the last layer
  for (std::size_t head = 0; head < model.heads; ++head) {
    for (std::size_t k = 0; k < 4; ++k) CHECK(told[head][k] >= before[head][k]);
    CHECK(told[head][4] < 2);
    CHECK(std::abs(total(head) - (7 - before[head][4])) < 7 * 6 * 0x1p-24);
  }
  CHECK(phases == std::vector<Phase>{Phase::decode, Phase::prefill});
}

TEST_CASE("A policy that weighs by values needs a graph that tells their norms, for the layers and phases that do so") {
  struct NoNorms : NoEviction {
    void evict(LayerIndex, std::span<const TokenIndex>) {}
  } graph;
  const auto start = [&](const char* prefill, const char* decode) {
    LazySession(graph, TopKPolicy<>(MeanOverHeads{}, parse_schedule(prefill), parse_schedule(decode)),
                {.context_size = 4});
  };
  CHECK_NOTHROW(start("0:0.5/max", "none"));
  CHECK_THROWS_WITH_AS(start("0:0.5/maxv", "none"), doctest::Contains("norms"), Error);
  CHECK_THROWS_WITH_AS(start("none", "0:0.5/meanv~3"), doctest::Contains("norms"), Error);
  ScoreRule by_value;
  by_value.by_value = true;
  const RuleEviction eviction(KeepRule::count(2), by_value);
  CHECK_THROWS_WITH_AS(LazySession(graph, WithEviction(KeepAll{}, eviction), {.context_size = 4}),
                       doctest::Contains("norms"), Error);
  const NaiveLlama model = three_layers();
  NaiveGraph with_norms(model);
  CHECK_NOTHROW(LazySession(with_norms, WithEviction(KeepAll{}, eviction), {.context_size = 4}));
}

TEST_CASE("A token that was parked half-way keeps its key there until it has finished the layer") {
  const NaiveLlama model = three_layers();
  NaiveGraph without(model), graph(model), other(model);
  LazySession pruned(without, TopKPolicy<>(MeanOverHeads{}, parse_schedule("1:1")), {.context_size = 12});
  pruned.prefill(std::vector<TokenId>{1, 2, 3, 4, 5});  // 0 to 3 lack the second half of layer 1
  const TopKPolicy<> pruning(MeanOverHeads{}, parse_schedule("1:1"), StepSchedule());
  std::vector<Tokens> asked;
  LazySession session(graph, WithEviction(pruning, OddTokens{&asked}), {.context_size = 12});
  session.load(pruned.save());
  session.prefill(std::vector<TokenId>{6});
  CHECK(keys(session, 1) == Tokens{0, 1, 2, 3, 4});  // without 5
  session.decode(7);                                 // brings all to the end
  session.prefill(std::vector<TokenId>{8});
  CHECK(keys(session, 1) == Tokens{0, 2, 4, 6});
  // At another layer nothing keeps them.
  LazySession at_0(other, WithEviction(pruning, OddTokens{&asked, 0}), {.context_size = 12});
  at_0.load(pruned.save());
  at_0.prefill(std::vector<TokenId>{6});
  CHECK(keys(at_0, 0) == Tokens{0, 2, 4});
  CHECK(keys(at_0, 1) == Tokens{0, 1, 2, 3, 4, 5});
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
  for (const auto& [schedule, eviction] : {std::pair{"none", "tova:4"}, std::pair{"0:5,1:3", "tova:4"},
                                           std::pair{"none", "h2o:4"}, std::pair{"0:5,1:3", "h2o:4,1"}}) {
    NaiveGraph graph(model);
    const TopKPolicy<> pruning(MeanOverHeads{}, parse_schedule(schedule));
    LazySession session(graph, WithEviction(pruning, parse_eviction(eviction)), {.context_size = 40});
    session.prefill(std::vector<TokenId>{1, 2, 3, 4, 5, 6, 7, 8, 9});
    for (TokenId id = 0; id < 20; ++id) {
      session.decode(id);
      for (LayerIndex layer = 0; layer < 3; ++layer) CHECK(keys(session, layer).size() <= 4);
      CHECK(session.depth(static_cast<TokenIndex>(session.context_size() - 1)) == 3);
    }
  }
}
