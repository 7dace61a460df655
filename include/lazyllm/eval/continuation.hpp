// How far a pruned model is from the dense one on the same text: both are teacher-forced, position by position.
// KL(dense || pruned), top-1 agreement, the first position where they differ, and the true tokens' perplexities.
// Source: llama.cpp's perplexity program reports the same quantities.
#pragma once

#include <lazyllm/core/types.hpp>
#include <lazyllm/eval/logits.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// The value at `share` of the sorted values, in [0, 1], linear between neighbours. Precondition: at least one value.
[[nodiscard]] inline double quantile(std::vector<double> values, double share) {
  std::ranges::sort(values);
  const double place = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

struct ContinuationScore {
  std::size_t positions = 0;
  double kl_mean = 0;
  double kl_median = 0;
  double kl_p99 = 0;
  double top1_agreement = 0;  ///< share of the positions with the same likeliest token
  double perplexity_ratio = 1;
  std::optional<std::size_t> first_difference = {};  ///< the first position with another likeliest token
};

/// Collects positions; logits [vocab_size] of the dense model and of the pruned one before the token `id`.
class ContinuationScorer {
 public:
  void add(std::span<const float> dense, std::span<const float> pruned, TokenId id) {
    if (likeliest(dense) == likeliest(pruned)) {
      ++agreeing_;
    } else if (!first_difference_) {
      first_difference_ = divergences_.size();
    }
    divergences_.push_back(std::max(0.0, kl_divergence(dense, pruned)));
    loss_ += log_probability(dense, id) - log_probability(pruned, id);
  }

  /// Precondition: at least one position.
  [[nodiscard]] ContinuationScore score() const {
    const auto count = static_cast<double>(divergences_.size());
    double sum = 0;
    for (const double divergence : divergences_) sum += divergence;
    return {.positions = divergences_.size(),
            .kl_mean = sum / count,
            .kl_median = quantile(divergences_, 0.5),
            .kl_p99 = quantile(divergences_, 0.99),
            .top1_agreement = static_cast<double>(agreeing_) / count,
            .perplexity_ratio = std::exp(loss_ / count),
            .first_difference = first_difference_};
  }

 private:
  std::vector<double> divergences_;
  std::size_t agreeing_ = 0;
  double loss_ = 0;
  std::optional<std::size_t> first_difference_;
};

}  // namespace lazyllm::inline v0
