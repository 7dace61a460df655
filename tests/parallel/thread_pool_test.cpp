#include <doctest/doctest.h>

#include <lazyllm/parallel/thread_pool.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using lazyllm::ThreadPool;
static_assert(!std::is_copy_constructible_v<ThreadPool> && !std::is_move_constructible_v<ThreadPool>);
static_assert(!std::is_convertible_v<std::size_t, ThreadPool>);

/// Long enough for every worker of an idle pool to fall asleep.
void let_workers_sleep() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

}  // namespace

TEST_CASE("a ThreadPool has as many threads as asked for, and at least the caller") {
  CHECK(ThreadPool(0).concurrency() == 1);
  for (std::size_t threads = 1; threads <= 4; ++threads) CHECK(ThreadPool(threads).concurrency() == threads);
}

TEST_CASE("parallel_for visits every index exactly once, for any length and number of threads") {
  for (std::size_t threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    for (const std::size_t n : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{7}, std::size_t{8},
                                std::size_t{15}, std::size_t{16}, std::size_t{17}, std::size_t{31}, std::size_t{33},
                                std::size_t{63}, std::size_t{100}, std::size_t{1000}, std::size_t{4099}}) {
      // Not atomic on purpose: an index given to two threads is a data race that TSan reports.
      std::vector<int> visits(n, 0);
      std::atomic<std::size_t> bad_ranges = 0;
      pool.parallel_for(n, [&](std::size_t begin, std::size_t end) {
        if (begin >= end || end > n) ++bad_ranges;
        for (std::size_t i = begin; i < end && i < n; ++i) ++visits[i];
      });
      CHECK(bad_ranges == 0);
      CHECK(visits == std::vector<int>(n, 1));
    }
  }
}

TEST_CASE("parallel_for calls nothing for an empty range") {
  for (std::size_t threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    std::atomic<int> calls = 0;
    pool.parallel_for(0, [&](std::size_t, std::size_t) { ++calls; });
    CHECK(calls == 0);
  }
}

TEST_CASE("a pool is reused ten thousand times, lengths and bodies changing from call to call") {
  ThreadPool pool(3);
  std::size_t wrong = 0;
  for (std::size_t round = 0; round < 10000; ++round) {
    const std::size_t n = 1 + round % 61;
    std::atomic<std::size_t> sum = 0;
    pool.parallel_for(n, [&sum, round](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) sum.fetch_add(i + round, std::memory_order_relaxed);
    });
    if (sum != n * (n - 1) / 2 + n * round) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("what the threads wrote is visible to the caller after parallel_for") {
  ThreadPool pool(4);
  std::vector<std::uint64_t> values(512);
  std::uint64_t expected = 0;
  for (std::uint64_t round = 1; round <= 200; ++round) {
    pool.parallel_for(values.size(), [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) values[i] += i * round;
    });
    expected += round * 511 * 512 / 2;
    if (std::accumulate(values.begin(), values.end(), std::uint64_t{0}) != expected) FAIL("a write was lost");
  }
  CHECK(expected != 0);
}

TEST_CASE("sleeping workers wake up: each of two threads takes part when both are needed") {
  ThreadPool pool(2);
  for (int round = 0; round < 20; ++round) {
    let_workers_sleep();
    // Each chunk waits until the other has begun: one thread alone would never get past the first.
    std::atomic<int> begun = 0;
    std::mutex mutex;
    std::set<std::thread::id> threads;
    pool.parallel_for(2, [&](std::size_t, std::size_t) {
      ++begun;
      while (begun != 2) std::this_thread::yield();
      const std::lock_guard lock(mutex);
      threads.insert(std::this_thread::get_id());
    });
    CHECK(threads.size() == 2);
  }
}

TEST_CASE("a thread that is done takes from another's share") {
  ThreadPool pool(2);
  for (int round = 0; round < 20; ++round) {
    // The caller claims 0 and 1 of its 0 to 3, and does not go on before all others are done.
    std::atomic<int> others = 0;
    pool.parallel_for(8, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        if (i > 1) ++others;
        if (i == 0) {
          while (others != 6) std::this_thread::yield();
        }
      }
    });
    CHECK(others == 6);
  }
}

