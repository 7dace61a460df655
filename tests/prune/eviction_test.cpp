#include <doctest/doctest.h>

#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/top_k_policy.hpp>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

using namespace lazyllm;

namespace {

using Tokens = std::vector<TokenIndex>;

/// The least that an eviction policy can be.
struct Archetype {
  static std::optional<std::size_t> eviction_rows(LayerIndex, Phase) { return std::nullopt; }
  static void evict(const PruneContext&, std::span<bool>) {}
};
struct NoRows {
  static void evict(const PruneContext&, std::span<bool>) {}
};
static_assert(EvictionPolicy<Archetype> && !PruningPolicy<Archetype>);
static_assert(!EvictionPolicy<NoRows> && !EvictionPolicy<KeepAll> && !EvictionPolicy<TopKPolicy<>>);
static_assert(ScoringPolicy<WithEviction<TopKPolicy<>, Archetype>>);
static_assert(!ScoringPolicy<WithEviction<KeepAll, Archetype>>);

/// Which of `stored` stay in a context of `context` tokens; probs [rows][stored] and column sums [stored] of one head.
template <class Policy>
Tokens kept(Policy&& policy, const Tokens& stored, std::size_t context,
            const std::vector<std::vector<float>>& probs = {}, const std::vector<float>& column_sums = {}) {
  std::vector<float> flat;
  for (const auto& row : probs) flat.insert(flat.end(), row.begin(), row.end());
  const auto keep = std::make_unique<bool[]>(stored.size());
  std::fill_n(keep.get(), stored.size(), true);
  policy.prepare({.layer_count = 3, .head_count = 1, .context_capacity = 100});
  policy.evict(PruneContext{.phase = Phase::prefill,
                            .layer = 1,
                            .context_size = context,
                            .tokens = stored,
                            .probs = ConstScoreView(flat.data(), probs.size(), 1, probs.empty() ? 0 : stored.size()),
                            .column_sums = ConstScoreView(column_sums.data(), 1, 1, column_sums.size())},
               {keep.get(), stored.size()});
  Tokens result;
  for (std::size_t i = 0; i < stored.size(); ++i) {
    if (keep[i]) result.push_back(stored[i]);
  }
  return result;
}

Tokens all(std::size_t count) {
  Tokens tokens(count);
  std::iota(tokens.begin(), tokens.end(), TokenIndex{0});
  return tokens;
}

}  // namespace

TEST_CASE("streaming_window keeps the first tokens and the recent ones, and asks for no scores") {
  CHECK(kept(streaming_window(2, 3), all(8), 8) == Tokens{0, 1, 5, 6, 7});
  CHECK(kept(streaming_window(2, 3), {0, 1, 3, 7, 9}, 10) == Tokens{0, 1, 7, 9});
  CHECK(kept(streaming_window(0, 0), all(4), 4) == Tokens{3});
  CHECK(kept(streaming_window(4, 4), all(8), 8) == all(8));
  CHECK(streaming_window().eviction_rows(0, Phase::decode) == 0);
  CHECK(streaming_window().eviction_rows(7, Phase::prefill) == 0);
}

TEST_CASE("tova keeps in every step whom the last row attends to most, and the last token") {
  CHECK(kept(tova(KeepRule::count(3)), all(5), 5, {{0.1f, 0.4f, 0.2f, 0.3f, 0.0f}}) == Tokens{1, 3, 4});
  // Who was no key has probability 0; of equals the lower index stays.
  CHECK(kept(tova(KeepRule::count(4)), {0, 2, 3, 5, 8}, 9, {{0, 0.7f, 0, 0, 0.3f}}) == Tokens{0, 2, 3, 8});
  CHECK(kept(tova(KeepRule::fraction(0.5)), all(4), 4, {{0.1f, 0.2f, 0.3f, 0.4f}}) == Tokens{2, 3});
  CHECK(tova(KeepRule::count(3)).eviction_rows(0, Phase::decode) == 1);
}

TEST_CASE("snap_kv keeps after a prompt what its last rows attend to, pooled, and these rows") {
  RuleEviction policy = snap_kv(KeepRule::count(5), 2, 3);
  CHECK(policy.eviction_rows(0, Phase::prefill) == 2);
  CHECK(policy.eviction_rows(0, Phase::decode) == std::nullopt);
  // Means 0 0 3 0 0 0 1 0; pooled by the maximum of three: 0 3 3 3 0 1 1 1. 6 and 7 stay; three more.
  CHECK(kept(policy, all(8), 8, {{0, 0, 6, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 2, 0}}) == Tokens{1, 2, 3, 6, 7});
  CHECK(kept(policy, all(8), 8, {{0, 0, 0, 0, 0, 9, 0, 0}, {8, 0, 0, 0, 0, 0, 0, 0}}) == Tokens{0, 4, 5, 6, 7});
}

