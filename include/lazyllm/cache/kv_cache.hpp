// Keys and values of one sequence: per layer, rows [head_dim] per (kv_head, token), found by token index.
// A layer holds only the tokens that were computed there, in slots 0 .. size - 1: a token that goes leaves its slot to
// the last one.
#pragma once

#include <lazyllm/cache/layout.hpp>
#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/bfloat16.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/types.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

namespace lazyllm::inline v0 {

/// K and V of one layer. Storage is reserved for `shape.slots` tokens and touched as tokens arrive; nothing allocates
/// later. BFloat16 elements are rounded to nearest even.
template <CacheLayout Layout = TokenMajor, KeyValueElement Element = float>
class LayerCache {
 public:
  explicit LayerCache(CacheShape shape)
      : shape_(shape),
        layout_(shape),
        keys_(layout_.required_size()),
        values_(layout_.required_size()),
        slot_of_(shape.slots, no_slot) {
    token_of_.reserve(shape.slots);
  }

  [[nodiscard]] std::size_t kv_head_count() const { return shape_.kv_heads; }
  [[nodiscard]] std::size_t head_dim() const { return shape_.head_dim; }
  /// Tokens that are here.
  [[nodiscard]] std::size_t size() const { return token_of_.size(); }
  /// Bytes of one token's K and V, over all heads.
  [[nodiscard]] std::size_t token_bytes() const { return 2 * shape_.kv_heads * row_bytes(); }
  /// Bytes of K and V in use.
  [[nodiscard]] std::size_t size_bytes() const { return size() * token_bytes(); }
  [[nodiscard]] bool contains(TokenIndex token) const {
    LAZYLLM_EXPECTS(token < slot_of_.size());
    return slot_of_[token] != no_slot;
  }

  /// Adds a token: `key` and `value` are [kv_heads * head_dim]. Precondition: the token is not here yet.
  void store(TokenIndex token, std::span<const float> key, std::span<const float> value) {
    LAZYLLM_EXPECTS(key.size() == shape_.kv_heads * shape_.head_dim && value.size() == key.size());
    const std::size_t slot = add(token);
    for (std::size_t head = 0; head < shape_.kv_heads; ++head) {
      const std::size_t offset = layout_.offset(head, slot);
      put(key.subspan(head * shape_.head_dim, shape_.head_dim), keys_.data() + offset);
      put(value.subspan(head * shape_.head_dim, shape_.head_dim), values_.data() + offset);
    }
  }

  /// Forgets a token that is here; the last slot's token moves into its slot. O(token_bytes), no allocation.
  void remove(TokenIndex token) {
    LAZYLLM_EXPECTS(contains(token));
    const std::size_t slot = slot_of_[token];
    const std::size_t last = size() - 1;
    if (slot != last) {
      for (std::size_t head = 0; head < shape_.kv_heads; ++head) {
        const std::size_t from = layout_.offset(head, last);
        const std::size_t to = layout_.offset(head, slot);
        std::copy_n(keys_.data() + from, shape_.head_dim, keys_.data() + to);
        std::copy_n(values_.data() + from, shape_.head_dim, values_.data() + to);
      }
      token_of_[slot] = token_of_[last];
      slot_of_[token_of_[slot]] = static_cast<std::uint32_t>(slot);
    }
    slot_of_[token] = no_slot;
    token_of_.pop_back();
  }
  /// Forgets every token from index `tokens` on. O(size), no allocation.
  void truncate(std::size_t tokens) {
    for (std::size_t slot = size(); slot-- > 0;) {  // downwards: who moves into a free slot has been looked at
      if (token_of_[slot] >= tokens) remove(token_of_[slot]);
    }
  }

