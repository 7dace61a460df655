// Picks the next token from logits: repeat penalty, top-k, top-p, min-p, temperature, in this order.
// logits [vocab]; candidates are kept in descending order of their logits, the lower id first among equals.
// Source: the order and the meaning of each step are those of llama.cpp's default chain.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace lazyllm::inline v0 {

struct SamplerOptions {
  float temperature = 0.8f;     ///< 0: always the largest logit; else probabilities ~ exp(logit / temperature)
  std::size_t top_k = 40;       ///< only the k largest logits; 0: all
  float top_p = 0.95f;          ///< the fewest largest whose probabilities reach this sum; 1: all
  float min_p = 0.05f;          ///< only probabilities of at least this share of the largest; 0: all
  float repeat_penalty = 1.0f;  ///< recent tokens' positive logits are divided by it, the others multiplied; 1: off
  std::uint64_t seed = 0;
};

/// A generator of 64 random bits with one word of state (SplitMix64): the same numbers on every platform.
class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}
  [[nodiscard]] std::uint64_t next();
  /// A multiple of 2^-53 in [0, 1), all equally likely.
  [[nodiscard]] double next_unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  std::uint64_t state_;
};

/// One sequence's sampler. Calls with the same options, logits and recent tokens, in the same order, give the same
/// tokens. Not for several threads at once.
class Sampler {
 public:
  /// A token that the last call could have given, with its share among them.
  struct Candidate {
    TokenId id;
    float logit;
    double weight;  ///< proportional to the probability; the likeliest has 1
  };

  /// Throws Error (invalid_argument) that names the option outside its range.
  explicit Sampler(SamplerOptions options);

  /// The next token. `recent`: the ids whose repetition is penalised, in any order; each counts once.
  /// -infinity forbids a token. Throws Error (invalid_argument) for NaN, +infinity, nothing allowed, no logits, or a
  /// recent id outside them. O(vocab + k log k); without top-k but with top-p O(vocab log vocab). Allocates only when
  /// there are more logits than ever before.
  [[nodiscard]] TokenId sample(std::span<const float> logits, std::span<const TokenId> recent = {});

  [[nodiscard]] const SamplerOptions& options() const { return options_; }
  /// The candidates of the last call, the likeliest first (in the order of the ids when nothing limits their number);
  /// the chosen token alone when it was greedy.
  [[nodiscard]] std::span<const Candidate> candidates() const { return candidates_; }

 private:
  [[nodiscard]] std::span<const float> penalised(std::span<const float> logits, std::span<const TokenId> recent);
  void gather(std::span<const float> logits);
  void gather_largest(std::span<const float> logits, std::size_t count);
  void apply_top_p();
  void apply_min_p();
  [[nodiscard]] TokenId draw();

  SamplerOptions options_;
  SplitMix64 random_;
  std::vector<float> penalised_;
  std::vector<Candidate> candidates_;
};

namespace detail {

/// A strict total order: the larger logit first, of equal ones the lower id.
inline constexpr auto likelier = [](const Sampler::Candidate& a, const Sampler::Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
};

inline void expect_option(bool valid, const char* name, float value, const char* range) {
  if (!valid) {
    throw Error(ErrorCode::invalid_argument,
                std::string("sampler: ") + name + " is " + std::to_string(value) + ", must be " + range);
  }
}

/// The id of the largest logit. Throws Error (invalid_argument) unless all are below infinity and one is finite.
inline std::size_t checked_argmax(std::span<const float> logits) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  std::size_t best = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    // One comparison that NaN and +infinity fail.
    if (!(logits[i] < infinity)) {
      throw Error(ErrorCode::invalid_argument,
                  "sampler: logit " + std::to_string(i) + " is " + (logits[i] > 0 ? "+infinity" : "NaN"));
    }
    if (logits[i] > logits[best]) best = i;
  }
  if (logits.empty() || logits[best] == -infinity) {
    throw Error(ErrorCode::invalid_argument,
                "sampler: none of the " + std::to_string(logits.size()) + " logits is finite");
  }
  return best;
}

}  // namespace detail

inline std::uint64_t SplitMix64::next() {
  state_ += 0x9E3779B97F4A7C15u;
  std::uint64_t bits = state_;
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9u;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBu;
  return bits ^ (bits >> 31);
}