TEST_CASE("HeavyHitters keeps in every step whom all rows attended to most, and the recent tokens") {
  const std::vector<float> sums{2.5f, 0.1f, 1.5f, 0.3f, 0.2f, 0.9f, 0.4f, 0.1f};
  // Half of four are the recent ones, 6 and 7; of the others 0 and 2 have most.
  CHECK(kept(HeavyHitters(KeepRule::count(4)), all(8), 8, {}, sums) == Tokens{0, 2, 6, 7});
  CHECK(kept(HeavyHitters(KeepRule::count(5)), all(8), 8, {}, sums) == Tokens{0, 2, 5, 6, 7});
  CHECK(kept(HeavyHitters(KeepRule::fraction(0.5)), all(8), 8, {}, sums) == Tokens{0, 2, 6, 7});
  CHECK(kept(HeavyHitters(KeepRule::count(4), 0), all(8), 8, {}, sums) == Tokens{0, 2, 5, 7});  // the last one stays
  CHECK(kept(HeavyHitters(KeepRule::count(4), 6), all(8), 8, {}, sums) == Tokens{2, 3, 4, 5, 6, 7});
  CHECK(kept(HeavyHitters(KeepRule::count(4), 3), {0, 2, 3, 7, 8, 9}, 10, {}, {1, 3, 2, 0, 0, 0}) ==
        Tokens{2, 7, 8, 9});
  // 5.1 of the sums' 6 are covered by 0, 2, 5, 6 and the last token, not without 6.
  CHECK(kept(HeavyHitters(KeepRule::mass(0.85), 1), all(8), 8, {}, sums) == Tokens{0, 2, 5, 6, 7});
  ScoreRule pooled;
  pooled.pool_width = 3;
  CHECK(kept(HeavyHitters(KeepRule::count(3), 0, pooled), all(8), 8, {}, sums) == Tokens{0, 1, 7});
  CHECK(HeavyHitters(KeepRule::count(4)).eviction_rows(0, Phase::decode) == 0);
  CHECK_THROWS_WITH_AS(HeavyHitters(KeepRule::mass(0.9)), doctest::Contains("recent"), Error);
  ScoreRule head;
  head.heads = {1};
  HeavyHitters foreign(KeepRule::count(4), 0, head);
  CHECK_THROWS_AS(foreign.prepare({.layer_count = 3, .head_count = 1, .context_capacity = 8}), Error);
}

TEST_CASE("vatp counts each sum times the norm of the key's value, and keeps the first tokens") {
  const Tokens tokens = all(6);
  const std::vector<float> sums{3, 2, 1, 1, 2, 1}, norms{0.1f, 0.5f, 3, 0.5f, 1, 1};
  const auto keep = [&](HeavyHitters policy) {
    const auto kept = std::make_unique<bool[]>(6);
    std::fill_n(kept.get(), 6, true);
    policy.prepare({.layer_count = 1, .head_count = 1, .context_capacity = 6});
    CHECK(policy.needs_value_norms(0, Phase::decode));
    policy.evict(PruneContext{.phase = Phase::decode,
                              .layer = 0,
                              .context_size = 6,
                              .tokens = tokens,
                              .probs = {},
                              .value_norms = ConstScoreView(norms.data(), 1, 1, 6),
                              .column_sums = ConstScoreView(sums.data(), 1, 1, 6)},
                 {kept.get(), 6});
    Tokens result;
    for (const TokenIndex token : tokens) {
      if (kept[token]) result.push_back(token);
    }
    return result;
  };
  // 0.3, 1, 3, 0.5, 2, 1
  CHECK(keep(vatp(KeepRule::count(3), 0, 0)) == Tokens{2, 4, 5});
  CHECK(keep(vatp(KeepRule::count(4), 0, 1)) == Tokens{0, 2, 4, 5});
  CHECK(keep(vatp(KeepRule::count(4))) == tokens);
  CHECK(parse_eviction("vatp:9,4").needs_value_norms(0, Phase::prefill));
  CHECK(parse_eviction("vatp:9").sums_columns());
  CHECK(!parse_eviction("h2o:9").needs_value_norms(0, Phase::prefill));
  CHECK(!parse_eviction("tova:9").needs_value_norms(0, Phase::prefill));
}

