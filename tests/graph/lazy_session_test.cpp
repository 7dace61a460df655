// The engine on a graph that checks the contract of every call and whose scores the test dictates.
#include <doctest/doctest.h>

#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/prune/top_k_policy.hpp>
#include <map>
#include <random>
#include <set>
#include <vector>

using namespace lazyllm;

namespace {

/// hidden = [token, layers done]; asserts that each token runs each layer once, in order, with all it may see in place.
/// Scores come from `importance(layer, token)`.
class CheckingGraph {
 public:
  explicit CheckingGraph(std::size_t layers) : computed_(layers) {}
  std::function<float(LayerIndex, TokenIndex)> importance = [](LayerIndex, TokenIndex) { return 1.0f; };

  std::size_t layer_count() const { return computed_.size(); }
  std::size_t head_count() const { return 2; }
  std::size_t hidden_dim() const { return 2; }
  std::size_t vocab_size() const { return 100; }

  void embed(std::span<const TokenId> ids, Rows hidden) {
    for (std::size_t r = 0; r < ids.size(); ++r) {
      hidden.row(r)[0] = static_cast<float>(embedded_++);
      hidden.row(r)[1] = 0;
    }
  }
  void run_layer(const LayerStep& step) {
    REQUIRE(std::is_sorted(step.rows.begin(), step.rows.end()));
    REQUIRE(std::is_sorted(step.keys.begin(), step.keys.end()));
    REQUIRE(std::includes(step.keys.begin(), step.keys.end(), step.rows.begin(), step.rows.end()));
    REQUIRE(step.rows.back() == step.keys.back());
    REQUIRE(step.hidden.rows() == step.rows.size());
    for (std::size_t r = 0; r < step.rows.size(); ++r) {
      REQUIRE(step.hidden.row(r)[0] == static_cast<float>(step.rows[r]));
      REQUIRE(step.hidden.row(r)[1] == static_cast<float>(step.layer));
      REQUIRE(computed_[step.layer].insert(step.rows[r]).second);
      step.hidden.row(r)[1] += 1;
    }
    for (const TokenIndex key : step.keys) REQUIRE(computed_[step.layer].contains(key));
    for (std::size_t q = 0; q < step.scores.query_rows(); ++q) {
      for (std::size_t head = 0; head < 2; ++head) {
        for (std::size_t i = 0; i < step.keys.size(); ++i) {
          step.scores.row(q, head)[i] = importance(step.layer, step.keys[i]);
        }
      }
    }
    query_rows[step.layer] = step.scores.query_rows();
    outputs[step.layer] = step.outputs;
  }
  void project(ConstRows hidden, Rows logits) {
    REQUIRE(hidden.rows() == 1);
    std::fill(logits.row(0).begin(), logits.row(0).end(), hidden.row(0)[0]);
  }

  std::map<LayerIndex, std::size_t> query_rows, outputs;

 private:
  std::vector<std::set<TokenIndex>> computed_;
  std::size_t embedded_ = 0;
};
static_assert(LanguageGraph<CheckingGraph>);

SessionOptions options(std::size_t context) {
  SessionOptions result;
  result.context_size = context;
  return result;
}

std::vector<TokenId> prompt(std::size_t size) { return std::vector<TokenId>(size, 1); }

TopKPolicy<> top_k(const char* schedule) { return TopKPolicy<>(MeanOverHeads{}, parse_schedule(schedule)); }

using Tokens = std::vector<TokenIndex>;

}  // namespace

TEST_CASE("KeepAll computes every token at every layer once") {
  CheckingGraph graph(3);
  LazySession session(graph, KeepAll{}, options(8));
  CHECK(session.prefill(prompt(5))[0] == 4.0f);
  CHECK(session.decode(1)[0] == 5.0f);
  CHECK(session.totals(Phase::prefill).rows_computed == std::vector<std::size_t>{5, 5, 5});
  CHECK(session.totals(Phase::decode).rows_computed == std::vector<std::size_t>{1, 1, 1});
  CHECK(session.aux_bytes() == 0);
  CHECK(graph.outputs[1] == 1);
  CHECK(graph.query_rows[1] == 0);
}

