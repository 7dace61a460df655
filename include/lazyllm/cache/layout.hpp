// Where the rows of K and V lie in one layer's storage: a layout is a type without sizes, built from run-time sizes.
// It numbers rows, so it is the same for every element and for K and V: row r of K starts at r * (bytes of a row of K).
// A paged layout numbers the rows of one page; the cache finds the page.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>

namespace lazyllm::inline v0 {

/// The sizes of one layer's cache. A slot is a place for one token's K and V; the tokens of a layer have the slots
/// 0 .. size - 1.
struct CacheShape {
  std::size_t kv_heads;
  std::size_t head_dim;
  std::size_t slots;
};

/// Built from a CacheShape; row(kv_head, slot): the row's number, different for each, below row_count().
template <class L>
concept CacheLayout = std::constructible_from<L, CacheShape> && requires(const L& l, std::size_t i) {
  { l.row(i, i) } -> std::same_as<std::size_t>;
  { l.row_count() } -> std::same_as<std::size_t>;
};

/// A layout of pages, each with page_tokens slots (a power of two): row(kv_head, slot) takes slots of a page, and
/// row_count() is a page's. Others have all slots in one page.
template <class L>
concept PagedLayout = CacheLayout<L> && std::has_single_bit(std::size_t{L::page_tokens});

/// [slot, kv_head]: all rows of a token are contiguous.
class TokenMajor {
 public:
  explicit constexpr TokenMajor(CacheShape shape) : shape_(shape) {}
  [[nodiscard]] constexpr std::size_t row(std::size_t kv_head, std::size_t slot) const {
    return slot * shape_.kv_heads + kv_head;
  }
  [[nodiscard]] constexpr std::size_t row_count() const { return shape_.slots * shape_.kv_heads; }

 private:
  CacheShape shape_;
};
static_assert(CacheLayout<TokenMajor> && !PagedLayout<TokenMajor>);

/// [kv_head, slot]: the default. One head's rows are contiguous, which is how attention reads them.
class HeadMajor {
 public:
  explicit constexpr HeadMajor(CacheShape shape) : shape_(shape) {}
  [[nodiscard]] constexpr std::size_t row(std::size_t kv_head, std::size_t slot) const {
    return kv_head * shape_.slots + slot;
  }
  [[nodiscard]] constexpr std::size_t row_count() const { return shape_.slots * shape_.kv_heads; }

 private:
  CacheShape shape_;
};
static_assert(CacheLayout<HeadMajor>);

/// Pages of PageTokens tokens each, inside laid out by another layout: memory is allocated for the tokens that a layer
/// holds, a page at a time, and given back to the pool that the layers of a cache share.
template <std::size_t PageTokens, CacheLayout InPage = HeadMajor>
requires(std::has_single_bit(PageTokens)) class Paged {
 public:
  static constexpr std::size_t page_tokens = PageTokens;
  explicit constexpr Paged(CacheShape shape) : in_page_(CacheShape{shape.kv_heads, shape.head_dim, PageTokens}) {}
  [[nodiscard]] constexpr std::size_t row(std::size_t kv_head, std::size_t slot) const {
    return in_page_.row(kv_head, slot);
  }
  [[nodiscard]] constexpr std::size_t row_count() const { return in_page_.row_count(); }

 private:
  InPage in_page_;
};
static_assert(PagedLayout<Paged<64>> && PagedLayout<Paged<16, TokenMajor>>);

}  // namespace lazyllm::inline v0