inline Sampler::Sampler(SamplerOptions options) : options_(options), random_(options.seed) {
  const SamplerOptions& o = options_;
  detail::expect_option(o.temperature >= 0 && std::isfinite(o.temperature), "temperature", o.temperature,
                        "finite and at least 0");
  detail::expect_option(o.top_p > 0 && o.top_p <= 1, "top_p", o.top_p, "above 0 and at most 1");
  detail::expect_option(o.min_p >= 0 && o.min_p <= 1, "min_p", o.min_p, "from 0 to 1");
  detail::expect_option(o.repeat_penalty > 0 && std::isfinite(o.repeat_penalty), "repeat_penalty", o.repeat_penalty,
                        "finite and above 0");
}

inline TokenId Sampler::sample(std::span<const float> logits, std::span<const TokenId> recent) {
  logits = penalised(logits, recent);
  const std::size_t best = detail::checked_argmax(logits);
  candidates_.clear();
  if (options_.temperature == 0) {
    candidates_.push_back({static_cast<TokenId>(best), logits[best], 1.0});
    return candidates_.front().id;
  }
  gather(logits);
  apply_top_p();
  apply_min_p();
  return draw();
}

inline std::span<const float> Sampler::penalised(std::span<const float> logits, std::span<const TokenId> recent) {
  for (const TokenId id : recent) {
    if (id < 0 || static_cast<std::size_t>(id) >= logits.size()) {
      throw Error(ErrorCode::invalid_argument, "sampler: recent token " + std::to_string(id) + " is not one of the " +
                                                   std::to_string(logits.size()) + " logits");
    }
  }
  if (options_.repeat_penalty == 1 || recent.empty()) return logits;
  penalised_.assign(logits.begin(), logits.end());
  for (const TokenId id : recent) {
    // From the original logit, so that a token which appears twice is penalised once.
    const float logit = logits[static_cast<std::size_t>(id)];
    penalised_[static_cast<std::size_t>(id)] =
        logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
  }
  return penalised_;
}

inline void Sampler::gather(std::span<const float> logits) {
  if (options_.top_k > 0 && options_.top_k < logits.size()) return gather_largest(logits, options_.top_k);
  candidates_.reserve(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) candidates_.push_back({static_cast<TokenId>(i), logits[i], 0});
  if (options_.top_p < 1) std::sort(candidates_.begin(), candidates_.end(), detail::likelier);
}

inline void Sampler::gather_largest(std::span<const float> logits, std::size_t count) {
  // A heap of the `count` likeliest so far with the least likely on top; most logits fail the first comparison.
  // Ids ascend, so a later equal logit never displaces an earlier one.
  candidates_.reserve(count);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (candidates_.size() == count) {
      if (!(logits[i] > candidates_.front().logit)) continue;
      std::pop_heap(candidates_.begin(), candidates_.end(), detail::likelier);
      candidates_.pop_back();
    }
    candidates_.push_back({static_cast<TokenId>(i), logits[i], 0});
    std::push_heap(candidates_.begin(), candidates_.end(), detail::likelier);
  }
  std::sort_heap(candidates_.begin(), candidates_.end(), detail::likelier);
}

inline void Sampler::apply_top_p() {
  if (options_.top_p >= 1) return;
  const double largest = candidates_.front().logit;
  double total = 0;
  for (const Candidate& c : candidates_) total += std::exp(double{c.logit} - largest);
  double sum = 0;
  std::size_t kept = 0;
  while (kept < candidates_.size() && sum < double{options_.top_p} * total) {
    sum += std::exp(double{candidates_[kept].logit} - largest);
    ++kept;
  }
  candidates_.resize(std::max<std::size_t>(kept, 1));
}

inline void Sampler::apply_min_p() {
  if (options_.min_p <= 0) return;
  const auto largest = std::min_element(candidates_.begin(), candidates_.end(), detail::likelier);
  const double lowest = double{largest->logit} + std::log(double{options_.min_p});
  std::erase_if(candidates_, [lowest](const Candidate& c) { return c.logit < lowest; });
}

inline TokenId Sampler::draw() {
  const double largest = std::min_element(candidates_.begin(), candidates_.end(), detail::likelier)->logit;
  double total = 0;
  for (Candidate& c : candidates_) {
    c.weight = std::exp((double{c.logit} - largest) / double{options_.temperature});
    total += c.weight;
  }
  // The first candidate whose running sum exceeds the target. The sums are those of `total`, and the target lies below
  // it (a unit below 1 times a double rounds to less than that double), so one does; a weight of 0 never does.
  const double target = random_.next_unit() * total;
  double sum = 0;
  for (const Candidate& c : candidates_) {
    sum += c.weight;
    if (sum > target) return c.id;
  }
  return candidates_.front().id;
}

}  // namespace lazyllm::inline v0