TEST_CASE("Pruned tokens wait in the Aux Cache and are revived when their score rises") {
  CheckingGraph graph(3);
  std::vector<Tokens> selected;
  SessionOptions opts = options(8);
  opts.on_select = [&](const Selection& s) { selected.emplace_back(s.kept.begin(), s.kept.end()); };
  LazySession session(graph, top_k("0:3"), opts);

  graph.importance = [](LayerIndex, TokenIndex token) { return token == 1 || token == 3 ? 1.0f : 0.0f; };
  session.prefill(prompt(6));
  CHECK(selected.back() == Tokens{1, 3, 5});
  CHECK(session.last_step().rows_computed == std::vector<std::size_t>{6, 3, 3});
  CHECK(session.depth(0) == 1);
  CHECK(session.depth(1) == 3);
  CHECK(session.aux_bytes() == 3 * 2 * sizeof(float));

  graph.importance = [](LayerIndex, TokenIndex token) { return token == 0 || token == 3 ? 1.0f : 0.0f; };
  session.decode(1);
  CHECK(selected.back() == Tokens{0, 3, 6});
  CHECK(session.last_step().revived == 1);
  CHECK(session.last_step().rows_computed == std::vector<std::size_t>{1, 2, 2});
  CHECK(session.depth(0) == 3);
  CHECK(session.aux_bytes() == 2 * 2 * sizeof(float));
}

TEST_CASE("Aux rows in half take half the bytes, and revived tokens go on from them") {
  CheckingGraph graph(3);  // hidden states are small integers, which a half holds
  SessionOptions opts = options(8);
  opts.aux_rows = RowFormat::float16;
  LazySession session(graph, TopKPolicy<>(MeanOverHeads{}, parse_schedule("0:3"), StepSchedule()), opts);
  session.prefill(prompt(6));
  CHECK(session.aux_bytes() == 3 * 2 * sizeof(Float16));
  session.decode(1);
  CHECK(session.last_step().revived == 3);
  CHECK(session.aux_bytes() == 0);
}

TEST_CASE("A decode schedule of none revives everything at the first step") {
  CheckingGraph graph(4);
  LazySession session(graph, TopKPolicy<>(MeanOverHeads{}, parse_schedule("0:4,2:1"), StepSchedule()), options(10));
  session.prefill(prompt(9));
  CHECK(session.last_step().rows_computed == std::vector<std::size_t>{9, 4, 4, 1});
  session.decode(1);
  CHECK(session.last_step().revived == 8);
  CHECK(session.last_step().rows_computed == std::vector<std::size_t>{1, 6, 6, 9});
  CHECK(session.aux_bytes() == 0);
}

TEST_CASE("Without revival each layer selects among the tokens that the next layer has") {
  CheckingGraph graph(3);
  std::vector<std::pair<LayerIndex, Tokens>> selected;
  SessionOptions opts = options(10);
  opts.revive_in_decode = false;
  opts.on_select = [&](const Selection& s) { selected.emplace_back(s.layer, Tokens(s.kept.begin(), s.kept.end())); };
  LazySession session(graph, top_k("0:3"), opts);
  graph.importance = [](LayerIndex, TokenIndex token) { return token == 1 || token == 3 ? 1.0f : 0.0f; };
  session.prefill(prompt(6));
  // Token 0 scores highest now, but has no K and V at layer 1; of 1, 3, 5 the best two stay beside the new token.
  graph.importance = [](LayerIndex, TokenIndex token) {
    return token == 3 ? 0.5f : token == 5 ? 0.4f : token == 0 ? 1.0f : 0.0f;
  };
  session.decode(1);
  CHECK(selected.back() == std::pair<LayerIndex, Tokens>{0, {3, 5, 6}});
  CHECK(session.last_step().revived == 0);
  CHECK(session.last_step().rows_computed == std::vector<std::size_t>{1, 1, 1});
}

