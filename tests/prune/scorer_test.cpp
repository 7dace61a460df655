#include <doctest/doctest.h>

#include <algorithm>
#include <lazyllm/prune/scorer.hpp>
#include <limits>
#include <numeric>
#include <vector>

using namespace lazyllm;

namespace {

struct NoScore {
  static std::size_t query_rows() { return 1; }
};
static_assert(!TokenScorer<NoScore> && !TokenScorer<int>);
static_assert(TokenScorer<Pooled<MaxOverHeads>> && !KeyByKeyScorer<Pooled<MaxOverHeads>>);
/// A scorer of the user's own that knows nothing of values.
struct FirstHead {
  static constexpr bool key_by_key = true;
  static std::size_t query_rows() { return 1; }
  static void score(ConstScoreView probs, std::span<float> importance) {
    std::ranges::copy(probs.row(probs.query_rows() - 1, 0), importance.begin());
  }
};
static_assert(TokenScorer<Pooled<OverRows<FirstHead>>> && !ValueScorer<Pooled<OverRows<FirstHead>>>);

/// Two query rows, two heads, three keys; sums of powers of two, so means are exact.
const std::vector<float> probs{0.5f, 0.5f,  0.0f,  0.0f, 1.0f,  0.0f,  // the row before the last
                               0.5f, 0.25f, 0.25f, 0.0f, 0.75f, 0.25f};

using Numbers = std::vector<float>;

template <TokenScorer Scorer>
Numbers scores(const Scorer& scorer, std::size_t query_rows = 2) {
  Numbers importance(3, -1.0f);
  const std::size_t skip = (2 - query_rows) * 6;
  scorer.score(ConstScoreView(probs.data() + skip, query_rows, 2, 3), importance);
  return importance;
}

Numbers pooled(Reduction reduction, std::size_t width, Numbers values) {
  detail::pool(reduction, width, values);
  return values;
}

}  // namespace

TEST_CASE("MeanOverHeads and MaxOverHeads read the last row, over all heads or chosen ones") {
  CHECK(scores(MeanOverHeads{}) == Numbers{0.25f, 0.5f, 0.25f});
  CHECK(scores(MaxOverHeads{}) == Numbers{0.5f, 0.75f, 0.25f});
  CHECK(scores(MeanOverHeads{{1}}) == Numbers{0.0f, 0.75f, 0.25f});
  CHECK(scores(MaxOverHeads{{0}}) == Numbers{0.5f, 0.25f, 0.25f});
}

TEST_CASE("OverRows reduces another scorer over the last rows, as many as there are") {
  CHECK(scores(OverRows<MeanOverHeads>{2}) == Numbers{0.25f, 0.625f, 0.125f});
  CHECK(scores(OverRows<MaxOverHeads>{2}) == Numbers{0.5f, 0.875f, 0.125f});
  CHECK(scores(OverRows<MaxOverHeads, Reduction::maximum>{2}) == Numbers{0.5f, 1.0f, 0.25f});
  CHECK(scores(OverRows<MaxOverHeads>{1}) == scores(MaxOverHeads{}));
  CHECK(scores(OverRows<MaxOverHeads>{48}, 1) == scores(MaxOverHeads{}));
  CHECK(OverRows<>{48}.query_rows() == 48);
}

TEST_CASE("OverRows gives each key the same whatever the number of keys") {
  constexpr std::size_t keys = 1000, rows = 3, heads = 2;
  Numbers many(rows * heads * keys);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = static_cast<float>(i * 37 % 101);
  Numbers importance(keys);
  OverRows<MaxOverHeads>{rows}.score(ConstScoreView(many.data(), rows, heads, keys), importance);
  for (std::size_t key = 0; key < keys; ++key) {
    float sum = 0;
    for (std::size_t r = 0; r < rows; ++r) sum += std::max(many[2 * r * keys + key], many[(2 * r + 1) * keys + key]);
    CHECK(importance[key] == sum * (1.0f / 3.0f));
  }
}

