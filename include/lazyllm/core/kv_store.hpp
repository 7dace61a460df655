// What attention needs of a KV cache: K and V rows of one layer, found by token index.
// A concept in core because nn reads through it and cache models it (siblings never include each other).
#pragma once

#include <lazyllm/core/bfloat16.hpp>
#include <lazyllm/core/types.hpp>

#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace lazyllm::inline v0 {

/// What a number of K or V is stored as.
template <class T>
concept KeyValueElement = std::same_as<T, float> || std::same_as<T, BFloat16>;

/// The element type of a reader's rows.
template <class C>
using ElementOf =
    std::remove_const_t<std::remove_pointer_t<decltype(std::declval<const C&>().key(std::size_t{}, TokenIndex{}))>>;

/// K and V of one layer, as attention reads them: contiguous rows [head_dim] per (kv_head, token).
/// `key` and `value` give the row of a token that was stored at this layer; O(1), no allocation.
template <class C>
concept KeyValueReader = requires(const C& c, std::size_t kv_head, TokenIndex token) {
  requires KeyValueElement<ElementOf<C>>;
  { c.key(kv_head, token) } -> std::same_as<const ElementOf<C>*>;
  { c.value(kv_head, token) } -> std::same_as<const ElementOf<C>*>;
  { c.kv_head_count() } -> std::convertible_to<std::size_t>;
  { c.head_dim() } -> std::convertible_to<std::size_t>;
};

}  // namespace lazyllm::inline v0
