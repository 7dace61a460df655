// Where a row [head_dim] of K or V lies in one layer's storage: a layout is a type without sizes, built from run-time
// sizes. Both touch memory only as tokens are computed, HeadMajor a page per head early.
#pragma once

#include <concepts>
#include <cstddef>

namespace lazyllm::inline v0 {

/// The sizes of one layer's cache. A slot is a place for one token's K and V; slots are given out in order of
/// computation.
struct CacheShape {
  std::size_t kv_heads;
  std::size_t head_dim;
  std::size_t slots;
};

/// Built from a CacheShape; offset(kv_head, slot): index of the row's first element, rows disjoint and contiguous;
/// required_size(): elements that hold all rows.
template <class L>
concept CacheLayout = std::constructible_from<L, CacheShape> && requires(const L& l, std::size_t i) {
  { l.offset(i, i) } -> std::same_as<std::size_t>;
  { l.required_size() } -> std::same_as<std::size_t>;
};

/// [slot, kv_head, head_dim]: the default.
class TokenMajor {
 public:
  explicit constexpr TokenMajor(CacheShape shape) : shape_(shape) {}
  [[nodiscard]] constexpr std::size_t offset(std::size_t kv_head, std::size_t slot) const {
    return (slot * shape_.kv_heads + kv_head) * shape_.head_dim;
  }
  [[nodiscard]] constexpr std::size_t required_size() const { return shape_.slots * shape_.kv_heads * shape_.head_dim; }

 private:
  CacheShape shape_;
};
static_assert(CacheLayout<TokenMajor>);

/// [kv_head, slot, head_dim]: one head's rows are contiguous. Attention, which prefetches rows, is as fast with either.
class HeadMajor {
 public:
  explicit constexpr HeadMajor(CacheShape shape) : shape_(shape) {}
  [[nodiscard]] constexpr std::size_t offset(std::size_t kv_head, std::size_t slot) const {
    return (kv_head * shape_.slots + slot) * shape_.head_dim;
  }
  [[nodiscard]] constexpr std::size_t required_size() const { return shape_.slots * shape_.kv_heads * shape_.head_dim; }

 private:
  CacheShape shape_;
};
static_assert(CacheLayout<HeadMajor>);

}  // namespace lazyllm::inline v0
