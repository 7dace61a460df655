// Confidence intervals of shares: Wilson's for one share, Newcombe's for the difference of two shares of the same
// items. Both are of 95 % and stay inside [0, 1] or [-1, 1], also for few items and for none or all right. Source:
// Wilson, JASA 22 (1927); Newcombe, Statistics in Medicine 17 (1998) 2635, method 10.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace lazyllm::inline v0 {

struct Interval {
  double low = 0;
  double high = 1;
};

/// The two-sided 95 % point of the normal distribution.
inline constexpr double z_95 = 1.959963984540054;

/// Of `right` among `count` items; everything for no items.
[[nodiscard]] inline Interval wilson_interval(std::size_t right, std::size_t count) {
  if (count == 0) return {0, 1};
  const auto n = static_cast<double>(count);
  const double share = static_cast<double>(right) / n;
  const double z2 = z_95 * z_95;
  const double centre = share + z2 / (2 * n);
  const double half = z_95 * std::sqrt(share * (1 - share) / n + z2 / (4 * n * n));
  return {right == 0 ? 0 : (centre - half) / (1 + z2 / n), right == count ? 1 : (centre + half) / (1 + z2 / n)};
}

/// The same items answered by two models: how many both, one or none answers.
struct PairedCounts {
  std::size_t both = 0;
  std::size_t gained = 0;  ///< the second alone
  std::size_t lost = 0;    ///< the first alone
  std::size_t neither = 0;

  [[nodiscard]] std::size_t count() const { return both + gained + lost + neither; }
  /// The second model's share minus the first's; 0 for no items.
  [[nodiscard]] double difference() const {
    if (count() == 0) return 0;
    return (static_cast<double>(gained) - static_cast<double>(lost)) / static_cast<double>(count());
  }
};

/// Of the difference; everything for no items.
[[nodiscard]] inline Interval paired_interval(const PairedCounts& counts) {
  const std::size_t n = counts.count();
  if (n == 0) return {-1, 1};
  const auto count = static_cast<double>(n);
  const std::size_t second_right = counts.both + counts.gained;
  const std::size_t first_right = counts.both + counts.lost;
  const double second = static_cast<double>(second_right) / count;
  const double first = static_cast<double>(first_right) / count;
  const Interval s = wilson_interval(second_right, n);
  const Interval f = wilson_interval(first_right, n);
  const auto product = [](std::size_t a, std::size_t b) { return static_cast<double>(a) * static_cast<double>(b); };
  // The correlation of the two answers, corrected for continuity towards 0 where it is positive.
  double covariance = product(counts.both, counts.neither) - product(counts.gained, counts.lost);
  if (covariance > 0) covariance = std::max(covariance - count / 2, 0.0);
  const double margins = product(second_right, n - second_right) * product(first_right, n - first_right);
  const double correlation = margins > 0 ? covariance / std::sqrt(margins) : 0;
  const auto distance = [correlation](double a, double b) {
    return std::sqrt(std::max(0.0, a * a - 2 * correlation * a * b + b * b));
  };
  return {second - first - distance(second - s.low, f.high - first),
          second - first + distance(s.high - second, first - f.low)};
}

}  // namespace lazyllm::inline v0
