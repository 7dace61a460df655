// Cuts a stream of text off before the first stop string, wherever the pieces of the stream end.
// Text is held back only while it may still be the start of a stop string: fewer bytes than the longest one has.
// Source: this library's; the result depends on the text alone, never on how it is cut into pieces.
#pragma once

#include <lazyllm/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// Passes text through up to the first stop string that is complete (of those that end at the same place, the longest).
class StopStringFilter {
 public:
  /// Throws Error (invalid_argument) for an empty stop string. Without stop strings everything passes.
  explicit StopStringFilter(std::vector<std::string> stop_strings) : stop_strings_(std::move(stop_strings)) {
    if (std::find(stop_strings_.begin(), stop_strings_.end(), "") != stop_strings_.end()) {
      throw Error(ErrorCode::invalid_argument, "a stop string is empty: it would stop before the first token");
    }
  }

  /// The text that can no longer belong to a stop string; nothing once stopped().
  [[nodiscard]] std::string push(std::string_view text) {
    if (stopped_) return {};
    held_ += text;
    const std::size_t match = first_match();
    stopped_ = match != std::string::npos;
    const std::size_t passing = stopped_ ? match : held_.size() - possible_start();
    std::string passed = held_.substr(0, passing);
    held_.erase(0, stopped_ ? held_.size() : passing);
    return passed;
  }
  /// At the end of the stream: what was held back.
  [[nodiscard]] std::string flush() { return std::exchange(held_, {}); }
  /// Whether a stop string was found.
  [[nodiscard]] bool stopped() const { return stopped_; }

 private:
  /// Where the stop string that is complete first starts in held_; npos: none is complete.
  [[nodiscard]] std::size_t first_match() const {
    std::size_t start = std::string::npos;
    std::size_t least_end = std::string::npos;
    for (const std::string& stop : stop_strings_) {
      const std::size_t found = held_.find(stop);
      if (found == std::string::npos) continue;
      const std::size_t end = found + stop.size();
      if (end < least_end || (end == least_end && found < start)) {
        start = found;
        least_end = end;
      }
    }
    return start;
  }

  /// The length of the longest end of held_ that a stop string starts with.
  [[nodiscard]] std::size_t possible_start() const {
    std::size_t longest = 0;
    for (const std::string& stop : stop_strings_) {
      for (std::size_t size = std::min(stop.size() - 1, held_.size()); size > longest; --size) {
        if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, size))) longest = size;
      }
    }
    return longest;
  }

  std::vector<std::string> stop_strings_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace lazyllm::inline v0
