// Equal pages of memory that the layers of one cache take and give back.
// A page that was given back is taken before a new one is allocated; pages are 64-byte aligned, not initialised.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>

#include <cstddef>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// Not thread-safe: one pool a sequence.
class PagePool {
 public:
  /// Hands out at most `most_pages` pages at a time.
  PagePool(std::size_t page_bytes, std::size_t most_pages) : page_bytes_(page_bytes) { free_.reserve(most_pages); }

  /// One allocation if no page is free, none otherwise.
  [[nodiscard]] AlignedBuffer<std::byte> take() {
    if (free_.empty()) {
      AlignedBuffer<std::byte> page(page_bytes_);
      ++page_count_;
      return page;
    }
    AlignedBuffer<std::byte> page = std::move(free_.back());
    free_.pop_back();
    return page;
  }
  /// No allocation.
  void give_back(AlignedBuffer<std::byte> page) {
    LAZYLLM_EXPECTS(page.size() == page_bytes_ && free_.size() < page_count_);
    free_.push_back(std::move(page));
  }

  [[nodiscard]] std::size_t page_bytes() const { return page_bytes_; }
  /// Bytes of all pages, also of the free ones.
  [[nodiscard]] std::size_t reserved_bytes() const { return page_count_ * page_bytes_; }

 private:
  std::size_t page_bytes_;
  std::size_t page_count_ = 0;  // allocated so far
  std::vector<AlignedBuffer<std::byte>> free_;
};

}  // namespace lazyllm::inline v0
