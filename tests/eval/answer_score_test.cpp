// The score of an answer, token by token.
#include <doctest/doctest.h>
#include <lazyllm/eval/answer_score.hpp>

#include <cmath>
#include <vector>

using namespace lazyllm;

TEST_CASE("an answer's score adds up log-probabilities and takes the worst rank") {
  AnswerScore score;
  CHECK_FALSE(score.right());  // nothing asked, nothing right
  const std::vector<float> even = {0, 0, 0, 0};
  score.add(even, 0);
  CHECK(score.right());
  score.add(std::vector<float>{0, 5, 0, 0}, 1);
  CHECK(score.right());
  score.add(even, 2);
  CHECK_FALSE(score.right());
  score.add(even, 1);
  CHECK(score.tokens == 4);
  CHECK(score.worst_rank == 2);
  const double certain = 5 - std::log(std::exp(5.0) + 3);
  CHECK(score.log_probability == doctest::Approx(3 * std::log(0.25) + certain));
}
