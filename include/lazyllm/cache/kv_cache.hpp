// Keys and values of one sequence: per layer, rows [head_dim] per (kv_head, token), found by token index.
// A layer holds only the tokens that were computed there, in slots 0 .. size - 1: a token that goes leaves its slot to
// the last one. The layout says where a slot's rows lie, the elements what they are stored as.
#pragma once

#include <lazyllm/cache/layout.hpp>
#include <lazyllm/cache/page_pool.hpp>
#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/row_element.hpp>
#include <lazyllm/core/types.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// K and V of one layer. Paged layouts take a page from the pool when the pages are full and give back the last one
/// when its last token goes; with the others all slots are one page, untouched memory until tokens arrive, and no
/// operation allocates.
template <CacheLayout Layout = HeadMajor, RowElement Key = Int8, RowElement Value = Key>
class LayerCache {
 public:
  /// A pool for `layer_count` layers of this shape.
  [[nodiscard]] static std::shared_ptr<PagePool> make_pool(CacheShape shape, std::size_t layer_count) {
    const Sizes sizes(shape);
    return std::make_shared<PagePool>(sizes.page_bytes(), layer_count * sizes.most_pages());
  }

  /// Holds up to shape.slots tokens, of indices below that.
  explicit LayerCache(CacheShape shape) : LayerCache(shape, make_pool(shape, 1)) {}
  /// The same, with a pool that layers of one shape share.
  LayerCache(CacheShape shape, std::shared_ptr<PagePool> pool)
      : sizes_(shape), pool_(std::move(pool)), slot_of_(shape.slots, no_slot) {
    LAZYLLM_EXPECTS(pool_->page_bytes() == sizes_.page_bytes());
    token_of_.reserve(shape.slots);
    pages_.reserve(sizes_.most_pages());
    if constexpr (!PagedLayout<Layout>) pages_.push_back(pool_->take());
  }

  [[nodiscard]] std::size_t kv_head_count() const { return sizes_.shape.kv_heads; }
  [[nodiscard]] std::size_t head_dim() const { return sizes_.shape.head_dim; }
  /// Tokens that are here.
  [[nodiscard]] std::size_t size() const { return token_of_.size(); }
  /// Bytes of one token's K and V, over all heads.
  [[nodiscard]] std::size_t token_bytes() const {
    return sizes_.shape.kv_heads * (sizes_.key_bytes + sizes_.value_bytes);
  }
  /// Bytes of K and V in use.
  [[nodiscard]] std::size_t size_bytes() const { return size() * token_bytes(); }
  [[nodiscard]] bool contains(TokenIndex token) const {
    LAZYLLM_EXPECTS(token < slot_of_.size());
    return in_place_ ? token < size() : slot_of_[token] != no_slot;
  }

  /// Gives tokens their slots. Their rows are undefined until they are stored, which threads may then do side by side.
  /// Precondition: none of them is here yet.
  void add(std::span<const TokenIndex> tokens) {
    for (const TokenIndex token : tokens) add(token);
  }
  /// Stores a token's rows: `key` and `value` are [kv_heads * head_dim]. Adds the token where it is not here.
  void store(TokenIndex token, std::span<const float> key, std::span<const float> value) {
    encode(contains(token) ? slot_of(token) : add(token), key, value);
  }

  /// Forgets a token that is here; the last slot's token moves into its slot. O(token_bytes), no allocation.
  void remove(TokenIndex token) {
    LAZYLLM_EXPECTS(contains(token));
    const std::size_t slot = slot_of(token);
    const std::size_t last = size() - 1;
    if (slot != last) {
      for (std::size_t head = 0; head < sizes_.shape.kv_heads; ++head) {
        std::memcpy(key_at(*this, head, slot), key_at(*this, head, last), sizes_.key_bytes);
        std::memcpy(value_at(*this, head, slot), value_at(*this, head, last), sizes_.value_bytes);
      }
      token_of_[slot] = token_of_[last];
      slot_of_[token_of_[slot]] = static_cast<std::uint32_t>(slot);
    }
    ascending_ = slot == last && ascending_;
    in_place_ = slot == last && in_place_;
    slot_of_[token] = no_slot;
    token_of_.pop_back();
    if constexpr (PagedLayout<Layout>) {
      if (size() % Layout::page_tokens != 0) return;
      pool_->give_back(std::move(pages_.back()));
      pages_.pop_back();
    }
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
    for (std::size_t head = 0; head < sizes_.shape.kv_heads; ++head, to += sizes_.key_bytes) {
      std::memcpy(to, key_at(*this, head, slot_of(token)), sizes_.key_bytes);
    }
    for (std::size_t head = 0; head < sizes_.shape.kv_heads; ++head, to += sizes_.value_bytes) {
      std::memcpy(to, value_at(*this, head, slot_of(token)), sizes_.value_bytes);
    }
  }
  /// Adds a token with the bits that export_token gave, of a cache of any layout with the same elements and sizes.
  /// Preconditions: the token is not here yet, in has token_bytes().
  void import_token(TokenIndex token, std::span<const std::byte> in) {
    LAZYLLM_EXPECTS(in.size() == token_bytes());
    const std::size_t slot = add(token);
    const std::byte* from = in.data();
    for (std::size_t head = 0; head < sizes_.shape.kv_heads; ++head, from += sizes_.key_bytes) {
      std::memcpy(key_at(*this, head, slot), from, sizes_.key_bytes);
    }
    for (std::size_t head = 0; head < sizes_.shape.kv_heads; ++head, from += sizes_.value_bytes) {
      std::memcpy(value_at(*this, head, slot), from, sizes_.value_bytes);
    }
  }