TEST_CASE("A decode step revives the best-scored tokens up to its budget; the others stay in the Aux Cache") {
  CheckingGraph graph(3);
  std::vector<Tokens> selected;
  SessionOptions opts = options(10);
  opts.decode_revivals = {2};
  opts.on_select = [&](const Selection& s) { selected.emplace_back(s.kept.begin(), s.kept.end()); };
  LazySession session(graph, top_k("0:6"), opts);
  graph.importance = [](LayerIndex, TokenIndex token) { return token == 7 ? 1.0f : 0.0f; };
  session.prefill(prompt(8));
  CHECK(selected.back() == Tokens{0, 1, 2, 3, 4, 7});
  // 5 and 6 and all but one of 0 to 4 are wanted now; two of those that wait may come back.
  graph.importance = [](LayerIndex, TokenIndex token) { return token == 0 ? 0.0f : static_cast<float>(token); };
  session.decode(1);
  CHECK(selected.back() == Tokens{3, 4, 5, 6, 7, 8});
  session.decode(1);
  CHECK(session.last_step().revived == 0);
  CHECK(session.aux_bytes() == 0);
}

TEST_CASE("A budget of revivals counts the tokens since the last prompt") {
  CheckingGraph graph(3);
  SessionOptions opts = options(40);
  opts.decode_revivals = {.early = 3, .early_tokens = 2, .later = 1};
  LazySession session(graph, TopKPolicy<>(MeanOverHeads{}, parse_schedule("0:1"), parse_schedule("none")), opts);
  session.prefill(prompt(20));  // all but the last one wait
  std::vector<std::size_t> revived;
  const auto decode = [&](std::size_t steps) {
    for (std::size_t i = 0; i < steps; ++i) {
      session.decode(1);
      revived.push_back(session.last_step().revived);
    }
  };
  decode(4);
  session.prefill(prompt(2));  // revives all, and all but its last token wait again
  decode(3);
  CHECK(revived == std::vector<std::size_t>{3, 3, 1, 1, 3, 3, 1});
}

TEST_CASE("A budget of revivals picks by score, and by index where there are no scores") {
  const auto revived = [](const char* decode_schedule) {
    CheckingGraph graph(3);
    SessionOptions opts = options(10);
    opts.decode_revivals = {2};
    TopKPolicy<> policy(MeanOverHeads{}, parse_schedule("0:1"), parse_schedule(decode_schedule));
    LazySession session(graph, policy, opts);
    session.prefill(prompt(6));  // 0 to 4 wait
    graph.importance = [](LayerIndex, TokenIndex token) { return static_cast<float>(token % 3); };
    session.decode(1);
    CHECK(session.last_step().rows_computed == std::vector<std::size_t>{1, 3, 3});
    Tokens result;
    for (TokenIndex token = 0; token < 5; ++token) {
      if (session.depth(token) == 3) result.push_back(token);
    }
    return result;
  };
  CHECK(revived("0:7") == Tokens{1, 2});  // scores 0 1 2 0 1: the 2 and the first 1
  CHECK(revived("0:5") == Tokens{1, 2});
  CHECK(revived("none") == Tokens{0, 1});
}

TEST_CASE("Below its floor a session asks the policy for nothing") {
  CheckingGraph graph(3);
  SessionOptions opts = options(10);
  opts.dense_below = 6;
  LazySession session(graph, top_k("0:2"), opts);
  session.prefill(prompt(5));
  CHECK(graph.query_rows[0] == 0);
  CHECK(session.last_step().rows_computed == std::vector<std::size_t>{5, 5, 5});
  session.decode(1);
  CHECK(graph.query_rows[0] == 1);
  CHECK(session.totals(Phase::decode).rows_computed == std::vector<std::size_t>{1, 1, 1});
  session.prefill(prompt(3));
  CHECK(session.last_step().rows_computed == std::vector<std::size_t>{3, 1, 1});
}

