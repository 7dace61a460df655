// What an evaluation reads off logits [vocab_size]: log-probabilities, ranks, the divergence of two distributions.
// Everything is summed in double, in the vocabulary's order.
// Source: the definitions.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/types.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

namespace lazyllm::inline v0 {

/// log of the sum of exp(logit): a log-probability is a logit minus it. O(vocab).
[[nodiscard]] inline double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - largest);
  return largest + std::log(sum);
}

[[nodiscard]] inline double log_probability(std::span<const float> logits, TokenId id) {
  return double{logits[static_cast<std::size_t>(id)]} - log_sum_exp(logits);
}

/// The token that greedy sampling takes: of equal logits the lower id.
[[nodiscard]] inline TokenId likeliest(std::span<const float> logits) {
  return static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
}

/// How many tokens greedy sampling would take before this one: 0 is the likeliest.
[[nodiscard]] inline std::size_t rank_of(std::span<const float> logits, TokenId id) {
  const auto place = static_cast<std::size_t>(id);
  std::size_t rank = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > logits[place] || (logits[i] == logits[place] && i < place)) ++rank;
  }
  return rank;
}

/// KL(p || q) of the distributions that the logits stand for, in nats; at least 0 but for rounding.
[[nodiscard]] inline double kl_divergence(std::span<const float> p, std::span<const float> q) {
  LAZYLLM_EXPECTS(p.size() == q.size());
  const double p_sum = log_sum_exp(p);
  const double q_sum = log_sum_exp(q);
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double log_p = double{p[i]} - p_sum;
    const double weight = std::exp(log_p);
    if (weight > 0) sum += weight * (log_p - (double{q[i]} - q_sum));
  }
  return sum;
}

}  // namespace lazyllm::inline v0
