// Attention of few rows, as when a token is generated, on the stored rows of one segment of keys after another.
#pragma once

#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/row_element.hpp>
#include <lazyllm/nn/attention_rows.hpp>
#include <lazyllm/nn/attention_scratch.hpp>
#include <lazyllm/nn/kernels/attention.hpp>
#include <lazyllm/nn/kernels/attention_stored_codes.hpp>

#include <algorithm>
#include <cstddef>

namespace lazyllm::inline v0::detail {

/// What a thread does of the segments that takes() is true for: add() for one after another, then finish(). Kernels on
/// `V` have none.
template <class V, KeyValueReader KV>
class StoredAttention {
 public:
  [[nodiscard]] static bool takes(const AttentionSegment&) { return false; }
  void add(const AttentionSegment&, const SegmentRows<KV>&, const SegmentRows<KV>&, AttentionWorkspace&) {}
  void finish() {}
};

#if defined(__x86_64__)

template <KeyValueReader KV>
class StoredAttention<VnniFloats, KV> {
 public:
  [[nodiscard]] static bool takes(const AttentionSegment& segment) { return StoredWeightCodes::takes(segment); }

  /// attend() of a segment, whose values are added to its state by the next add() or finish(). All segments have as
  /// many rows, of the same head size. `next`: what the thread probably reads after these rows, or none.
  void add(const AttentionSegment& segment, const SegmentRows<KV>& rows, const SegmentRows<KV>& next,
           AttentionWorkspace& workspace) {
    const std::size_t bytes = key_group * row_bytes<Int8>(segment.head_dim);
    far_ = (6144 + bytes - 1) / bytes;
    middle_ = (3072 + bytes - 1) / bytes;
    panel_.begin(segment, rows.groups() * key_group);
    adjacent_[turn_] = rows.adjacent(rows.whole_groups(), keys_, values_[turn_]);
    if (adjacent_[turn_]) {
      auto* const copies = reinterpret_cast<std::byte*>(workspace.values.data());
      score_adjacent(rows, next, bytes, copies + turn_ * 2 * (key_tile / key_group) * bytes);
    } else {
      score_listed(rows, next);
    }
    sum_left(rows.groups() * key_group);
    panel_.end_scores();
    turn_ = 1 - turn_;
  }

  /// Adds what is left.
  void finish() { sum_left(0); }

 private:
  static constexpr std::size_t most_ahead = 6;  // groups

  /// Scores of a segment of adjacent rows, groups of `bytes`. Those of the last tile that are not whole are copied:
  /// keys, then values.
  void score_adjacent(const SegmentRows<KV>& rows, const SegmentRows<KV>& next, std::size_t bytes, std::byte* copies) {
    const Int8** const values = values_[turn_];
    const std::size_t groups = rows.groups(), whole = rows.whole_groups();
    for (std::size_t group = whole; group < groups; ++group, copies += 2 * bytes) {
      rows.copy(group, copies, copies + bytes);
      keys_[group] = reinterpret_cast<const Int8*>(copies);
      values[group] = reinterpret_cast<const Int8*>(copies + bytes);
    }
    std::size_t known = groups + std::min(far_, next.whole_groups());
    if (!next.adjacent(known - groups, keys_ + groups, values + groups)) known = groups;
    for (std::size_t group = 0; group < groups; ++group) {
      make_room(group);
      const std::size_t last = known - 1, near = std::min(group + 1, last);
      const std::size_t middle = std::min(group + middle_, last), far = std::min(group + far_, last);
      const Int8* const ahead[] = {keys_[near], values[near], keys_[middle], values[middle], keys_[far], values[far]};
      panel_.score(keys_[group], values[group], group * key_group, ahead);
    }
  }

  /// The same of rows that lie anywhere.
  void score_listed(const SegmentRows<KV>& rows, const SegmentRows<KV>& next) {
    const std::size_t groups = rows.groups();
    const Int8** const values = values_[turn_];
    const std::size_t known = groups + std::min(far_, next.groups());
    const auto look_up = [&](std::size_t group) {
      const bool here = group < groups;
      const std::size_t first = group * key_group;
      if (group < known) (here ? rows : next).look_up(here ? group : group - groups, keys_ + first, values + first);
    };
    for (std::size_t group = 0; group < far_; ++group) look_up(group);
    for (std::size_t group = 0; group < groups; ++group) {
      look_up(group + far_);
      make_room(group);
      const std::size_t first = group * key_group;
      const std::size_t middle = std::min(group + middle_, known - 1) * key_group;
      const std::size_t far = std::min(group + far_, known - 1) * key_group;
      const Int8* const* const ahead[] = {keys_ + middle, values + middle, keys_ + far, values + far};
      panel_.score(keys_ + first, values + first, first, ahead);
    }
  }

  /// Sums the tile of the segment before that scores of this group are going to replace.
  void make_room(std::size_t group) {
    const std::size_t first = group * key_group;
    if (first % key_tile == 0 && first < panel_.left_keys()) sum_tile(first);
  }
  /// Sums the segment before from key `first` on.
  void sum_left(std::size_t first) {
    for (; first < panel_.left_keys(); first += key_tile) sum_tile(first);
  }
  void sum_tile(std::size_t first) { panel_.sum_tile(values_[1 - turn_], adjacent_[1 - turn_], first); }

  StoredWeightCodes panel_;
  // Rows of this segment, or if it is adjacent the first rows of its groups; of values also those of the segment
  // before, which change places.
  const Int8* keys_[segment_keys + most_ahead * key_group];
  const Int8* values_[2][segment_keys + most_ahead * key_group];
  bool adjacent_[2] = {};
  std::size_t turn_ = 0;              // this segment's place
  std::size_t middle_ = 0, far_ = 0;  // groups ahead: 3 and 6 KB
};

#endif

}  // namespace lazyllm::inline v0::detail
