// Counts what operator new hands out on this thread. Replaces the global operators: include it in exactly one source
// file of a test executable. Not inlined: g++ 12 takes an inlined free for a mismatch.
#pragma once

#include "support/build_kind.hpp"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace lazyllm::test {

/// The thread sanitizer brings its own operator new; there nothing is counted, and tests say so.
inline constexpr bool counts_allocations = !thread_sanitized_build;

/// Calls and bytes of operator new on this thread while the object lives; nothing is taken off when memory is returned.
/// One at a time.
class AllocationCount {
 public:
  AllocationCount() { current_ = this; }
  ~AllocationCount() { current_ = nullptr; }
  AllocationCount(const AllocationCount&) = delete;
  AllocationCount& operator=(const AllocationCount&) = delete;

  [[nodiscard]] std::size_t calls() const { return calls_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

  static void* allocate(std::size_t size, std::size_t alignment) {
    if (current_ != nullptr) {
      ++current_->calls_;
      current_->bytes_ += size;
    }
    const std::size_t rounded = (size + alignment) / alignment * alignment;  // aligned_alloc wants a multiple, not 0
    if (void* p = std::aligned_alloc(alignment, rounded)) return p;
    throw std::bad_alloc();
  }

 private:
  static inline thread_local AllocationCount* current_ = nullptr;
  std::size_t calls_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace lazyllm::test

#ifndef LAZYLLM_TEST_THREAD_SANITIZED
// new[] and the nothrow forms call these.
[[gnu::noinline]] void* operator new(std::size_t size) {
  return lazyllm::test::AllocationCount::allocate(size, alignof(std::max_align_t));
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
  return lazyllm::test::AllocationCount::allocate(size, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
#endif