  /// Copies a token's stored bits: the keys of all heads, then the values. Precondition: out has token_bytes().
  void export_token(TokenIndex token, std::span<std::byte> out) const {
    LAZYLLM_EXPECTS(contains(token) && out.size() == token_bytes());
    std::byte* to = out.data();
    for (const AlignedBuffer<Element>* rows : {&keys_, &values_}) {
      for (std::size_t head = 0; head < shape_.kv_heads; ++head, to += row_bytes()) {
        std::memcpy(to, rows->data() + layout_.offset(head, slot_of_[token]), row_bytes());
      }
    }
  }
  /// Adds a token with the bits that export_token gave, of a cache of any layout with the same element and sizes.
  /// Preconditions: the token is not here yet, in has token_bytes().
  void import_token(TokenIndex token, std::span<const std::byte> in) {
    LAZYLLM_EXPECTS(in.size() == token_bytes());
    const std::size_t slot = add(token);
    const std::byte* from = in.data();
    for (AlignedBuffer<Element>* rows : {&keys_, &values_}) {
      for (std::size_t head = 0; head < shape_.kv_heads; ++head, from += row_bytes()) {
        std::memcpy(rows->data() + layout_.offset(head, slot), from, row_bytes());
      }
    }
  }

  /// The rows of a token that is here, until a token is removed.
  [[nodiscard]] const Element* key(std::size_t kv_head, TokenIndex token) const {
    LAZYLLM_EXPECTS(contains(token));
    return keys_.data() + layout_.offset(kv_head, slot_of_[token]);
  }
  [[nodiscard]] const Element* value(std::size_t kv_head, TokenIndex token) const {
    LAZYLLM_EXPECTS(contains(token));
    return values_.data() + layout_.offset(kv_head, slot_of_[token]);
  }

 private:
  static constexpr std::uint32_t no_slot = std::numeric_limits<std::uint32_t>::max();

  [[nodiscard]] std::size_t row_bytes() const { return shape_.head_dim * sizeof(Element); }

  /// Gives a new token its slot.
  std::size_t add(TokenIndex token) {
    LAZYLLM_EXPECTS(!contains(token) && size() < shape_.slots);
    const std::size_t slot = size();
    slot_of_[token] = static_cast<std::uint32_t>(slot);
    token_of_.push_back(token);
    return slot;
  }

  static void put(std::span<const float> row, Element* to) {
    if constexpr (std::same_as<Element, float>) {
      std::copy(row.begin(), row.end(), to);
    } else {
      for (std::size_t i = 0; i < row.size(); ++i) to[i] = to_bfloat16(row[i]);
    }
  }

  CacheShape shape_;
  Layout layout_;
  AlignedBuffer<Element> keys_;
  AlignedBuffer<Element> values_;
  std::vector<std::uint32_t> slot_of_;  // by token
  std::vector<TokenIndex> token_of_;    // by slot
};
static_assert(KeyValueReader<LayerCache<>> && KeyValueReader<LayerCache<TokenMajor, BFloat16>>);

/// The layers of one sequence.
template <CacheLayout Layout = TokenMajor, KeyValueElement Element = float>
class KvCache {
 public:
  KvCache(std::size_t layer_count, CacheShape shape) {
    layers_.reserve(layer_count);
    for (std::size_t layer = 0; layer < layer_count; ++layer) layers_.emplace_back(shape);
  }
  [[nodiscard]] LayerCache<Layout, Element>& layer(LayerIndex layer) {
    LAZYLLM_EXPECTS(layer < layers_.size());
    return layers_[layer];
  }
  [[nodiscard]] const LayerCache<Layout, Element>& layer(LayerIndex layer) const {
    LAZYLLM_EXPECTS(layer < layers_.size());
    return layers_[layer];
  }
  /// Forgets every token from index `tokens` on, at all layers.
  void truncate(std::size_t tokens) {
    for (LayerCache<Layout, Element>& layer : layers_) layer.truncate(tokens);
  }
  /// Bytes of K and V in use, over all layers.
  [[nodiscard]] std::size_t size_bytes() const {
    std::size_t bytes = 0;
    for (const LayerCache<Layout, Element>& layer : layers_) bytes += layer.size_bytes();
    return bytes;
  }

 private:
  std::vector<LayerCache<Layout, Element>> layers_;
};

}  // namespace lazyllm::inline v0
