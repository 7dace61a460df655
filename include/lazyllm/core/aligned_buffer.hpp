// Owning, uninitialised storage for trivial elements, aligned to 64 bytes (one cache line, one AVX-512 register).
// Large buffers come as untouched pages from the system: reserving capacity costs address space, not memory.
#pragma once

#include <lazyllm/core/contract.hpp>

#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <type_traits>

namespace lazyllm::inline v0 {

/// `size` elements of T, not initialised. Moves, does not copy. Throws std::bad_alloc (or bad_array_new_length on
/// overflow).
template <class T>
requires std::is_trivially_copyable_v<T>
class AlignedBuffer {
 public:
  static constexpr std::size_t alignment = 64;

  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t size) : data_(allocate(size)), size_(size) {}

  /// Replaces the contents by `size` uninitialised elements; keeps the storage when it already holds that many.
  void resize_discard(std::size_t size) {
    if (size > capacity()) *this = AlignedBuffer(size);
    size_ = size;
  }

  [[nodiscard]] T* data() { return data_.get(); }
  [[nodiscard]] const T* data() const { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] T& operator[](std::size_t i) {
    LAZYLLM_EXPECTS(i < size_);
    return data_.get()[i];
  }
  [[nodiscard]] const T& operator[](std::size_t i) const {
    LAZYLLM_EXPECTS(i < size_);
    return data_.get()[i];
  }
  [[nodiscard]] std::span<T> span() { return {data(), size_}; }
  [[nodiscard]] std::span<const T> span() const { return {data(), size_}; }

 private:
  struct Free {
    std::size_t capacity = 0;
    void operator()(T* p) const { ::operator delete (static_cast<void*>(p), std::align_val_t{alignment}); }
  };

  [[nodiscard]] std::size_t capacity() const { return data_ ? data_.get_deleter().capacity : 0; }

  static std::unique_ptr<T, Free> allocate(std::size_t size) {
    if (size == 0) return {};
    if (size > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_array_new_length();
    void* p = ::operator new (size * sizeof(T), std::align_val_t{alignment});
    return {static_cast<T*>(p), Free{size}};
  }

  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace lazyllm::inline v0
