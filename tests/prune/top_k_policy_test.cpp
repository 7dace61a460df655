#include <doctest/doctest.h>

#include <lazyllm/prune/top_k_policy.hpp>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

using namespace lazyllm;

namespace {

/// The kept positions when one head gives these probabilities.
std::vector<std::size_t> kept(std::vector<float> probs, const char* schedule, std::size_t context,
                              Phase phase = Phase::prefill) {
  std::vector<TokenIndex> tokens(probs.size());
  std::iota(tokens.begin(), tokens.end(), TokenIndex{0});
  const auto keep = std::make_unique<bool[]>(probs.size());
  std::fill_n(keep.get(), probs.size(), true);
  TopKPolicy policy(MeanOverHeads{}, parse_schedule(schedule));
  policy.prepare({.layer_count = 10, .head_count = 1, .context_capacity = context});
  policy.select(PruneContext{.phase = phase,
                             .layer = 3,
                             .context_size = context,
                             .tokens = tokens,
                             .probs = ConstScoreView(probs.data(), 1, 1, probs.size())},
                {keep.get(), probs.size()});
  std::vector<std::size_t> result;
  for (std::size_t i = 0; i < probs.size(); ++i) {
    if (keep[i]) result.push_back(i);
  }
  return result;
}

using Positions = std::vector<std::size_t>;

}  // namespace

TEST_CASE("The highest scores stay, and the last token as one of them") {
  CHECK(kept({0.1f, 0.4f, 0.2f, 0.3f, 0.0f}, "3:3", 5) == Positions{1, 3, 4});
  CHECK(kept({0.1f, 0.4f, 0.2f, 0.3f, 0.9f}, "3:3", 5) == Positions{1, 3, 4});
}

TEST_CASE("Of equal scores the lower index stays") {
  CHECK(kept({0.2f, 0.2f, 0.2f, 0.2f, 0.2f}, "3:3", 5) == Positions{0, 1, 4});
  CHECK(kept({0.1f, 0.3f, 0.1f, 0.3f, 0.3f, 0.3f}, "3:3", 6) == Positions{1, 3, 5});
}

TEST_CASE("Keep 0 and keep 1 leave the last token alone; 1.0 leaves everything") {
  CHECK(kept({0.5f, 0.5f, 0.0f}, "3:0", 3) == Positions{2});
  CHECK(kept({0.5f, 0.5f, 0.0f}, "3:1", 3) == Positions{2});
  CHECK(kept({0.5f, 0.5f, 0.0f}, "3:0.0", 3) == Positions{2});
  CHECK(kept({0.5f, 0.5f, 0.0f}, "3:1.0", 3) == Positions{0, 1, 2});
  CHECK(kept({1.0f}, "3:0", 1) == Positions{0});
}

TEST_CASE("A percentile counts the entering tokens, a fraction the context") {
  const std::vector<float> probs{0.1f, 0.2f, 0.3f, 0.4f, 0.0f};
  CHECK(kept(probs, "3:p40", 100) == Positions{2, 3, 4});
  CHECK(kept(probs, "3:0.02", 100) == Positions{3, 4});
}

TEST_CASE("A layer without an entry keeps everything and wants no scores") {
  CHECK(kept({0.1f, 0.2f, 0.3f}, "4:1", 3) == Positions{0, 1, 2});
  TopKPolicy policy(MeanOverHeads{}, parse_schedule("4:1"));
  CHECK(policy.query_rows(3, Phase::prefill) == 0);
  CHECK(policy.query_rows(4, Phase::prefill) == 1);
}

TEST_CASE("Decode follows its own schedule where one is given") {
  TopKPolicy policy(MeanOverHeads{}, parse_schedule("4:1"), parse_schedule("none"));
  CHECK(policy.query_rows(4, Phase::prefill) == 1);
  CHECK(policy.query_rows(4, Phase::decode) == 0);
  CHECK(kept({0.5f, 0.4f, 0.1f}, "3:2", 3, Phase::decode) == Positions{0, 2});
}

TEST_CASE("A NaN counts as the lowest score") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(kept({nan, 0.1f, nan, 0.2f, nan}, "3:3", 5) == Positions{1, 3, 4});
  CHECK(kept({nan, nan, nan}, "3:2", 3) == Positions{0, 2});
}

TEST_CASE("prepare refuses a layer that the model does not have, in either schedule") {
  TopKPolicy policy(MeanOverHeads{}, parse_schedule("3:1"), parse_schedule("9:1"));
  CHECK_NOTHROW(policy.prepare({.layer_count = 10, .head_count = 2, .context_capacity = 8}));
  CHECK_THROWS_AS(policy.prepare({.layer_count = 9, .head_count = 2, .context_capacity = 8}), Error);
}

TEST_CASE("prepare refuses a head that the model does not have, of the scorer or of an entry") {
  const PruningShape shape{.layer_count = 10, .head_count = 2, .context_capacity = 8};
  CHECK_THROWS_AS(TopKPolicy(MaxOverHeads{{2}}, parse_schedule("3:1")).prepare(shape), Error);
  CHECK_THROWS_AS(TopKPolicy(MeanOverHeads{}, parse_schedule("3:1/max@2")).prepare(shape), Error);
}

TEST_CASE("An entry's own score goes before the policy's scorer") {
  CHECK(kept({0.0f, 0.1f, 0.4f, 0.0f, 0.3f, 0.2f}, "3:3", 6) == Positions{2, 4, 5});
  CHECK(kept({0.0f, 0.1f, 0.4f, 0.0f, 0.3f, 0.2f}, "3:3/max~3", 6) == Positions{1, 2, 5});
  TopKPolicy policy(MeanOverHeads{}, parse_schedule("3:1/max^48,4:1"));
  CHECK(policy.query_rows(3, Phase::prefill) == 48);
  CHECK(policy.query_rows(4, Phase::prefill) == 1);
}

TEST_CASE("importance tells how the last selection ranked, and is empty where nothing was ranked") {
  TopKPolicy policy(MeanOverHeads{}, parse_schedule("3:1"));
  const std::vector<float> probs{0.25f, 0.5f, 0.25f, 0.75f, 0.0f, 0.25f};
  const std::vector<TokenIndex> tokens{0, 1, 2};
  bool keep[3] = {true, true, true};
  PruneContext context{.phase = Phase::prefill,
                       .layer = 3,
                       .context_size = 3,
                       .tokens = tokens,
                       .probs = ConstScoreView(probs.data(), 1, 2, 3)};
  policy.select(context, keep);
  CHECK(std::vector<float>(policy.importance().begin(), policy.importance().end()) ==
        std::vector<float>{0.5f, 0.25f, 0.25f});
  context.layer = 4;
  policy.select(context, keep);
  CHECK(policy.importance().empty());
}