TEST_CASE("A selection tells candidates, scores and who was kept") {
  CheckingGraph graph(2);
  std::size_t reports = 0;
  SessionOptions opts = options(5);
  opts.on_select = [&](const Selection& s) {
    ++reports;
    CHECK(Tokens(s.candidates.begin(), s.candidates.end()) == Tokens{0, 1, 2, 3});
    CHECK(std::vector<float>(s.scores.begin(), s.scores.end()) == std::vector<float>{0, 1, 2, 3});
    CHECK(Tokens(s.kept.begin(), s.kept.end()) == Tokens{2, 3});
  };
  graph.importance = [](LayerIndex, TokenIndex token) { return static_cast<float>(token); };
  LazySession session(graph, top_k("0:2"), opts);
  session.prefill(prompt(4));
  CHECK(reports == 1);
}

TEST_CASE("A policy may select before layer 0; who it drops can come back") {
  struct EvenTokens {
    std::size_t steps = 2;
    static std::size_t query_rows(LayerIndex, Phase) { return 0; }
    void select(const PruneContext& context, std::span<bool> keep) {
      if (context.layer != before_first_layer || steps-- == 0) return;
      CHECK(context.probs.empty());
      for (std::size_t i = 0; i < keep.size(); ++i) keep[i] = context.tokens[i] % 2 == 0;
    }
  };
  CheckingGraph graph(2);
  std::vector<std::pair<LayerIndex, Tokens>> selected;
  SessionOptions opts = options(8);
  opts.on_select = [&](const Selection& s) { selected.emplace_back(s.layer, Tokens(s.kept.begin(), s.kept.end())); };
  LazySession session(graph, EvenTokens{}, opts);
  session.prefill(prompt(4));
  CHECK(selected.back() == std::pair<LayerIndex, Tokens>{before_first_layer, {0, 2, 3}});
  CHECK(session.last_step().rows_computed == std::vector<std::size_t>{3, 3});
  CHECK(session.depth(1) == 0);
  CHECK(session.aux_bytes() == 2 * sizeof(float));
  session.decode(1);
  CHECK(session.last_step().revived == 0);
  session.decode(1);
  CHECK(session.last_step().revived == 1);
  CHECK(session.last_step().rows_computed == std::vector<std::size_t>{2, 2});
}

TEST_CASE("An entry at the last layer is reported and changes nothing") {
  CheckingGraph graph(2);
  std::size_t reports = 0;
  SessionOptions opts = options(5);
  opts.on_select = [&](const Selection& s) {
    ++reports;
    CHECK(s.layer == 1);
    CHECK(s.kept.size() == 2);
  };
  LazySession session(graph, top_k("1:2"), opts);
  session.prefill(prompt(4));
  CHECK(reports == 1);
  CHECK(session.totals(Phase::prefill).rows_computed == std::vector<std::size_t>{4, 4});
  CHECK(session.aux_bytes() == 0);
  CHECK(graph.query_rows[1] == 1);
}

