// The stored rows of a segment of keys, looked up ahead of their use.
#pragma once

#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/nn/kernels/attention.hpp>
#include <lazyllm/simd/target_region.hpp>

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
      : kv_(kv), kv_head_(kv_head), head_dim_(kv.head_dim()), tokens_(tokens) {}

  /// Puts the stored rows to rows [segment_keys], and calls use(first) for each key_group of them. Rows further on are
  /// on their way from memory meanwhile: no prefetcher of the hardware foresees rows with gaps, as of pruned tokens or
  /// of one head out of many. A few at a time, as a CPU forgets what it is asked for beyond what it can wait for.
  template <class Use>
  void look_up_keys(Key* rows, const Use& use) const {
    look_up<key_group>(
        8 * key_group, [&](std::size_t i, TokenIndex token) { ask(rows[i] = kv_.key(kv_head_, token)); }, use);
  }
  template <class Use>
  void look_up_values(Value* rows, const Use& use) const {
    look_up<key_group>(
        8 * key_group, [&](std::size_t i, TokenIndex token) { ask(rows[i] = kv_.value(kv_head_, token)); }, use);
  }
  /// Rows of either that look_up_both() is ahead: 4 KB.
  [[nodiscard]] std::size_t rows_ahead() const { return std::max<std::size_t>(4096 / head_dim_, key_group); }

  /// Both, and calls use(first) for each half of a key_group, when the whole is there: half as many at a time.
  template <class Use>
  void look_up_both(Key* keys, Value* values, const Use& use) const {
    look_up<key_group / 2>(
        rows_ahead(),
        [&](std::size_t i, TokenIndex token) {
          ask(keys[i] = kv_.key(kv_head_, token));
          ask(values[i] = kv_.value(kv_head_, token));
        },
        use);
  }
  /// Asks for key and value i, if there are as many.
  void ask_for(std::size_t i) const {
    if (i >= tokens_.size()) return;
    ask(kv_.key(kv_head_, tokens_[i]));
    ask(kv_.value(kv_head_, tokens_[i]));
  }

 private:
  template <class Row>
  void ask(const Row* row) const {
    prefetch_row(row, head_dim_);
  }

  /// look_up_row(i, token) for each row, `step` at a time and at least `ahead` rows before use(first) of the step. Up
  /// to a whole number of tiles the last row follows again.
  template <std::size_t step, class LookUpRow, class Use>
  void look_up(std::size_t ahead, const LookUpRow& look_up_row, const Use& use) const {
    const std::size_t count = tokens_.size(), whole = whole_tiles(count);
    std::size_t next = 0;
    const auto look_up_step = [&] {
      const std::size_t begin = next;
      next += step;
      if (next <= count) {
        LAZYLLM_UNROLL
        for (std::size_t i = 0; i < step; ++i) look_up_row(begin + i, tokens_[begin + i]);
      } else {
        for (std::size_t i = begin; i < next; ++i) look_up_row(i, tokens_[std::min(i, count - 1)]);
      }
    };
    while (next < std::min(ahead, whole)) look_up_step();
    for (std::size_t first = 0; first < whole; first += step) {
      if (next < whole) look_up_step();
      use(first);
    }
  }

  const KV& kv_;
  const std::size_t kv_head_;
  const std::size_t head_dim_;
  const std::span<const TokenIndex> tokens_;
};

}  // namespace lazyllm::inline v0::detail
