// Policies by name: which policy a text means, and that AnyPolicy is that policy.
#include <doctest/doctest.h>
#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/any_policy.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <variant>
#include <vector>

using namespace lazyllm;

namespace {

const PresetSchedules presets = recommended_schedules({.layers = 30});

/// Who goes on after `layer` among `count` tokens whose only query row attends more to later ones.
std::vector<bool> selected(AnyPolicy policy, LayerIndex layer, std::size_t count) {
  policy.prepare({.layer_count = 30, .head_count = 1, .context_capacity = count});
  std::vector<TokenIndex> tokens(count);
  std::iota(tokens.begin(), tokens.end(), TokenIndex{0});
  std::vector<float> probs(count);
  std::iota(probs.begin(), probs.end(), 0.0f);
  const auto keep = std::make_unique<bool[]>(count);
  std::fill_n(keep.get(), count, true);
  const bool scored = policy.query_rows(layer, Phase::prefill) != 0;
  policy.select({.phase = Phase::prefill,
                 .layer = layer,
                 .context_size = count,
                 .tokens = tokens,
                 .probs = scored ? ConstScoreView(probs.data(), 1, 1, count) : ConstScoreView(),
                 .prompt_size = count},
                {keep.get(), count});
  return std::vector<bool>(keep.get(), keep.get() + count);
}

std::size_t kept(const std::string& text, LayerIndex layer, std::size_t count) {
  const std::vector<bool> keep = selected(AnyPolicy(parse_policy(text, presets).policy), layer, count);
  return static_cast<std::size_t>(std::count(keep.begin(), keep.end(), true));
}

}  // namespace

TEST_CASE("a policy's text names the policy and how its decode steps prune") {
  const auto none = parse_policy("none", presets);
  CHECK(std::holds_alternative<KeepAll>(none.policy));
  CHECK(none.revive_in_decode);
  CHECK(none.decode_revivals == RevivalBudget{});
  CHECK_FALSE(none.filter);
  CHECK(std::holds_alternative<TopKPolicy<>>(parse_policy("auto", presets).policy));
  CHECK(parse_policy("safe", presets).decode_revivals == recommended_decode_revivals);
  CHECK(parse_policy("fast+revive16", presets).decode_revivals == RevivalBudget{16});
  CHECK(parse_policy("auto+revive9,4,1+cached", presets).decode_revivals == RevivalBudget{9, 4, 1});
  CHECK(std::holds_alternative<TopKPolicy<>>(parse_policy("7:512/max~15,first4", presets).policy));
  CHECK(std::holds_alternative<RandomDrop>(parse_policy("random=0.5", presets).policy));
  CHECK(std::holds_alternative<FirstAndRecent>(parse_policy("first_and_recent=4,60", presets).policy));

  CHECK_FALSE(parse_policy("auto+cached", presets).revive_in_decode);
  CHECK(parse_policy("18:0.5+revive16", presets).decode_revivals == RevivalBudget{16});
  CHECK(parse_policy("none+tova:9", presets).eviction.eviction_rows(0, Phase::decode) == 1);
  CHECK(parse_policy("none", presets).eviction.eviction_rows(0, Phase::decode) == std::nullopt);
  const PolicySpec all = parse_policy("18:0.5+cached+revive3+window:2,9", presets);
  CHECK_FALSE(all.revive_in_decode);
  CHECK(all.decode_revivals == RevivalBudget{3});
  CHECK(all.eviction.eviction_rows(0, Phase::decode) == 0);
  CHECK(parse_policy("18:0.5+revive16", presets).text == "18:0.5+revive16");
  CHECK_FALSE(parse_policy("static_pruning=4:0.3", presets).revive_in_decode);
  CHECK_FALSE(parse_policy("fast_kv=15:0.2", presets).revive_in_decode);
  const auto gem = parse_policy("gem_filter=7:0.25/max~15,first4", presets);
  REQUIRE(gem.filter);
  CHECK(std::holds_alternative<KeepAll>(gem.policy));
  CHECK(*gem.filter == parse_schedule("7:0.25/max~15,first4").entries()[0]);
}

TEST_CASE("each named policy keeps what it promises, where it promises") {
  CHECK(kept("none", 18, 2000) == 2000);
  CHECK(kept("auto", 18, 2000) == 1024);
  CHECK(kept("auto", 17, 2000) == 2000);
  CHECK(kept("random=0.25", before_first_layer, 1000) == 250);
  CHECK(kept("random=0.25", 3, 1000) == 1000);
  CHECK(kept("random=8:100", 8, 1000) == 100);
  CHECK(kept("random=8:100", before_first_layer, 1000) == 1000);
  CHECK(kept("static_pruning=4:0.3", 4, 1000) == 300);
  CHECK(kept("fast_kv=15:100", 15, 1000) == 100);
  CHECK(kept("first_and_recent=4,60", before_first_layer, 1000) == 64);

  const std::vector<bool> keep = selected(AnyPolicy(parse_policy("static_pruning=4:2", presets).policy), 4, 5);
  CHECK(keep == std::vector<bool>{false, false, false, true, true});
}

TEST_CASE("random draws are those of the seed") {
  const auto draw = [](std::uint64_t seed) {
    return selected(AnyPolicy(parse_policy("random=0.5", presets, seed).policy), before_first_layer, 200);
  };
  CHECK(draw(1) == draw(1));
  CHECK(draw(1) != draw(2));
}

TEST_CASE("a text that names no policy is refused, and says what is wrong") {
  for (const char* text : {"",
                           "much",
                           "random",
                           "random=",
                           "random=x",
                           "none+",
                           "none+fast",
                           "none+tova:",
                           "none+h2o:x",
                           "none+cached+",
                           "none+revive",
                           "none+revivex",
                           "static_pruning=4:0.3,8:0.2",
                           "static_pruning=4:0.3/max",
                           "fast_kv=0.2",
                           "fast_kv=4:0.3,first4",
                           "gem_filter=7:0.25,14:0.2",
                           "gem_filter=none",
                           "first_and_recent=4",
                           "first_and_recent=4,x",
                           "snap_kv=4:0.3"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_policy(text, presets), Error);
  }
}