TEST_CASE("By value each probability counts times the norm of the key's value for that head") {
  const Numbers norms{2, 1, 4, 0, 2, 8};  // [heads, keys]
  const auto by_value = [&](const auto& scorer) {
    Numbers importance(3, -1.0f);
    scorer.score(ConstScoreView(probs.data(), 2, 2, 3), ConstScoreView(norms.data(), 1, 2, 3), importance);
    return importance;
  };
  // The last row: 1 0.25 1 and 0 1.5 2; the one before it: 1 0.5 0 and 0 2 0.
  const MeanOverHeads mean{{}, true};
  CHECK(by_value(mean) == Numbers{0.5f, 0.875f, 1.5f});
  CHECK(by_value(MaxOverHeads{{}, true}) == Numbers{1, 1.5f, 2});
  CHECK(by_value(MaxOverHeads{{0}, true}) == Numbers{1, 0.25f, 1});
  CHECK(by_value(OverRows<MeanOverHeads>{2, mean}) == Numbers{0.5f, 1.0625f, 0.75f});
  CHECK(by_value(Pooled<MeanOverHeads>{3, mean}) == Numbers{0.875f, 1.5f, 1.5f});
  CHECK(by_value(Pooled<OverRows<MeanOverHeads>>{3, {2, mean}}) == Numbers{1.0625f, 1.0625f, 1.0625f});
  ScoreRule rule{.rows = 2, .pool_width = 3};
  rule.by_value = true;
  CHECK(by_value(rule) == Numbers{1.0625f, 1.0625f, 1.0625f});
  CHECK(rule.needs_value_norms());
  CHECK(Pooled<OverRows<MeanOverHeads>>{3, {2, mean}}.needs_value_norms());
  CHECK(!Pooled<OverRows<MeanOverHeads>>{}.needs_value_norms());
}

TEST_CASE("By value OverRows gives each key the same whatever the number of keys") {
  constexpr std::size_t keys = 600;
  Numbers many(2 * keys), norms(keys), importance(keys);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = static_cast<float>(i * 37 % 101);
  for (std::size_t i = 0; i < keys; ++i) norms[i] = static_cast<float>(i * 11 % 17);
  OverRows<MaxOverHeads, Reduction::maximum> scorer{2, {{}, true}};
  scorer.score(ConstScoreView(many.data(), 2, 1, keys), ConstScoreView(norms.data(), 1, 1, keys), importance);
  for (std::size_t i = 0; i < keys; ++i) CHECK(importance[i] == std::max(many[i], many[keys + i]) * norms[i]);
}

TEST_CASE("Pooling takes the maximum or the mean of the neighbours, fewer at the ends") {
  const Numbers values{1, 8, 2, 0, 0, 4};
  CHECK(pooled(Reduction::maximum, 1, values) == values);
  CHECK(pooled(Reduction::maximum, 3, values) == Numbers{8, 8, 8, 2, 4, 4});
  CHECK(pooled(Reduction::maximum, 5, values) == Numbers{8, 8, 8, 8, 4, 4});
  CHECK(pooled(Reduction::maximum, 255, values) == Numbers(6, 8));
  CHECK(pooled(Reduction::mean, 3, {3, 6, 0, 9, 3}) == Numbers{4.5f, 3, 5, 4, 6});
  CHECK(pooled(Reduction::mean, 5, {2, 4, 6, 8}) == Numbers{4, 5, 5, 6});
  CHECK(pooled(Reduction::mean, 3, {7}) == Numbers{7});
}

TEST_CASE("Pooled pools another scorer's importance") {
  CHECK(scores(Pooled<MeanOverHeads>{3}) == Numbers{0.5f, 0.5f, 0.5f});
  CHECK(scores(Pooled<OverRows<MaxOverHeads>, Reduction::mean>{3, {2}}) == Numbers{0.6875f, 0.5f, 0.5f});
  CHECK(Pooled<OverRows<>>{3, {48}}.query_rows() == 48);
}

TEST_CASE("A ScoreRule is the same scorer put together at run time") {
  CHECK(scores(ScoreRule{}) == scores(MeanOverHeads{}));
  CHECK(scores(ScoreRule{.over_heads = Reduction::maximum, .heads = {1}}) == scores(MaxOverHeads{{1}}));
  CHECK(scores(ScoreRule{.over_heads = Reduction::maximum, .rows = 2, .pool_width = 3}) ==
        scores(Pooled<OverRows<MaxOverHeads>>{3, {2}}));
  CHECK(scores(ScoreRule{.rows = 2, .over_rows = Reduction::maximum, .pool_width = 3, .pooling = Reduction::mean}) ==
        scores(Pooled<OverRows<MeanOverHeads, Reduction::maximum>, Reduction::mean>{3, {2}}));
}

TEST_CASE("check refuses heads that the model lacks, even widths and no rows") {
  CHECK_NOTHROW(Pooled<OverRows<MaxOverHeads>>{15, {48, {{0, 8}}}}.check(9));
  CHECK_THROWS_WITH_AS((MaxOverHeads{{0, 9}}.check(9)), doctest::Contains("head 9"), Error);
  CHECK_THROWS_AS((Pooled<OverRows<MaxOverHeads>>{15, {48, {{9}}}}.check(9)), Error);
  CHECK_THROWS_WITH_AS(Pooled<>{4}.check(9), doctest::Contains("over 4"), Error);
  CHECK_THROWS_AS(Pooled<>{257}.check(9), Error);
  CHECK_THROWS_AS(OverRows<>{0}.check(9), Error);
  CHECK_THROWS_AS((ScoreRule{.rows = 0}.check(9)), Error);
  CHECK_THROWS_AS((ScoreRule{.pool_width = 0}.check(9)), Error);
}
