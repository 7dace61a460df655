// A fixed set of threads that share the chunks of one parallel_for at a time.
// Chunks are claimed one by one, so a slow thread does less, and a worker that wakes up late is never waited for.
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
  explicit ThreadPool(std::size_t threads) {
    const std::size_t workers = std::max<std::size_t>(threads, 1) - 1;
    workers_.reserve(workers);
    try {
      for (std::size_t i = 0; i < workers; ++i) workers_.emplace_back([this] { work(); });
    } catch (...) {  // the system has no more threads: end those that started
      stop();
      throw;
    }
  }
  ~ThreadPool() { stop(); }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] std::size_t concurrency() const { return workers_.size() + 1; }

  /// Splits [0, n) into chunks that get smaller towards the end: of what is left, a thread takes three quarters of its
  /// share. An exception of the body is rethrown here after all chunks ended.
  template <std::invocable<std::size_t, std::size_t> Body>
  void parallel_for(std::size_t n, Body&& body) {
    if (n == 0) return;
    if (workers_.empty() || n == 1) {
      body(std::size_t{0}, n);
      return;
    }
    LAZYLLM_EXPECTS(n < index_mask);
    using Callable = std::remove_reference_t<Body>;
    run(n, const_cast<void*>(static_cast<const void*>(std::addressof(body))),
        [](void* context, std::size_t begin, std::size_t end) { (*static_cast<Callable*>(context))(begin, end); });
  }

 private:
  using Call = void (*)(void* context, std::size_t begin, std::size_t end);

  // state_ holds the generation (high half) and the next unclaimed index (low half). A late worker may read the fields
  // of the next job, but then its claim fails: a field's release store comes after the store that closed the old
  // generation.
  static constexpr std::uint64_t generation_step = std::uint64_t{1} << 32;
  static constexpr std::uint64_t index_mask = generation_step - 1;
  static constexpr int spin_count = 2000;

  static void relax() {
#if defined(__x86_64__)
    _mm_pause();
#else
    std::this_thread::yield();
#endif
  }

  void run(std::size_t n, void* context, Call call) {
    size_.store(n, std::memory_order_release);
    context_.store(context, std::memory_order_release);
    call_.store(call, std::memory_order_release);
    finished_.store(0, std::memory_order_relaxed);
    const std::uint64_t generation = (state_.load(std::memory_order_relaxed) & ~index_mask) + generation_step;
    state_.store(generation);
    if (sleeping_.load() != 0) state_.notify_all();
    claim_chunks(generation);
    for (int spins = 0; finished_.load(std::memory_order_acquire) != n;) {
      if (++spins < spin_count) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
    // Close the job: no claim can succeed until the next one opens.
    state_.store(generation | index_mask, std::memory_order_relaxed);
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  void stop() {
    stop_.store(true);
    state_.fetch_add(generation_step);
    state_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  void claim_chunks(std::uint64_t generation) {
    for (;;) {
      std::uint64_t state = state_.load(std::memory_order_acquire);
      const std::size_t n = size_.load(std::memory_order_acquire);
      void* const context = context_.load(std::memory_order_acquire);
      const Call call = call_.load(std::memory_order_acquire);
      const std::size_t begin = static_cast<std::size_t>(state & index_mask);
      if ((state & ~index_mask) != generation || begin >= n) return;
      const std::size_t count = std::max<std::size_t>(1, 3 * (n - begin) / (4 * concurrency()));
      if (!state_.compare_exchange_weak(state, state + count)) continue;
      try {
        call(context, begin, begin + count);
      } catch (...) {
        const std::lock_guard lock(failure_mutex_);
        if (!failure_) failure_ = std::current_exception();
      }
      finished_.fetch_add(count, std::memory_order_release);
    }
  }

  void work() {
    std::uint64_t seen = 0;
    for (;;) {
      std::uint64_t state = state_.load(std::memory_order_acquire);
      for (int spins = 0; (state & ~index_mask) == seen && spins < spin_count; ++spins) {
        relax();
        state = state_.load(std::memory_order_acquire);
      }
      while ((state & ~index_mask) == seen) {
        sleeping_.fetch_add(1);
        state_.wait(state);
        sleeping_.fetch_sub(1);
        state = state_.load(std::memory_order_acquire);
      }
      if (stop_.load()) return;
      seen = state & ~index_mask;
      claim_chunks(seen);
    }
  }

  std::vector<std::thread> workers_;
  alignas(64) std::atomic<std::uint64_t> state_{0};
  alignas(64) std::atomic<std::size_t> finished_{0};
  std::atomic<std::size_t> size_{0};
  std::atomic<void*> context_{nullptr};
  std::atomic<Call> call_{nullptr};
  std::atomic<std::size_t> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
};
static_assert(Executor<ThreadPool>);

}  // namespace lazyllm::inline v0
