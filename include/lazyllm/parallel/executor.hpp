// The one way work is spread over threads: parallel_for over an index range.
// An executor may call the body for any partition of [0, n), in any order, on any thread; results never depend on it.
#pragma once

#include <concepts>
#include <cstddef>
#include <utility>

namespace lazyllm::inline v0 {

namespace detail {
struct ExecutorProbe {
  void operator()(std::size_t, std::size_t) const {}
};
}  // namespace detail

/// concurrency(): how many threads may run the body at once (>= 1).
/// parallel_for(n, body): calls body(begin, end) for disjoint ranges that cover [0, n) and returns when all are done;
/// an exception of the body reaches the caller. Not re-entrant. n == 0 calls nothing.
template <class E>
concept Executor = requires(E& e, std::size_t n, const detail::ExecutorProbe& body) {
  { e.concurrency() } -> std::convertible_to<std::size_t>;
  e.parallel_for(n, body);
};

/// Indices begin to end - 1 of a loop.
struct WorkRange {
  std::size_t begin = 0, end = 0;
  [[nodiscard]] std::size_t size() const { return end - begin; }
  [[nodiscard]] bool empty() const { return begin == end; }
};

namespace detail {
struct RangesProbe {
  void operator()(auto& ranges) const { static_cast<void>(WorkRange(ranges.next())); }
};
}  // namespace detail

/// An Executor that tells its body when a thread is done. parallel_ranges(n, body): as parallel_for, but a thread calls
/// body(ranges) once, and that calls ranges.next(), a WorkRange, until it is empty.
template <class E>
concept RangeExecutor = Executor<E> && requires(E& e, std::size_t n, const detail::RangesProbe& body) {
  e.parallel_ranges(n, body);
};

/// Runs everything on the calling thread.
struct SerialExecutor {
  [[nodiscard]] static constexpr std::size_t concurrency() { return 1; }

  template <std::invocable<std::size_t, std::size_t> Body>
  void parallel_for(std::size_t n, Body&& body) const {
    if (n != 0) body(std::size_t{0}, n);
  }
};
static_assert(Executor<SerialExecutor>);

namespace detail {

/// One range, then none.
class SingleRange {
 public:
  SingleRange(std::size_t begin, std::size_t end) : range_{begin, end} {}
  WorkRange next() { return std::exchange(range_, WorkRange{}); }

 private:
  WorkRange range_;
};

/// parallel_ranges, or where the executor has none, parallel_for with a call for each range.
template <Executor E, class Body>
void for_ranges(std::size_t n, E& executor, const Body& body) {
  if constexpr (RangeExecutor<E>) {
    executor.parallel_ranges(n, body);
  } else {
    executor.parallel_for(n, [&](std::size_t begin, std::size_t end) {
      SingleRange range(begin, end);
      body(range);
    });
  }
}

/// Elements below which row-wise work stays on the calling thread: waking others costs more than about 10 us of it.
inline constexpr std::size_t serial_elements = 32768;

/// body(begin, end) over rows, spread over threads when there is enough work; results never depend on it.
template <Executor E, class Body>
void for_rows(std::size_t rows, std::size_t elements_per_row, E& executor, const Body& body) {
  if (rows == 0) return;
  if (rows * elements_per_row < serial_elements) {
    body(std::size_t{0}, rows);
  } else {
    executor.parallel_for(rows, body);
  }
}

}  // namespace detail

}  // namespace lazyllm::inline v0
