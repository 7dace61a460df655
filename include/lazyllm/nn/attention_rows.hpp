// The stored rows of a segment of keys, looked up ahead of their use.
#pragma once

#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/nn/kernels/attention.hpp>
#include <lazyllm/simd/target_region.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

namespace lazyllm::inline v0::detail {

/// Keys of one KV head, at most a segment. Where the last tile is not full, its last row stands in for those that are
/// missing.
template <KeyValueReader KV>
class SegmentRows {
 public:
  using Key = const KeyElementOf<KV>*;
  using Value = const ValueElementOf<KV>*;

  SegmentRows(const KV& kv, std::size_t kv_head, std::span<const TokenIndex> tokens)
      : kv_(kv), kv_head_(kv_head), head_dim_(kv.head_dim()), tokens_(tokens) {}

  /// Puts the stored rows to rows [segment_keys], and calls use(first) for each key_group of them. Rows further on are
  /// on their way from memory meanwhile: no prefetcher of the hardware foresees rows with gaps, as of pruned tokens or
  /// of one head out of many. A few at a time, as a CPU forgets what it is asked for beyond what it can wait for.
  template <class Use>
  void look_up_keys(Key* rows, const Use& use) const {
    look_up([&](std::size_t i, TokenIndex token) { ask(rows[i] = kv_.key(kv_head_, token)); }, use);
  }
  template <class Use>
  void look_up_values(Value* rows, const Use& use) const {
    look_up([&](std::size_t i, TokenIndex token) { ask(rows[i] = kv_.value(kv_head_, token)); }, use);
  }

  /// Groups of key_group rows, of whole tiles.
  [[nodiscard]] std::size_t groups() const { return whole_tiles(tokens_.size()) / key_group; }

  /// Those of them that are whole without the rows that stand in.
  [[nodiscard]] std::size_t whole_groups() const { return tokens_.size() / key_group; }

  /// Whether the rows of each of the first `count` whole groups lie one behind the other; then the first of each goes
  /// to keys and values [count].
  bool adjacent(std::size_t count, Key* keys, Value* values) const {
    if constexpr (AdjacencyReader<KV>) {
      const bool all = count != 0 && kv_.adjacent(kv_head_, tokens_.first(count * key_group));
      for (std::size_t group = 0; group < count; ++group) {
        if (all && group != 0) {
          keys[group] = keys[group - 1] + key_group * row_size<KeyElementOf<KV>>(head_dim_);
          values[group] = values[group - 1] + key_group * row_size<ValueElementOf<KV>>(head_dim_);
          continue;
        }
        const auto tokens = tokens_.subspan(group * key_group, key_group);
        if (!all && !kv_.adjacent(kv_head_, tokens)) return false;
        keys[group] = kv_.key(kv_head_, tokens[0]);
        values[group] = kv_.value(kv_head_, tokens[0]);
      }
      return true;
    }
    return false;
  }
  /// Copies a group's rows one behind the other.
  void copy(std::size_t group, std::byte* keys, std::byte* values) const {
    const std::size_t key_bytes = row_bytes<KeyElementOf<KV>>(head_dim_);
    const std::size_t value_bytes = row_bytes<ValueElementOf<KV>>(head_dim_);
    for_group(group, [&](std::size_t i, TokenIndex token) {
      std::memcpy(keys + i * key_bytes, kv_.key(kv_head_, token), key_bytes);
      std::memcpy(values + i * value_bytes, kv_.value(kv_head_, token), value_bytes);
    });
  }
  /// Puts a group's stored rows to keys and values [key_group], and asks for them.
  void look_up(std::size_t group, Key* keys, Value* values) const {
    for_group(group, [&](std::size_t i, TokenIndex token) {
      ask(keys[i] = kv_.key(kv_head_, token));
      ask(values[i] = kv_.value(kv_head_, token));
    });
  }

 private:
  template <class Row>
  void ask(const Row* row) const {
    prefetch_row(row, head_dim_);
  }

  /// body(i, token) for the i-th row of a group.
  template <class Body>
  void for_group(std::size_t group, const Body& body) const {
    const std::size_t first = group * key_group, count = tokens_.size();
    if (first + key_group <= count) {
      LAZYLLM_UNROLL
      for (std::size_t i = 0; i < key_group; ++i) body(i, tokens_[first + i]);
    } else {
      for (std::size_t i = 0; i < key_group; ++i) body(i, tokens_[std::min(first + i, count - 1)]);
    }
  }

  /// look_up_row(i, token) for each row, a group at a time and at least 8 groups before use(first) of the group.
  template <class LookUpRow, class Use>
  void look_up(const LookUpRow& look_up_row, const Use& use) const {
    constexpr std::size_t ahead = 8;
    std::size_t next = 0;
    const auto look_up_group = [&] {
      const std::size_t first = next * key_group;
      for_group(next++, [&](std::size_t i, TokenIndex token) { look_up_row(first + i, token); });
    };
    while (next < std::min(ahead, groups())) look_up_group();
    for (std::size_t group = 0; group < groups(); ++group) {
      if (next < groups()) look_up_group();
      use(group * key_group);
    }
  }

  const KV& kv_;
  const std::size_t kv_head_;
  const std::size_t head_dim_;
  const std::span<const TokenIndex> tokens_;
};

}  // namespace lazyllm::inline v0::detail
