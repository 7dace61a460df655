#include <doctest/doctest.h>

#include <lazyllm/prune/baselines.hpp>
#include <memory>
#include <numeric>
#include <vector>

using namespace lazyllm;

namespace {

using Tokens = std::vector<TokenIndex>;

/// Who of tokens 0 .. context - 1 goes on after `layer`; probs [rows][tokens] of one head. The last `generated` tokens
/// came after the prompt.
template <class Policy>
Tokens kept(Policy&& policy, LayerIndex layer, std::size_t context, const std::vector<std::vector<float>>& probs = {},
            std::size_t generated = 0) {
  Tokens tokens(context);
  std::iota(tokens.begin(), tokens.end(), TokenIndex{0});
  std::vector<float> flat;
  for (const auto& row : probs) flat.insert(flat.end(), row.begin(), row.end());
  const auto keep = std::make_unique<bool[]>(context);
  std::fill_n(keep.get(), context, true);
  if constexpr (requires { policy.prepare({}); }) {
    policy.prepare({.layer_count = 10, .head_count = 1, .context_capacity = 100});
  }
  policy.select(PruneContext{.phase = generated == 0 ? Phase::prefill : Phase::decode,
                             .layer = layer,
                             .context_size = context,
                             .tokens = tokens,
                             .probs = ConstScoreView(flat.data(), probs.size(), 1, probs.empty() ? 0 : context),
                             .prompt_size = context - generated},
                {keep.get(), context});
  Tokens result;
  for (std::size_t i = 0; i < context; ++i) {
    if (keep[i]) result.push_back(tokens[i]);
  }
  return result;
}

}  // namespace

TEST_CASE("FirstAndRecent keeps the first tokens and a window, after its layer only") {
  const FirstAndRecent policy{.layer = 2, .first = 2, .recent = 3};
  CHECK(kept(policy, 2, 8) == Tokens{0, 1, 5, 6, 7});
  CHECK(kept(policy, 2, 4) == Tokens{0, 1, 2, 3});
  CHECK(kept(policy, 3, 4) == Tokens{0, 1, 2, 3});
  CHECK(kept(policy, before_first_layer, 4) == Tokens{0, 1, 2, 3});
  CHECK(kept(FirstAndRecent{.first = 1, .recent = 1}, before_first_layer, 5) == Tokens{0, 4});
}

TEST_CASE("RandomDrop keeps the schedule's number, the same tokens in every step, and all generated ones") {
  const StepSchedule schedule({{before_first_layer, KeepRule::count(6)}, {2, KeepRule::count(3)}});
  RandomDrop policy(schedule, 7);
  const Tokens six = kept(policy, before_first_layer, 40);
  const Tokens three = kept(policy, 2, 40);
  CHECK(six.size() == 6);
  CHECK(three.size() == 3);
  CHECK(std::includes(six.begin(), six.end(), three.begin(), three.end()));
  CHECK(kept(policy, 1, 4) == Tokens{0, 1, 2, 3});
  CHECK(policy.importance().empty());
  CHECK(policy.query_rows(2, Phase::prefill) == 0);
  RandomDrop again(schedule, 7), other(schedule, 8);
  CHECK(kept(again, before_first_layer, 40) == six);
  CHECK(kept(other, before_first_layer, 40) != six);
  // Two tokens were generated after the prompt of 40; the last prompt token competes as any other.
  const Tokens decode = kept(again, 2, 42, {}, 2);
  CHECK(decode == Tokens{decode[0], 40, 41});
  CHECK(decode[0] < 40);
  CHECK_THROWS_AS(kept(*std::make_unique<RandomDrop>(parse_schedule("10:1"), 7), 2, 4), Error);
}

TEST_CASE("RandomDrop's draws are spread evenly") {
  RandomDrop policy(StepSchedule({{0, KeepRule::count(50)}}), 1);
  std::size_t sum = 0;
  for (const TokenIndex token : kept(policy, 0, 100)) sum += token;
  // 50 of 0 .. 99: a mean of 49.5, of standard deviation 28.9 / sqrt(50) * sqrt(1 / 2) = 2.9 and five times that.
  CHECK(sum > 50 * 35);
  CHECK(sum < 50 * 64);
}

TEST_CASE("static_pruning selects once by the last row's mean") {
  auto policy = static_pruning(3, KeepRule::count(3));
  CHECK(kept(policy, 3, 5, {{0.1f, 0.4f, 0.2f, 0.3f, 0.0f}}) == Tokens{1, 3, 4});
  CHECK(kept(policy, 2, 5, {}) == Tokens{0, 1, 2, 3, 4});
}

TEST_CASE("fast_kv selects once by the pooled mean of the last rows, and keeps these") {
  auto policy = fast_kv(5, KeepRule::count(5), 2, 3);
  CHECK(policy.query_rows(5, Phase::prefill) == 2);
  // Means 0 0 3 0 0 0 1 0; pooled by three: 0 1 1 1 0 1/3 1/3 1/2.
  CHECK(kept(policy, 5, 8, {{0, 0, 6, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 2, 0}}) == Tokens{1, 2, 3, 6, 7});
}

TEST_CASE("compose keeps what all of its policies keep, and gives each the rows that it wants") {
  auto policy =
      compose(FirstAndRecent{.layer = 3, .first = 3, .recent = 2},
              TopKPolicy(MeanOverHeads{}, parse_schedule("3:4,4:2")), TopKPolicy(OverRows<>{2}, parse_schedule("3:4")));
  CHECK(policy.query_rows(3, Phase::prefill) == 2);
  CHECK(policy.query_rows(4, Phase::prefill) == 1);
  CHECK(policy.query_rows(5, Phase::prefill) == 0);
  const std::vector<std::vector<float>> probs{{0, 4, 0, 9, 0, 0, 0}, {3, 2, 4, 0, 1, 0, 0}};
  // First and recent: 0 1 2 5 6. Last row: 0 1 2 6. Two rows, sums 3 6 4 9 1 0 0: 1 2 3 6.
  CHECK(kept(policy, 3, 7, probs) == Tokens{1, 2, 6});
  CHECK(std::vector<float>(policy.importance().begin(), policy.importance().end()) ==
        std::vector<float>{3, 2, 4, 0, 1, 0, 0});
  CHECK(kept(policy, 5, 3) == Tokens{0, 1, 2});
  CHECK(kept(policy, before_first_layer, 3) == Tokens{0, 1, 2});
}