  /// The rows of a token that is here, until a token is removed.
  [[nodiscard]] const Key* key(std::size_t kv_head, TokenIndex token) const {
    LAZYLLM_EXPECTS(contains(token));
    return reinterpret_cast<const Key*>(key_at(*this, kv_head, slot_of(token)));
  }
  [[nodiscard]] const Value* value(std::size_t kv_head, TokenIndex token) const {
    LAZYLLM_EXPECTS(contains(token));
    return reinterpret_cast<const Value*>(value_at(*this, kv_head, slot_of(token)));
  }
  /// Whether a head's keys of these tokens, which are here and ascend, lie one behind the other, and its values
  /// (AdjacencyReader). O(1) while tokens were added in ascending order and none but the last removed.
  [[nodiscard]] bool adjacent(std::size_t kv_head, std::span<const TokenIndex> tokens) const {
    if (tokens.empty()) return true;
    LAZYLLM_EXPECTS(contains(tokens.front()) && contains(tokens.back()));
    const std::size_t first = slot_of(tokens.front()), last = first + tokens.size() - 1;
    if (slot_of(tokens.back()) != last) return false;
    for (std::size_t slot = first; slot <= last; ++slot) {  // for HeadMajor nothing is left of this
      if (row(kv_head, slot) - row(kv_head, first) != slot - first) return false;
    }
    for (std::size_t i = 0; !ascending_ && i < tokens.size(); ++i) {
      if (slot_of_[tokens[i]] != first + i) return false;
    }
    return true;
  }

 private:
  static constexpr std::uint32_t no_slot = std::numeric_limits<std::uint32_t>::max();

  /// A page: the keys of its slots, from a cache line on the values.
  struct Sizes {
    explicit Sizes(CacheShape cache_shape)
        : shape(cache_shape),
          layout(cache_shape),
          key_bytes(row_bytes<Key>(shape.head_dim)),
          value_bytes(row_bytes<Value>(shape.head_dim)),
          first_value((layout.row_count() * key_bytes + 63) / 64 * 64) {}
    [[nodiscard]] std::size_t page_bytes() const { return first_value + layout.row_count() * value_bytes; }
    [[nodiscard]] std::size_t most_pages() const {
      if constexpr (PagedLayout<Layout>) return (shape.slots + Layout::page_tokens - 1) / Layout::page_tokens;
      return 1;
    }

    CacheShape shape;
    Layout layout;
    std::size_t key_bytes;    // of a row
    std::size_t value_bytes;  // of a row
    std::size_t first_value;  // offset
  };

  /// The slot of a token that is here. The table is only read where tokens were left out: its lines are far apart, and
  /// nothing asks for them ahead.
  [[nodiscard]] std::size_t slot_of(TokenIndex token) const { return in_place_ ? token : slot_of_[token]; }

  /// Gives a new token its slot.
  std::size_t add(TokenIndex token) {
    LAZYLLM_EXPECTS(!contains(token) && size() < sizes_.shape.slots);
    const std::size_t slot = size();
    if constexpr (PagedLayout<Layout>) {
      if (slot % Layout::page_tokens == 0) pages_.push_back(pool_->take());
    }
    ascending_ = slot == 0 || (ascending_ && token > token_of_.back());
    in_place_ = token == slot && (slot == 0 || in_place_);
    slot_of_[token] = static_cast<std::uint32_t>(slot);
    token_of_.push_back(token);
    return slot;
  }

  void encode(std::size_t slot, std::span<const float> key, std::span<const float> value) {
    const std::size_t dim = sizes_.shape.head_dim;
    LAZYLLM_EXPECTS(key.size() == sizes_.shape.kv_heads * dim && value.size() == key.size());
    for (std::size_t head = 0; head < sizes_.shape.kv_heads; ++head) {
      encode_row(key.subspan(head * dim, dim), reinterpret_cast<Key*>(key_at(*this, head, slot)));
      encode_row(value.subspan(head * dim, dim), reinterpret_cast<Value*>(value_at(*this, head, slot)));
    }
  }

