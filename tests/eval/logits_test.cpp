// What is read off logits, against distributions that were written down.
#include <doctest/doctest.h>
#include <lazyllm/eval/logits.hpp>

#include <cmath>
#include <vector>

using namespace lazyllm;

namespace {

/// Logits of these probabilities, moved by a constant.
std::vector<float> logits_of(const std::vector<double>& probabilities, double shift) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + shift));
  return logits;
}

constexpr double tolerance = 1e-6;  // logits below 16 rounded to float: 2^-21 each, exact but for that

}  // namespace

TEST_CASE("log-probabilities are those of the softmax, wherever the logits lie") {
  for (const double shift : {-9.0, 0.0, 12.0}) {
    const std::vector<float> logits = logits_of({0.5, 0.25, 0.2, 0.05}, shift);
    CHECK(std::abs(log_probability(logits, 0) - std::log(0.5)) <= tolerance);
    CHECK(std::abs(log_probability(logits, 3) - std::log(0.05)) <= tolerance);
  }
  CHECK(log_probability(std::vector<float>{1000, 1000}, 1) == doctest::Approx(std::log(0.5)));
}

TEST_CASE("the rank is the number of tokens that greedy sampling would take before") {
  const std::vector<float> logits = {1, 3, 2, 3};
  CHECK(rank_of(logits, 1) == 0);
  CHECK(rank_of(logits, 3) == 1);
  CHECK(rank_of(logits, 2) == 2);
  CHECK(rank_of(logits, 0) == 3);
  CHECK(likeliest(logits) == 1);
}

TEST_CASE("the divergence is that of the written distributions, 0 for equal ones, and not symmetric") {
  const std::vector<float> p = logits_of({0.5, 0.25, 0.25}, 3);
  const std::vector<float> q = logits_of({0.25, 0.5, 0.25}, -2);
  const std::vector<float> r = logits_of({0.8, 0.1, 0.1}, 0);
  CHECK(std::abs(kl_divergence(p, q) - 0.25 * std::log(2.0)) <= tolerance);
  CHECK(std::abs(kl_divergence(p, r) - (0.5 * std::log(0.5 / 0.8) + 0.5 * std::log(2.5))) <= tolerance);
  CHECK(std::abs(kl_divergence(r, p) - (0.8 * std::log(0.8 / 0.5) + 0.2 * std::log(0.4))) <= tolerance);
  CHECK(kl_divergence(p, p) == 0);
}