TEST_CASE("No token is computed twice or skips a layer over random policies, steps and appended prompts") {
  std::mt19937 random(11);
  std::size_t revived = 0;
  for (int round = 0; round < 300; ++round) {
    const std::size_t layers = 1 + random() % 6;
    CheckingGraph graph(layers);
    graph.importance = [&](LayerIndex, TokenIndex) { return static_cast<float>(random() % 8); };
    std::vector<ScheduleEntry> entries;
    for (LayerIndex layer = 0; layer < layers; ++layer) {
      if (random() % 2 == 0)
        entries.push_back({layer, KeepRule::fraction(static_cast<double>(random() % 101) / 100.0)});
    }
    const std::size_t first = 1 + random() % 20, appended = random() % 6, steps = random() % 8;
    SessionOptions opts = options(first + appended + steps);
    opts.revive_in_decode = random() % 4 != 0;
    if (random() % 4 == 0) opts.decode_revivals = {random() % 4};
    LazySession session(graph, TopKPolicy<>(MeanOverHeads{}, StepSchedule(entries)), opts);
    session.prefill(prompt(first));
    for (std::size_t i = 0; i < steps; ++i) session.decode(1);
    if (appended != 0) session.prefill(prompt(appended));
    revived += session.totals(Phase::decode).revived + session.totals(Phase::prefill).revived;
    std::size_t parked = 0;
    for (TokenIndex token = 0; token < session.context_size(); ++token) parked += session.depth(token) < layers ? 1 : 0;
    CHECK(session.aux_bytes() == parked * 2 * sizeof(float));
  }
  CHECK(revived > 300);
}

TEST_CASE("A policy that wants a window of rows gets the consecutive new ones") {
  struct Window {
    static std::size_t query_rows(LayerIndex, Phase) { return 4; }
    static void select(const PruneContext& context, std::span<bool> keep) {
      if (context.layer == 0) {
        for (std::size_t i = 0; i + 3 < keep.size(); ++i) keep[i] = false;  // the last three stay
        if (keep.size() > 5) keep[keep.size() - 2] = false;                 // with a gap
      }
    }
  };
  CheckingGraph graph(3);
  LazySession session(graph, Window{}, options(9));
  session.prefill(prompt(7));
  CHECK(graph.query_rows[0] == 4);
  CHECK(graph.query_rows[1] == 1);  // rows 4 and 6 are not consecutive
  CHECK(graph.outputs[2] == 1);
  session.decode(1);
  CHECK(graph.query_rows[0] == 1);
}

TEST_CASE("Bad input is an error before any work, and the session stays usable") {
  CheckingGraph graph(2);
  LazySession session(graph, KeepAll{}, options(4));
  CHECK_THROWS_WITH_AS(session.prefill({}), doctest::Contains("empty"), Error);
  CHECK_THROWS_WITH_AS(session.prefill(std::vector<TokenId>{1, 100}), doctest::Contains("100"), Error);
  CHECK_THROWS_AS(session.decode(-1), Error);
  CHECK_THROWS_WITH_AS(session.prefill(prompt(5)), doctest::Contains("context of 4"), Error);
  CHECK(session.prefill(prompt(4)).size() == 100);
  CHECK_THROWS_AS(session.decode(1), Error);
  CHECK(session.context_size() == 4);
}

TEST_CASE("A session checks its policy and its context size when it is made") {
  CheckingGraph graph(2);
  CHECK_THROWS_AS(LazySession(graph, top_k("2:1"), options(4)), Error);
  CHECK_THROWS_AS(LazySession(graph, KeepAll{}, options(0)), Error);
}

TEST_CASE("A prefill can be stopped between layers; the session says that it was") {
  CheckingGraph graph(3);
  SessionOptions opts = options(4);
  opts.on_prefill_layer = [](LayerIndex layer, std::size_t layers) {
    CHECK(layers == 3);
    return layer < 2;
  };
  LazySession session(graph, KeepAll{}, opts);
  CHECK_THROWS_AS(session.prefill(prompt(2)), Cancelled);
  CHECK_THROWS_WITH_AS(session.decode(1), doctest::Contains("interrupted"), Error);
}

TEST_CASE("step runs rows that are no tokens of a vocabulary") {
  CheckingGraph graph(2);
  LazySession session(graph, top_k("0:2"), options(4));
  const std::vector<float> inputs{0, 0, 1, 0, 2, 0};
  const auto output = session.step(ConstRows(inputs.data(), 3, 2), Phase::prefill);
  CHECK(std::vector<float>(output.begin(), output.end()) == std::vector<float>{2, 2});
}
