// The comparison of two models on the same text, position by position.
#include <doctest/doctest.h>
#include <lazyllm/eval/continuation.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

using namespace lazyllm;

TEST_CASE("equal models have no divergence, full agreement and a perplexity ratio of 1") {
  ContinuationScorer scorer;
  for (int i = 0; i < 5; ++i) scorer.add(std::vector<float>{0, 1, 2}, std::vector<float>{0, 1, 2}, 1);
  const ContinuationScore score = scorer.score();
  CHECK(score.positions == 5);
  CHECK(score.kl_mean == 0);
  CHECK(score.kl_p99 == 0);
  CHECK(score.top1_agreement == 1);
  CHECK(score.perplexity_ratio == 1);
  CHECK_FALSE(score.first_difference);
}

TEST_CASE("mean, quantiles, agreement, ratio and first difference are those of the positions") {
  const float log2 = std::log(2.0f);
  const std::vector<float> dense = {log2, 0, 0};  // 1/2 1/4 1/4
  const std::vector<float> other = {0, log2, 0};  // 1/4 1/2 1/4
  const double divergence = 0.25 * std::log(2.0);
  ContinuationScorer scorer;
  for (int i = 0; i < 3; ++i) scorer.add(dense, dense, 0);
  scorer.add(dense, other, 0);  // loses a factor of 2
  const ContinuationScore score = scorer.score();
  CHECK(score.kl_mean == doctest::Approx(divergence / 4));
  CHECK(score.kl_median == 0);
  CHECK(score.kl_p99 == doctest::Approx(0.97 * divergence));  // place 0.99 * 3 = 2.97
  CHECK(score.top1_agreement == 0.75);
  CHECK(score.first_difference == std::size_t{3});
  CHECK(score.perplexity_ratio == doctest::Approx(std::pow(2.0, 0.25)));
}

TEST_CASE("a quantile lies linearly between its neighbours") {
  CHECK(quantile({3}, 0.5) == 3);
  CHECK(quantile({4, 1, 2}, 0) == 1);
  CHECK(quantile({4, 1, 2}, 1) == 4);
  CHECK(quantile({4, 1, 2}, 0.5) == 2);
  CHECK(quantile({4, 1, 2}, 0.75) == 3);
}
