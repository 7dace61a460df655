// Objects that threads borrow, one each at a time: working memory for the bodies of a parallel_for.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace lazyllm::inline v0::detail {

/// grow() and clear() while nobody borrows; a Lease may be taken on any thread.
template <class T>
class LeasePool {
 public:
  [[nodiscard]] std::size_t size() const { return slots_.size(); }
  void clear() { slots_.clear(); }
  /// Adds objects until there are `count`; prepare(object) makes each new one ready.
  template <class Prepare>
  void grow(std::size_t count, const Prepare& prepare) {
    while (slots_.size() < count) {
      auto slot = std::make_unique<Slot>();
      prepare(slot->object);
      slots_.push_back(std::move(slot));
    }
  }

 private:
  struct Slot {
    T object;
    std::atomic_flag busy = ATOMIC_FLAG_INIT;
  };

 public:
  /// An object of the calling thread's own, until the lease ends. Waits while there are more leases than objects, which
  /// only an executor that exceeds its concurrency() brings about.
  class Lease {
   public:
    explicit Lease(LeasePool& pool) : slot_(pool.claim()) {}
    ~Lease() { slot_.busy.clear(std::memory_order_release); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    [[nodiscard]] T& operator*() const { return slot_.object; }

   private:
    Slot& slot_;
  };

 private:
  Slot& claim() {
    for (;;) {
      for (const auto& slot : slots_) {
        if (!slot->busy.test_and_set(std::memory_order_acquire)) return *slot;
      }
      std::this_thread::yield();
    }
  }

  std::vector<std::unique_ptr<Slot>> slots_;
};

}  // namespace lazyllm::inline v0::detail
