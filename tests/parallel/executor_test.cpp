#include <doctest/doctest.h>

#include <lazyllm/parallel/executor.hpp>

#include <cstddef>
#include <stdexcept>
#include <utility>
#include <vector>

namespace {

using lazyllm::Executor;
using lazyllm::SerialExecutor;

/// The least an executor can be: one call an index, backwards, as the concept allows.
struct Backwards {
  std::size_t concurrency() const { return 1; }
  template <class Body>
  void parallel_for(std::size_t n, Body&& body) {
    while (n-- > 0) body(n, n + 1);
  }
};
static_assert(Executor<Backwards> && Executor<SerialExecutor> && Executor<const SerialExecutor>);

struct WithoutConcurrency {
  template <class Body>
  void parallel_for(std::size_t, Body&&) {}
};
struct WithoutLoop {
  std::size_t concurrency() const { return 1; }
};
struct BodyOfOneIndex {
  std::size_t concurrency() const { return 1; }
  void parallel_for(std::size_t, void (*)(std::size_t)) {}
};
static_assert(!Executor<WithoutConcurrency> && !Executor<WithoutLoop> && !Executor<BodyOfOneIndex> && !Executor<int>);

}  // namespace

TEST_CASE("SerialExecutor runs the whole range in one call") {
  const SerialExecutor executor;
  std::vector<std::pair<std::size_t, std::size_t>> calls;
  executor.parallel_for(7, [&](std::size_t begin, std::size_t end) { calls.emplace_back(begin, end); });
  REQUIRE(calls.size() == 1);
  CHECK(calls[0] == std::pair<std::size_t, std::size_t>{0, 7});
  CHECK(executor.concurrency() == 1);
}

TEST_CASE("SerialExecutor calls nothing for an empty range") {
  bool called = false;
  SerialExecutor{}.parallel_for(0, [&](std::size_t, std::size_t) { called = true; });
  CHECK_FALSE(called);
}

TEST_CASE("for_ranges of an executor without parallel_ranges calls the body for each range") {
  static_assert(!lazyllm::RangeExecutor<Backwards> && !lazyllm::RangeExecutor<SerialExecutor>);
  Backwards executor;
  std::vector<std::size_t> visited;
  std::size_t calls = 0;
  lazyllm::detail::for_ranges(3, executor, [&](auto& ranges) {
    ++calls;
    for (lazyllm::WorkRange range = ranges.next(); !range.empty(); range = ranges.next()) {
      REQUIRE(range.size() == 1);
      visited.push_back(range.begin);
    }
  });
  CHECK(calls == 3);
  CHECK(visited == std::vector<std::size_t>{2, 1, 0});
}

TEST_CASE("an exception passes through SerialExecutor") {
  const auto fail = [](std::size_t, std::size_t) { throw std::runtime_error("body"); };
  CHECK_THROWS_WITH_AS(SerialExecutor{}.parallel_for(1, fail), "body", std::runtime_error);
}
