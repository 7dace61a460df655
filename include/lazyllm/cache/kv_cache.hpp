// Keys and values of one sequence: per layer, rows [head_dim] per (kv_head, token), found by token index.
// A layer holds only the tokens that were computed there, in the order of their computation (slots).
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
        slot_of_(shape.slots, no_slot) {}

  [[nodiscard]] std::size_t kv_head_count() const { return shape_.kv_heads; }
  [[nodiscard]] std::size_t head_dim() const { return shape_.head_dim; }
  /// Tokens stored so far.
  [[nodiscard]] std::size_t size() const { return size_; }
  /// Bytes of K and V in use.
  [[nodiscard]] std::size_t size_bytes() const {
    return 2 * size_ * shape_.kv_heads * shape_.head_dim * sizeof(Element);
  }
  [[nodiscard]] bool contains(TokenIndex token) const {
    LAZYLLM_EXPECTS(token < slot_of_.size());
    return slot_of_[token] != no_slot;
  }

  /// Adds a token: `key` and `value` are [kv_heads * head_dim]. Precondition: the token is not here yet.
  void store(TokenIndex token, std::span<const float> key, std::span<const float> value) {
    LAZYLLM_EXPECTS(!contains(token) && size_ < shape_.slots);
    LAZYLLM_EXPECTS(key.size() == shape_.kv_heads * shape_.head_dim && value.size() == key.size());
    for (std::size_t head = 0; head < shape_.kv_heads; ++head) {
      const std::size_t offset = layout_.offset(head, size_);
      put(key.subspan(head * shape_.head_dim, shape_.head_dim), keys_.data() + offset);
      put(value.subspan(head * shape_.head_dim, shape_.head_dim), values_.data() + offset);
    }
    slot_of_[token] = static_cast<std::uint32_t>(size_++);
  }

  /// The rows of a token that was stored.
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
  std::size_t size_ = 0;
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
