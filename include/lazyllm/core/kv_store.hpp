// What attention needs of a KV cache: K and V rows of one layer, found by token index.
// A concept in core because nn reads through it and cache models it (siblings never include each other).
#pragma once

#include <lazyllm/core/types.hpp>

#include <concepts>
#include <cstddef>

namespace lazyllm::inline v0 {

/// K and V of one layer, as attention reads them: contiguous rows [head_dim] per (kv_head, token) of floats.
/// `key` and `value` give the row of a token that was stored at this layer; O(1), no allocation.
template <class C>
concept KeyValueReader = requires(const C& c, std::size_t kv_head, TokenIndex token) {
  { c.key(kv_head, token) } -> std::same_as<const float*>;
  { c.value(kv_head, token) } -> std::same_as<const float*>;
  { c.kv_head_count() } -> std::convertible_to<std::size_t>;
  { c.head_dim() } -> std::convertible_to<std::size_t>;
};

}  // namespace lazyllm::inline v0
