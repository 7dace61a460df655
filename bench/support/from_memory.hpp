// Work on memory that no cache holds, in slices that take turns with plain reading of as many bytes.
#pragma once

#include <benchmark/benchmark.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

namespace lazyllm::bench {

/// More than 1 GB, and more than twice the last cache.
inline std::size_t cold_bytes() {
  const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return std::max(std::size_t{1} << 30, cache > 0 ? 2 * static_cast<std::size_t>(cache) : 0);
}

/// The share of the speed of plain reading that a benchmark's passes have, each of which reads as many bytes. The
/// median of slices: the speed of memory changes from one moment to the next.
class ReadShare {
 public:
  explicit ReadShare(std::size_t pass_bytes)
      : pass_bytes_(pass_bytes), slice_(std::max<std::size_t>(1, slice_bytes / pass_bytes)) {}

  /// Ends a pass. After a slice of them calls plainly_read(passes), which reads as many bytes as so many passes, and
  /// returns how many it read.
  template <class PlainlyRead>
  void end_pass(benchmark::State& state, const PlainlyRead& plainly_read) {
    if (++passes_ < slice_) return;
    const double seconds = seconds_since(start_);
    state.PauseTiming();
    const Clock::time_point start = Clock::now();
    const auto bytes = static_cast<double>(plainly_read(slice_));
    const double seconds_per_byte = seconds_since(start) / bytes;
    shares_.push_back(seconds_per_byte * static_cast<double>(slice_ * pass_bytes_) / seconds);
    passes_ = 0;
    state.ResumeTiming();
    start_ = Clock::now();
  }

  /// Adds the counter.
  void report(benchmark::State& state, const char* name) {
    if (shares_.empty()) return;
    const auto middle = shares_.begin() + static_cast<std::ptrdiff_t>(shares_.size() / 2);
    std::nth_element(shares_.begin(), middle, shares_.end());
    state.counters[name] = *middle;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t slice_bytes = std::size_t{20} << 20;

  static double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  const std::size_t pass_bytes_;
  const std::size_t slice_;  // passes
  std::size_t passes_ = 0;   // of this slice
  Clock::time_point start_ = Clock::now();
  std::vector<double> shares_;
};

}  // namespace lazyllm::bench
