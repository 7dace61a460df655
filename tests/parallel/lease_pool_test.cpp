#include <doctest/doctest.h>
#include <lazyllm/parallel/lease_pool.hpp>
#include <lazyllm/parallel/thread_pool.hpp>

#include <atomic>
#include <cstddef>

using namespace lazyllm;

TEST_CASE("A lease is of an object that no other lease has, and gives it back") {
  detail::LeasePool<int> pool;
  int prepared = 0;
  pool.grow(2, [&](int& object) { object = ++prepared; });
  pool.grow(1, [&](int&) { ++prepared; });
  CHECK(pool.size() == 2);
  CHECK(prepared == 2);
  using Lease = detail::LeasePool<int>::Lease;
  for (int round = 0; round < 3; ++round) {
    const Lease a(pool), b(pool);
    CHECK(*a + *b == 3);
  }
  pool.clear();
  CHECK(pool.size() == 0);
}

TEST_CASE("Threads that lease at the same time never share an object") {
  struct Counter {
    std::size_t inside = 0;
  };
  detail::LeasePool<Counter> pool;
  std::atomic<std::size_t> made{0}, shared{0};
  pool.grow(3, [&](Counter&) { ++made; });
  ThreadPool threads(4);  // one more than there are objects: it waits
  std::atomic<std::size_t> uses{0};
  threads.parallel_for(1000, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const detail::LeasePool<Counter>::Lease counter(pool);
      if (++(*counter).inside != 1) ++shared;
      --(*counter).inside;
      ++uses;
    }
  });
  CHECK(made == 3);
  CHECK(shared == 0);
  CHECK(uses == 1000);
}
