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
  /// `shares_memory`: other threads read from it at the same time.
  explicit StoredAttention(bool) {}
  [[nodiscard]] static bool takes(const AttentionSegment&) { return false; }
  void add(const AttentionSegment&, const SegmentRows<KV>&, const SegmentRows<KV>&, AttentionWorkspace&) {}
  void finish() {}
};

#if defined(__x86_64__)

template <KeyValueReader KV>
class StoredAttention<VnniFloats, KV> {
 public:
  explicit StoredAttention(bool shares_memory) : panel_(shares_memory) {}
  [[nodiscard]] static bool takes(const AttentionSegment& segment) { return StoredWeightCodes::takes(segment); }

  /// attend() of a segment, whose values are added to its state by the next add() or finish(). All segments have as
  /// many rows, of the same head size. `next`: what the thread probably reads after these rows, or none.
  void add(const AttentionSegment& segment, const SegmentRows<KV>& rows, const SegmentRows<KV>& next,
           AttentionWorkspace& workspace) {
    const std::size_t bytes = key_group * row_bytes<Int8>(segment.head_dim);
    ahead_ = {(3072 + bytes - 1) / bytes, (6144 + bytes - 1) / bytes};
    panel_.begin(segment, rows.groups() * key_group);
    adjacent_[turn_] = rows.adjacent(rows.whole_groups(), keys_, values_[turn_]);
    if (adjacent_[turn_]) {
      auto* const copies = reinterpret_cast<std::byte*>(workspace.values.data());
      score_adjacent(rows, next, bytes, copies + turn_ * 2 * (key_tile / key_group) * bytes);
    } else {
      score_listed(rows, next);
    }
    panel_.sum_left(rows.groups() * key_group, values_[1 - turn_], adjacent_[1 - turn_]);
    panel_.end_scores();
    turn_ = 1 - turn_;
  }

  /// Adds what is left.
  void finish() { panel_.sum_left(0, values_[1 - turn_], adjacent_[1 - turn_]); }

 private:
  static constexpr std::size_t most_ahead = 6;  // groups

  /// Scores of a segment of adjacent rows, groups of `bytes`. Those of the last tile that are not whole are copied:
  /// keys, then values.
  void score_adjacent(const SegmentRows<KV>& rows, const SegmentRows<KV>& next, std::size_t bytes, std::byte* copies) {
    const Int8** const values = values_[turn_];
    const std::size_t groups = rows.groups(), end = groups + ahead_.far;
    for (std::size_t group = rows.whole_groups(); group < groups; ++group, copies += 2 * bytes) {
      rows.copy(group, copies, copies + bytes);
      keys_[group] = reinterpret_cast<const Int8*>(copies);
      values[group] = reinterpret_cast<const Int8*>(copies + bytes);
    }
    std::size_t known = std::min(end, groups + next.whole_groups());
    if (!next.adjacent(known - groups, keys_ + groups, values + groups)) known = groups;
    std::fill(keys_ + known, keys_ + end, keys_[known - 1]);
    std::fill(values + known, values + end, values[known - 1]);
    for (std::size_t group = 0; group < groups; group += key_tile / key_group) {
      take_tile(AdjacentGroups{keys_ + group, values + group, ahead_}, group);
    }
  }

  /// The same of rows that lie anywhere.
  void score_listed(const SegmentRows<KV>& rows, const SegmentRows<KV>& next) {
    const Int8** const values = values_[turn_];
    const std::size_t groups = rows.groups(), end = groups + ahead_.far;
    const std::size_t known = std::min(end, groups + next.groups());
    std::size_t found = 0;
    for (std::size_t group = 0; group < groups; group += key_tile / key_group) {
      for (; found < std::min(end, group + key_tile / key_group + ahead_.far); ++found) {
        const Int8** const to_keys = keys_ + found * key_group;
        const Int8** const to_values = values + found * key_group;
        if (found < groups) {
          rows.look_up(found, to_keys, to_values);
        } else if (found < known) {
          next.look_up(found - groups, to_keys, to_values);
        } else {
          std::copy_n(to_keys - key_group, key_group, to_keys);
          std::copy_n(to_values - key_group, key_group, to_values);
        }
      }
      take_tile(ListedGroups{keys_ + group * key_group, values + group * key_group, ahead_}, group);
    }
  }

  template <class Groups>
  void take_tile(const Groups& groups, std::size_t group) {
    panel_.take_tile(groups, group * key_group, values_[1 - turn_], adjacent_[1 - turn_]);
  }

  StoredWeightCodes panel_;
  // Rows of this segment, or if it is adjacent the first rows of its groups; of values also those of the segment
  // before, which change places.
  const Int8* keys_[segment_keys + most_ahead * key_group];
  const Int8* values_[2][segment_keys + most_ahead * key_group];
  bool adjacent_[2] = {};
  std::size_t turn_ = 0;  // this segment's place
  GroupsAhead ahead_;
};

#endif

}  // namespace lazyllm::inline v0::detail