  // Where the rows of a slot lie; Cache is this class, const or not.
  template <class Cache>
  [[nodiscard]] static auto* page_at(Cache& cache, std::size_t slot) {
    if constexpr (PagedLayout<Layout>) return cache.pages_[slot / Layout::page_tokens].data();
    return cache.pages_[0].data();
  }
  template <class Cache>
  [[nodiscard]] static auto* key_at(Cache& cache, std::size_t kv_head, std::size_t slot) {
    return page_at(cache, slot) + cache.row(kv_head, slot) * cache.sizes_.key_bytes;
  }
  template <class Cache>
  [[nodiscard]] static auto* value_at(Cache& cache, std::size_t kv_head, std::size_t slot) {
    return page_at(cache, slot) + cache.sizes_.first_value + cache.row(kv_head, slot) * cache.sizes_.value_bytes;
  }
  [[nodiscard]] std::size_t row(std::size_t kv_head, std::size_t slot) const {
    if constexpr (PagedLayout<Layout>) slot %= Layout::page_tokens;
    return sizes_.layout.row(kv_head, slot);
  }

  Sizes sizes_;
  std::shared_ptr<PagePool> pool_;
  std::vector<AlignedBuffer<std::byte>> pages_;
  std::vector<std::uint32_t> slot_of_;  // by token
  std::vector<TokenIndex> token_of_;    // by slot
  bool ascending_ = true;               // which ascend
  bool in_place_ = true;                // and have their own indices as slots; a flag, as it is asked for each row
};
static_assert(AdjacencyReader<LayerCache<>> && AdjacencyReader<LayerCache<Paged<64>, Int8, Float16>>);

/// What a graph keeps its K and V in: built from (layer_count, CacheShape); layer(l) gives a layer's reader, which
/// takes tokens by store and import_token, gives them by export_token and drops them by remove and truncate. Threads
/// may store side by side what add() was told of.
template <class C>
concept KeyValueCache = std::constructible_from<C, std::size_t, CacheShape> &&
    requires(C& c, const C& k, LayerIndex layer, TokenIndex token, std::span<const float> row,
             std::span<const TokenIndex> added, std::span<std::byte> bits, std::span<const std::byte> stored,
             std::size_t tokens) {
  requires KeyValueReader<std::remove_cvref_t<decltype(k.layer(layer))>>;
  c.layer(layer).add(added);
  c.layer(layer).store(token, row, row);
  c.layer(layer).remove(token);
  c.layer(layer).import_token(token, stored);
  k.layer(layer).export_token(token, bits);
  c.truncate(tokens);
  { k.layer(layer).contains(token) } -> std::same_as<bool>;
  { k.layer(layer).token_bytes() } -> std::same_as<std::size_t>;
  { k.size_bytes() } -> std::same_as<std::size_t>;
  { k.reserved_bytes() } -> std::same_as<std::size_t>;
};

/// The layers of one sequence. The layers of a paged layout share one pool.
template <CacheLayout Layout = HeadMajor, RowElement Key = Int8, RowElement Value = Key>
class KvCache {
 public:
  using Layer = LayerCache<Layout, Key, Value>;

  KvCache(std::size_t layer_count, CacheShape shape) : pool_(Layer::make_pool(shape, layer_count)) {
    layers_.reserve(layer_count);
    for (std::size_t layer = 0; layer < layer_count; ++layer) layers_.emplace_back(shape, pool_);
  }
  [[nodiscard]] Layer& layer(LayerIndex layer) {
    LAZYLLM_EXPECTS(layer < layers_.size());
    return layers_[layer];
  }
  [[nodiscard]] const Layer& layer(LayerIndex layer) const {
    LAZYLLM_EXPECTS(layer < layers_.size());
    return layers_[layer];
  }
  /// Forgets every token from index `tokens` on, at all layers.
  void truncate(std::size_t tokens) {
    for (Layer& layer : layers_) layer.truncate(tokens);
  }
  /// Bytes of K and V in use, over all layers.
  [[nodiscard]] std::size_t size_bytes() const {
    std::size_t bytes = 0;
    for (const Layer& layer : layers_) bytes += layer.size_bytes();
    return bytes;
  }
  /// Bytes of the pages that hold them, free ones included; with a layout that is not paged the address space of all
  /// slots, of which the system backs what was touched.
  [[nodiscard]] std::size_t reserved_bytes() const { return pool_->reserved_bytes(); }

 private:
  std::shared_ptr<PagePool> pool_;
  std::vector<Layer> layers_;
};
static_assert(KeyValueCache<KvCache<>>);

}  // namespace lazyllm::inline v0
