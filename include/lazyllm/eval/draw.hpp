// Draws for generated tasks: numbers below a bound, elements of a list, several different elements.
// The same seed gives the same draws on every platform; nothing of the standard library's distributions is used.
// Source: this library's, over SplitMix64.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/text/sampler.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

class Draw {
 public:
  /// Different keys of the same seed give streams that have nothing to do with each other.
  explicit Draw(std::uint64_t seed, std::initializer_list<std::uint64_t> keys = {}) : random_(mixed(seed, keys)) {}

  /// In [0, count), count >= 1; the bias is below count / 2^64.
  [[nodiscard]] std::size_t below(std::size_t count) {
    LAZYLLM_EXPECTS(count != 0);
    return static_cast<std::size_t>(random_.next() % count);
  }
  /// In [0, 1).
  [[nodiscard]] double unit() { return random_.next_unit(); }

  [[nodiscard]] std::string pick(std::span<const std::string_view> words) {
    return std::string(words[below(words.size())]);
  }
  /// `count` different words, count <= words.size().
  [[nodiscard]] std::vector<std::string> pick(std::span<const std::string_view> words, std::size_t count) {
    LAZYLLM_EXPECTS(count <= words.size());
    std::vector<std::string> rest(words.begin(), words.end());
    for (std::size_t i = 0; i < count; ++i) std::swap(rest[i], rest[i + below(rest.size() - i)]);
    rest.resize(count);
    return rest;
  }
  /// `count` different numbers of four digits, count <= 9,000; O(count^2).
  [[nodiscard]] std::vector<std::string> numbers(std::size_t count) {
    LAZYLLM_EXPECTS(count <= 9000);
    std::vector<std::string> drawn;
    while (drawn.size() < count) {
      std::string number = std::to_string(1000 + below(9000));
      if (std::find(drawn.begin(), drawn.end(), number) == drawn.end()) drawn.push_back(std::move(number));
    }
    return drawn;
  }

 private:
  static std::uint64_t mixed(std::uint64_t seed, std::initializer_list<std::uint64_t> keys) {
    for (const std::uint64_t key : keys) seed = SplitMix64(seed ^ SplitMix64(key).next()).next();
    return seed;
  }

  SplitMix64 random_;
};

}  // namespace lazyllm::inline v0
