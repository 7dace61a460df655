// The stored rows of a segment of keys, looked up ahead of their use.
#pragma once

#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/nn/kernels/attention.hpp>

#include <algorithm>
#include <cstddef>
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
      : kv_(kv), kv_head_(kv_head), tokens_(tokens) {}

  /// Puts the stored rows to rows [segment_keys], and calls use(first) for each key_group of them. Rows further on are
  /// on their way from memory meanwhile: no prefetcher of the hardware foresees rows with gaps, as of pruned tokens or
  /// of one head out of many. A few at a time, as a CPU forgets what it is asked for beyond what it can wait for.
  template <class Use>
  void look_up_keys(Key* rows, const Use& use) const {
    look_up(
        rows, [this](TokenIndex token) { return kv_.key(kv_head_, token); }, use);
  }
  template <class Use>
  void look_up_values(Value* rows, const Use& use) const {
    look_up(
        rows, [this](TokenIndex token) { return kv_.value(kv_head_, token); }, use);
  }

 private:
  template <class Row, class RowOf, class Use>
  void look_up(Row* rows, const RowOf& row_of, const Use& use) const {
    constexpr std::size_t ahead = 8 * key_group;
    const std::size_t head_dim = kv_.head_dim();
    const std::size_t count = tokens_.size();
    std::size_t next = 0;
    const auto look_up_to = [&](std::size_t end) {
      for (; next < std::min(end, count); ++next) {
        rows[next] = row_of(tokens_[next]);
        prefetch_row(rows[next], head_dim);
      }
      for (; next < std::min(end, whole_tiles(count)); ++next) rows[next] = rows[count - 1];
    };
    look_up_to(ahead);
    for (std::size_t first = 0; first < whole_tiles(count); first += key_group) {
      look_up_to(first + key_group + ahead);
      use(first);
    }
  }

  const KV& kv_;
  const std::size_t kv_head_;
  const std::span<const TokenIndex> tokens_;
};

}  // namespace lazyllm::inline v0::detail
