#include <doctest/doctest.h>

#include <array>
#include <lazyllm/prune/scorer.hpp>

using namespace lazyllm;

namespace {
struct NoScore {
  static std::size_t query_rows() { return 1; }
};
static_assert(!TokenScorer<NoScore> && !TokenScorer<int>);
}  // namespace

TEST_CASE("MeanOverHeads averages the last row over the heads") {
  // Two query rows, two heads, three keys; sums of powers of two, so the means are exact.
  std::array<float, 12> data{9,    9,     9,     9,    9,     9,  // the row before the last: ignored
                             0.5f, 0.25f, 0.25f, 0.0f, 0.75f, 0.25f};
  std::array<float, 3> importance{};
  MeanOverHeads::score(ScoreView(data.data(), 2, 2, 3), importance);
  CHECK(importance == std::array{0.25f, 0.5f, 0.25f});
}
