// How many tokens stay at a pruning point: a share of the context, a number, a percentile, or a share of the attention,
// and maybe never fewer than a number: shares of a short context cut it too deep (docs/comparison.md).
// All are whole-number arithmetic but the last, which depends on the scores (prune/selection.hpp counts it out).
// Source: percentile: LazyLLM, arXiv 2407.14057, section 3.2; the others are this library's.
#pragma once

#include <lazyllm/core/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

namespace lazyllm::inline v0 {

/// How many tokens one entry keeps.
class KeepRule {
 public:
  /// A share of the context (all tokens so far), in [0, 1], rounded up. Exact for up to 9 decimals. Throws Error
  /// outside.
  static KeepRule fraction(double share) { return {Kind::fraction, checked_share("keep fraction", share)}; }
  /// A number of tokens; 0 means the last token alone, as 1 does.
  static KeepRule count(std::uint64_t tokens) { return {Kind::count, tokens}; }
  /// The paper's rule: the lowest `percent` of the entering tokens go, in [0, 99]. Throws Error outside.
  static KeepRule percentile(std::uint64_t percent) {
    if (percent > 99) {
      throw Error(ErrorCode::invalid_argument, "keep percentile p" + std::to_string(percent) + " is outside p0 to p99");
    }
    return {Kind::percentile, percent};
  }
  /// The fewest tokens whose importance adds up to this share of the entering tokens' importance, in [0, 1]. Throws
  /// Error outside.
  static KeepRule mass(double share) { return {Kind::mass, checked_share("attention mass", share)}; }

  /// The same rule that keeps at least `tokens` where so many enter: fraction(0.35).at_least(256).
  [[nodiscard]] KeepRule at_least(std::uint64_t tokens) const {
    KeepRule rule = *this;
    rule.least_ = tokens;
    return rule;
  }

  /// Whether the number of tokens follows from their importance: then keep_count is the most it may be, `entering`.
  [[nodiscard]] bool is_mass() const { return kind_ == Kind::mass; }
  /// Of a mass: the share.
  [[nodiscard]] double mass_share() const { return static_cast<double>(value_) / fraction_unit; }

  /// Tokens kept of `entering` >= 1, in [1, entering].
  [[nodiscard]] std::size_t keep_count(std::size_t entering, std::size_t context) const {
    std::uint64_t keep = value_;
    if (kind_ == Kind::fraction) {
      // ceil(value * context / unit) without a product that could overflow.
      const std::uint64_t unit = fraction_unit;
      keep = context / unit * value_ + (context % unit * value_ + unit - 1) / unit;
    } else if (kind_ == Kind::percentile) {
      keep = entering - (entering / 100 * value_ + entering % 100 * value_ / 100);
    } else if (kind_ == Kind::mass) {
      keep = entering;
    }
    return clamped(std::max(keep, least_), entering);
  }
  /// Of these the ones that stay whatever their importance adds up to: all, but for a mass.
  [[nodiscard]] std::size_t least_count(std::size_t entering, std::size_t context) const {
    return is_mass() ? clamped(least_, entering) : keep_count(entering, context);
  }

  /// As a schedule's text names it: 0.25, 512, p30 or m0.9, and with at_least(256): 0.25min256.
  [[nodiscard]] std::string text() const { return rule_text() + (least_ == 0 ? "" : "min" + std::to_string(least_)); }

  friend bool operator==(const KeepRule&, const KeepRule&) = default;

 private:
  enum class Kind { fraction, count, percentile, mass };
  static constexpr std::uint64_t fraction_unit = 1'000'000'000;
  KeepRule(Kind kind, std::uint64_t value) : kind_(kind), value_(value) {}

  [[nodiscard]] std::string rule_text() const {
    if (kind_ == Kind::count) return std::to_string(value_);
    if (kind_ == Kind::percentile) return "p" + std::to_string(value_);
    std::string digits = std::to_string(fraction_unit + value_ % fraction_unit).substr(1);  // nine, leading zeros too
    digits.resize(std::max<std::size_t>(1, digits.find_last_not_of('0') + 1));
    return (kind_ == Kind::mass ? "m" : "") + std::to_string(value_ / fraction_unit) + "." + digits;
  }

  static std::size_t clamped(std::uint64_t keep, std::size_t entering) {
    return static_cast<std::size_t>(std::clamp<std::uint64_t>(keep, 1, entering));
  }
  static std::uint64_t checked_share(const char* what, double share) {
    if (!(share >= 0.0 && share <= 1.0)) {
      throw Error(ErrorCode::invalid_argument, std::string(what) + " " + std::to_string(share) + " is outside [0, 1]");
    }
    return static_cast<std::uint64_t>(std::llround(share * fraction_unit));
  }

  Kind kind_;
  std::uint64_t value_;
  std::uint64_t least_ = 0;
};

}  // namespace lazyllm::inline v0
