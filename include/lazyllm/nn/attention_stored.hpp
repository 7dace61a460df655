// Attention of one panel of rows, as when a token is generated: keys and values of 8 bits are multiplied as they come
// from memory. Another form of them, which many panels would share, does not pay.
#pragma once

#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/row_element.hpp>
#include <lazyllm/nn/attention_rows.hpp>
#include <lazyllm/nn/kernels/attention.hpp>
#include <lazyllm/nn/kernels/attention_codes.hpp>

#include <cstddef>

namespace lazyllm::inline v0::detail {

/// Whether attend_stored() does a segment: a panel of rows of the usual head sizes, which its kernels are compiled for.
inline bool attends_stored(const AttentionSegment& segment) {
  const std::size_t head_dim = segment.head_dim;
  return segment.rows <= panel_rows && (head_dim == 64 || head_dim == 128 || head_dim == 256);
}

}  // namespace lazyllm::inline v0::detail

#if defined(__x86_64__)

namespace lazyllm::inline v0::detail {

/// attend() of such a segment, which has no keys and values. `next`: the rows of the one that the thread attends to
/// next, or none.
template <KeyValueReader KV>
void attend_stored(const AttentionSegment& segment, const SegmentRows<KV>& rows, const SegmentRows<KV>& next) {
  const Int8* keys[segment_keys];
  const Int8* values[segment_keys];
  WeightCodes panel;
  panel.begin(segment, 0, segment.rows, whole_tiles(segment.counts[segment.rows - 1]));
  with_rows(segment.rows, [&](auto count) {
    rows.look_up_both(keys, values, [&](std::size_t half) {
      const std::size_t first = half - half % key_group;
      if (half == first) {
        load_value_scales(values + first, first, segment.scales);
        panel.template begin_stored<count()>(keys + first);
      } else {
        load_key_scales(keys + first, first, segment.scales);
        panel.template score_stored<count()>(keys + first, first);
      }
    });
  });
  // Nothing is read for the sums of values: meanwhile the next segment's first rows come, at an even pace, as what is
  // asked for faster than memory delivers is forgotten.
  const std::size_t steps = panel.sum_steps(), ahead = next.rows_ahead();
  std::size_t asked = 0, due = 0;
  panel.sum_stored(values, [&] {
    if ((due += ahead) < steps) return;
    due -= steps;
    next.ask_for(asked++);
  });
}

}  // namespace lazyllm::inline v0::detail

#endif