TEST_CASE("parallel_ranges visits every index once, and calls the body at most once a thread") {
  for (std::size_t threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    for (const std::size_t n : {std::size_t{1}, std::size_t{2}, std::size_t{5}, std::size_t{64}, std::size_t{1000}}) {
      std::vector<int> visits(n, 0);
      std::atomic<std::size_t> calls = 0, calls_for_nothing = 0;
      pool.parallel_ranges(n, [&](auto& ranges) {
        ++calls;
        lazyllm::WorkRange range = ranges.next();
        if (range.empty()) ++calls_for_nothing;
        for (; !range.empty(); range = ranges.next()) {
          for (std::size_t i = range.begin; i < range.end; ++i) ++visits[i];
        }
      });
      CHECK(calls >= 1);
      CHECK(calls <= threads);
      CHECK(calls_for_nothing == 0);
      CHECK(visits == std::vector<int>(n, 1));
    }
  }
}

TEST_CASE("a body of parallel_ranges that throws before it takes a range, or between two, ends the call") {
  for (std::size_t threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    for (int taken = 0; taken < 3; ++taken) {
      const auto body = [&](auto& ranges) {
        for (int i = 0; i < taken; ++i) ranges.next();
        throw std::runtime_error("body");
      };
      CHECK_THROWS_WITH_AS(pool.parallel_ranges(100, body), "body", std::runtime_error);
      std::atomic<std::size_t> after = 0;
      pool.parallel_for(40, [&](std::size_t begin, std::size_t end) { after += end - begin; });
      CHECK(after == 40);
    }
  }
}

TEST_CASE("an exception of the body reaches the caller after all chunks ended, and the pool stays usable") {
  for (std::size_t threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    for (std::size_t thrower = 0; thrower < 40; thrower += 3) {
      std::atomic<int> running = 0;
      const auto body = [&](std::size_t begin, std::size_t end) {
        ++running;
        for (std::size_t i = begin; i < end; ++i) {
          if (i == thrower) {
            --running;
            throw std::runtime_error("index " + std::to_string(i));
          }
        }
        --running;
      };
      const std::string message = "index " + std::to_string(thrower);
      CHECK_THROWS_WITH_AS(pool.parallel_for(40, body), message.c_str(), std::runtime_error);
      CHECK(running == 0);
      std::atomic<std::size_t> after = 0;
      pool.parallel_for(40, [&](std::size_t begin, std::size_t end) { after += end - begin; });
      CHECK(after == 40);
    }
  }
}

TEST_CASE("when every chunk throws the caller sees one exception") {
  ThreadPool pool(4);
  for (int round = 0; round < 50; ++round) {
    const auto body = [](std::size_t, std::size_t) { throw std::invalid_argument("each"); };
    CHECK_THROWS_WITH_AS(pool.parallel_for(32, body), "each", std::invalid_argument);
  }
}

TEST_CASE("the body is used where it is: neither copied nor moved") {
  struct Body {
    std::atomic<std::size_t>* count;
    explicit Body(std::atomic<std::size_t>* c) : count(c) {}
    Body(const Body&) = delete;
    Body& operator=(const Body&) = delete;
    void operator()(std::size_t begin, std::size_t end) const { *count += end - begin; }
  };
  ThreadPool pool(2);
  std::atomic<std::size_t> count = 0;
  const Body body(&count);
  pool.parallel_for(100, body);
  pool.parallel_for(100, Body(&count));
  CHECK(count == 200);
}

TEST_CASE("pools are made and destroyed busy, idle, and never used") {
  for (int round = 0; round < 100; ++round) {
    ThreadPool pool(1 + static_cast<std::size_t>(round) % 4);
    if (round % 3 == 1) pool.parallel_for(8, [](std::size_t, std::size_t) {});
    if (round % 10 == 0) let_workers_sleep();
  }
  CHECK(true);
}

TEST_CASE("two pools work side by side, each driven by its own thread") {
  std::atomic<std::size_t> total = 0;
  const auto drive = [&total] {
    ThreadPool pool(2);
    for (int round = 0; round < 300; ++round) {
      pool.parallel_for(50, [&](std::size_t begin, std::size_t end) { total += end - begin; });
    }
  };
  std::thread other(drive);
  drive();
  other.join();
  CHECK(total == 2 * 300 * 50);
}