TEST_CASE("A rule's score by value is asked for where the rule is, and checked against the model") {
  ScoreRule score;
  score.by_value = true;
  const RuleEviction once(KeepRule::count(3), score, false);
  CHECK(once.needs_value_norms(0, Phase::prefill));
  CHECK(!once.needs_value_norms(0, Phase::decode));
  score.heads = {4};
  RuleEviction foreign(KeepRule::count(3), score);
  CHECK_THROWS_AS(foreign.prepare({.layer_count = 3, .head_count = 4, .context_capacity = 8}), Error);
}

TEST_CASE("An eviction's text names the same policies") {
  const std::vector<std::vector<float>> probs{{0, 0, 6, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 2, 0}};
  CHECK(parse_eviction("none").eviction_rows(0, Phase::prefill) == std::nullopt);
  CHECK(kept(parse_eviction("window:2,3"), all(8), 8) == Tokens{0, 1, 5, 6, 7});
  CHECK(kept(parse_eviction("tova:2"), all(8), 8, probs) == Tokens{6, 7});
  CHECK(kept(parse_eviction("snapkv:5^2~3"), all(8), 8, probs) == Tokens{1, 2, 3, 6, 7});
  const std::vector<float> sums{3, 0, 2, 1, 0, 0, 0, 0};
  CHECK(kept(parse_eviction("h2o:4"), all(8), 8, {}, sums) == Tokens{0, 2, 6, 7});
  CHECK(kept(parse_eviction("h2o:0.5,1"), all(8), 8, {}, sums) == Tokens{0, 2, 3, 7});
  CHECK(parse_eviction("h2o:4").sums_columns());
  CHECK(!parse_eviction("tova:4").sums_columns());
  CHECK(parse_eviction("snapkv:0.25").eviction_rows(0, Phase::prefill) == 32);
  CHECK(parse_eviction("snapkv:p30^9").eviction_rows(0, Phase::prefill) == 9);
  for (const char* wrong :
       {"",       "window",   "window:4",    "window:4,",    "window:x,1",   "window:1,2+3", "tova", "tova:",
        "tova:x", "tova:1.5", "snapkv:0.1^", "snapkv:0.1^0", "snapkv:0.1~4", "snapkv:0.1~0", "h2o",  "h2o:",
        "h2o:x",  "h2o:0.1,", "h2o:0.1,x",   "h2o:1,2,3",    "h2o:m0.9",     "none:1"}) {
    CAPTURE(std::string(wrong));
    CHECK_THROWS_AS((void)parse_eviction(wrong), Error);
  }
}

TEST_CASE("A policy that evicts by column sums says so through WithEviction, others do not") {
  static_assert(ColumnSumPolicy<WithEviction<KeepAll, HeavyHitters>>);
  static_assert(!ColumnSumPolicy<WithEviction<KeepAll, RuleEviction>> && !ColumnSumPolicy<Archetype>);
  CHECK(WithEviction(KeepAll{}, parse_eviction("h2o:4")).sums_columns());
  CHECK(!WithEviction(KeepAll{}, parse_eviction("window:4,9")).sums_columns());
}

TEST_CASE("What is prepared through AnyEviction and WithEviction is checked against the model") {
  const PruningShape shape{.layer_count = 3, .head_count = 4, .context_capacity = 8};
  ScoreRule score;
  score.heads = {4};
  AnyEviction any(RuleEviction(KeepRule::count(3), score));
  CHECK_THROWS_AS(any.prepare(shape), Error);
  WithEviction evicts(KeepAll{}, any);
  CHECK_THROWS_AS(evicts.prepare(shape), Error);
  WithEviction prunes(TopKPolicy(MeanOverHeads{}, parse_schedule("3:2")), AnyEviction());
  CHECK_THROWS_AS(prunes.prepare(shape), Error);
}

TEST_CASE("A pruning and an eviction policy work as one, each with its own question") {
  WithEviction policy(TopKPolicy(MeanOverHeads{}, parse_schedule("1:2")), tova(KeepRule::count(3)));
  CHECK(kept(policy, all(5), 5, {{0.1f, 0.4f, 0.2f, 0.3f, 0.0f}}) == Tokens{1, 3, 4});
  CHECK(policy.query_rows(1, Phase::prefill) == 1);
  CHECK(policy.query_rows(0, Phase::prefill) == 0);
  CHECK(policy.eviction_rows(0, Phase::prefill) == 1);
}
