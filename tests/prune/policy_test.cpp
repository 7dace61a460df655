#include <doctest/doctest.h>

#include <array>
#include <lazyllm/prune/policy.hpp>

using namespace lazyllm;

namespace {

struct EverySecond {
  static std::size_t query_rows(LayerIndex, Phase) { return 0; }
  static void select(const PruneContext& context, std::span<bool> keep) {
    for (std::size_t i = 0; i < keep.size(); ++i) keep[i] = context.tokens[i] % 2 == 0;
  }
};
static_assert(PruningPolicy<EverySecond>);

struct NoSelect {
  static std::size_t query_rows(LayerIndex, Phase) { return 0; }
};
struct NoQueryRows {
  static void select(const PruneContext&, std::span<bool>) {}
};
struct Ranking : EverySecond {
  std::span<const float> importance() const { return {}; }
};
static_assert(ScoringPolicy<Ranking> && !ScoringPolicy<EverySecond>);
static_assert(!PruningPolicy<NoSelect> && !PruningPolicy<NoQueryRows> && !PruningPolicy<int>);

}  // namespace

TEST_CASE("KeepAll wants no scores and drops nobody") {
  KeepAll policy;
  const std::array<TokenIndex, 3> tokens{0, 4, 9};
  std::array keep{true, true, true};
  policy.select(PruneContext{.phase = Phase::decode, .layer = 0, .context_size = 10, .tokens = tokens, .probs = {}},
                keep);
  CHECK(policy.query_rows(0, Phase::prefill) == 0);
  CHECK(keep == std::array{true, true, true});
}
