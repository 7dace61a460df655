// A fixed set of threads that share the indices of one parallel_for at a time. Each starts with a share of its own, in
// order, and helps others when that is done: a slow thread does less, and one that wakes up late is never waited for.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/parallel/executor.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lazyllm::inline v0 {

/// An Executor with `threads` threads, the caller among them. One parallel_for at a time, from one thread at a time.
/// Waiting threads spin briefly, then sleep: short gaps between calls cost no system call, idle pools cost no CPU.
class ThreadPool {
 public:
  explicit ThreadPool(std::size_t threads)
      : threads_(std::max<std::size_t>(threads, 1)), shares_(std::make_unique<Share[]>(threads_)) {
    workers_.reserve(threads_ - 1);
    try {
      for (std::size_t i = 1; i < threads_; ++i) workers_.emplace_back([this, i] { work(i); });
    } catch (...) {  // the system has no more threads: end those that started
      stop();
      throw;
    }
  }
  ~ThreadPool() { stop(); }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] std::size_t concurrency() const { return threads_; }

  /// Each thread starts with one of concurrency() equal parts of [0, n), and takes half of what is left of it at a
  /// time; when it is done, half of what is left of another's. After an exception of the body what nobody has claimed
  /// yet is dropped; it is rethrown here once all threads are done.
  template <std::invocable<std::size_t, std::size_t> Body>
  void parallel_for(std::size_t n, Body&& body) {
    parallel_ranges(n, [&](auto& ranges) {
      for (WorkRange range = ranges.next(); !range.empty(); range = ranges.next()) body(range.begin, range.end);
    });
  }

  /// The same ranges: each thread that gets any calls body(ranges) once (RangeExecutor).
  template <class Body>
  void parallel_ranges(std::size_t n, Body&& body) {
    if (n == 0) return;
    if (workers_.empty() || n == 1) {
      detail::SingleRange whole(0, n);
      body(whole);
      return;
    }
    LAZYLLM_EXPECTS(n < none_left);
    using Callable = std::remove_reference_t<Body>;
    run({n, const_cast<void*>(static_cast<const void*>(std::addressof(body))),
         [](void* context, Ranges& ranges) { (*static_cast<Callable*>(context))(ranges); }});
  }

 private:
  class Ranges;
  using Call = void (*)(void* context, Ranges& ranges);
  struct Job {
    std::size_t n = 0;
    void* context = nullptr;
    Call call = nullptr;
  };
  // What is left of a thread's part: the generation of the job (high half) and the first index that nobody claimed
  // (low half). On a cache line of its own, which mostly its thread writes. Between jobs every share has the last
  // generation and nothing left.
  struct alignas(64) Share {
    std::atomic<std::uint64_t> next{none_left};
  };

  /// What one thread gets of a job: of its own share, then of the other threads'.
  class Ranges {
   public:
    /// `claimed`: a first range, or none.
    Ranges(ThreadPool& pool, std::size_t n, std::uint32_t generation, std::size_t thread, WorkRange claimed)
        : pool_(pool), n_(n), generation_(generation), thread_(thread), claimed_(claimed) {}

    /// Whether next() gives another one.
    [[nodiscard]] bool any() {
      while (claimed_.empty() && helped_ < pool_.threads_) {
        claimed_ = pool_.claim(n_, generation_, (thread_ + helped_) % pool_.threads_);
        if (claimed_.empty()) ++helped_;
      }
      return !claimed_.empty();
    }
    WorkRange next() {
      if (!any()) return {};
      taken_ += claimed_.size();
      return std::exchange(claimed_, {});
    }
    /// Indices of the ranges so far.
    [[nodiscard]] std::size_t taken() const { return taken_; }

   private:
    ThreadPool& pool_;
    const std::size_t n_;
    const std::uint32_t generation_;
    const std::size_t thread_;
    WorkRange claimed_;
    std::size_t helped_ = 0;  // shares where nothing is left
    std::size_t taken_ = 0;
  };

  static constexpr std::uint64_t none_left = (std::uint64_t{1} << 32) - 1;
  static constexpr int spin_count = 1000;

  static void relax() {
#if defined(__x86_64__)
    _mm_pause();
#else
    std::this_thread::yield();
#endif
  }

  /// The part of [0, n) that a thread starts with; only those of the last threads are empty.
  [[nodiscard]] WorkRange part(std::size_t thread, std::size_t n) const {
    const std::size_t least = n / threads_, more = n % threads_;
    const std::size_t begin = thread * least + std::min(thread, more);
    return {begin, begin + least + (thread < more ? 1 : 0)};
  }

  static std::size_t half(std::size_t left) { return left - left / 2; }

  static std::uint64_t share_value(std::uint32_t generation, std::size_t next, std::size_t end) {
    return (std::uint64_t{generation} << 32) | (next < end ? std::uint64_t{next} : none_left);
  }

  void run(const Job& job) {
    const std::uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
    // The caller's first claim costs no exchange: nobody else looks before the generation is stored.
    const WorkRange mine = part(0, job.n), first{mine.begin, mine.begin + half(mine.size())};
    shares_[0].next.store(share_value(generation, first.end, mine.end), std::memory_order_release);
    for (std::size_t t = job.n; t < threads_; ++t) {
      shares_[t].next.store(share_value(generation, 0, 0), std::memory_order_release);
    }
    size_.store(job.n, std::memory_order_release);
    context_.store(job.context, std::memory_order_release);
    call_.store(job.call, std::memory_order_release);
    generation_.store(generation, std::memory_order_release);
    if (sleeping_.load() != 0) generation_.notify_all();
    Ranges ranges(*this, job.n, generation, 0, first);
    expected_ += job.n - run_ranges(job, ranges);
    for (int spins = 0; finished_.load(std::memory_order_acquire) != expected_;) {
      if (++spins < spin_count) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  /// Runs what a thread can get, and returns how many indices that were. A job that has nothing left may be over.
  std::size_t run_ranges(const Job& job, Ranges& ranges) {
    if (!ranges.any()) return 0;
    try {
      job.call(job.context, ranges);
    } catch (...) {
      const std::lock_guard lock(failure_mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
    while (!ranges.next().empty()) {  // of a body that threw: dropped
    }
    return ranges.taken();
  }

  /// Half of what is left of a thread's share; empty when nothing is, or when the job is over.
  [[nodiscard]] WorkRange claim(std::size_t n, std::uint32_t generation, std::size_t owner) {
    const WorkRange whole = part(owner, n);
    std::atomic<std::uint64_t>& next = shares_[owner].next;
    std::uint64_t seen = next.load(std::memory_order_acquire);
    for (;;) {
      // A job's shares have its generation, or the one before where nobody has claimed yet.
      const std::uint32_t share_generation = static_cast<std::uint32_t>(seen >> 32);
      std::size_t begin = whole.begin;
      if (share_generation == generation) {
        if ((seen & none_left) == none_left) return {};
        begin = static_cast<std::size_t>(seen & none_left);
      } else if (share_generation + 1 != generation) {
        return {};
      }
      const std::size_t end = begin + half(whole.end - begin);
      const std::uint64_t left = share_value(generation, end, whole.end);
      if (next.compare_exchange_weak(seen, left, std::memory_order_acq_rel, std::memory_order_acquire)) {
        return {begin, end};
      }
    }
  }

  void work(std::size_t thread) {
    std::uint32_t seen = 0;
    for (;;) {
      const std::uint32_t generation = wait_for_change(seen);
      if (stop_.load()) return;
      seen = generation;
      // A late worker may read the fields of a later job: then this generation has nothing left to claim.
      const Job job{size_.load(std::memory_order_acquire), context_.load(std::memory_order_acquire),
                    call_.load(std::memory_order_acquire)};
      Ranges ranges(*this, job.n, generation, thread, {});
      if (const std::size_t done = run_ranges(job, ranges); done != 0) {
        finished_.fetch_add(done, std::memory_order_release);
      }
    }
  }

  /// Waits until the generation is another than `seen`: spins, says that it is going to sleep, spins on, sleeps. A
  /// fence between the caller's store of a generation and its look at sleeping_ would cost each call as much as a
  /// message to another core; the second spin outlasts the store instead.
  [[nodiscard]] std::uint32_t wait_for_change(std::uint32_t seen) {
    if (const std::uint32_t generation = spin_for_change(seen); generation != seen) return generation;
    sleeping_.fetch_add(1);
    std::uint32_t generation = spin_for_change(seen);
    for (; generation == seen; generation = generation_.load(std::memory_order_acquire)) generation_.wait(seen);
    sleeping_.fetch_sub(1);
    return generation;
  }

  [[nodiscard]] std::uint32_t spin_for_change(std::uint32_t seen) const {
    std::uint32_t generation = generation_.load(std::memory_order_acquire);
    for (int spins = 0; generation == seen && spins < spin_count; ++spins) {
      relax();
      generation = generation_.load(std::memory_order_acquire);
    }
    return generation;
  }

  void stop() {
    stop_.store(true);
    generation_.fetch_add(1);
    generation_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  const std::size_t threads_;
  const std::unique_ptr<Share[]> shares_;
  std::vector<std::thread> workers_;
  std::size_t expected_ = 0;  // what finished_ is when no job runs
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
  // One line tells a worker all of a job.
  alignas(64) std::atomic<std::uint32_t> generation_{0};
  std::atomic<std::size_t> size_{0};
  std::atomic<void*> context_{nullptr};
  std::atomic<Call> call_{nullptr};
  alignas(64) std::atomic<std::size_t> finished_{0};  // indices that workers ran, of all jobs
  alignas(64) std::atomic<std::size_t> sleeping_{0};
  std::atomic<bool> stop_{false};
};
static_assert(RangeExecutor<ThreadPool>);

}  // namespace lazyllm::inline v0
