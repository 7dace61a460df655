// What attention needs of a KV cache: K and V rows of one layer, found by token index.
// A concept in core because nn reads through it and cache models it (siblings never include each other).
#pragma once

#include <lazyllm/core/row_element.hpp>
#include <lazyllm/core/types.hpp>

#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>

namespace lazyllm::inline v0 {

/// What a reader's keys are stored as.
template <class C>
using KeyElementOf =
    std::remove_const_t<std::remove_pointer_t<decltype(std::declval<const C&>().key(std::size_t{}, TokenIndex{}))>>;

/// What its values are stored as.
template <class C>
using ValueElementOf =
    std::remove_const_t<std::remove_pointer_t<decltype(std::declval<const C&>().value(std::size_t{}, TokenIndex{}))>>;

/// K and V of one layer, as attention reads them: contiguous rows of head_dim() numbers per (kv_head, token).
/// `key` and `value` give the stored row [row_size(head_dim())] of a token that is at this layer; O(1), no allocation.
template <class C>
concept KeyValueReader = requires(const C& c, std::size_t kv_head, TokenIndex token) {
  requires RowElement<KeyElementOf<C>> && RowElement<ValueElementOf<C>>;
  { c.key(kv_head, token) } -> std::same_as<const KeyElementOf<C>*>;
  { c.value(kv_head, token) } -> std::same_as<const ValueElementOf<C>*>;
  { c.kv_head_count() } -> std::convertible_to<std::size_t>;
  { c.head_dim() } -> std::convertible_to<std::size_t>;
};

/// A reader that also tells where rows lie one behind the other, row_size(head_dim()) elements each: whether the keys
/// of these tokens of a KV head, which ascend, do, and the values. Decode is up to a quarter faster where they do;
/// O(tokens), no allocation.
template <class C>
concept AdjacencyReader = KeyValueReader<C> &&
    requires(const C& c, std::size_t kv_head, std::span<const TokenIndex> tokens) {
  { c.adjacent(kv_head, tokens) } -> std::same_as<bool>;
};

}  // namespace lazyllm::inline v0
