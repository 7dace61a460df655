// Working memory of attention: one workspace a thread, the states of split keys, a few numbers a row.
// Grown by reserve(); a call that fits what was reserved allocates nothing.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/nn/kernels/attention.hpp>
#include <lazyllm/parallel/lease_pool.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace lazyllm::inline v0 {

/// Sizes of one attention layer. Query head h reads KV head h / (heads / kv_heads).
struct AttentionShape {
  std::size_t heads = 0;
  std::size_t kv_heads = 0;
  std::size_t head_dim = 0;
  float scale = 1.0f;  ///< usually 1 / sqrt(head_dim)

  friend bool operator==(const AttentionShape&, const AttentionShape&) = default;
};

namespace detail {

inline constexpr std::size_t split_rows = 8;         // calls of at most this many rows are spread over segments
inline constexpr std::size_t most_block_rows = 288;  // query rows that share a transposed segment of keys

/// Sizes that follow from the shape alone.
struct AttentionBlocking {
  explicit AttentionBlocking(const AttentionShape& shape)
      : group(shape.heads / shape.kv_heads),
        most_tokens(std::max<std::size_t>(1, most_block_rows / group)),
        block_rows(most_tokens * group),
        padded_dim((shape.head_dim + 15) / 16 * 16) {}

  std::size_t group;        // query heads a KV head
  std::size_t most_tokens;  // most token rows of a block
  std::size_t block_rows;   // most query rows of a block
  std::size_t padded_dim;

  /// Token rows of each of `blocks` blocks, about as many, in whole panels, so that threads end together.
  [[nodiscard]] std::size_t even_tokens(std::size_t rows, std::size_t blocks) const {
    const std::size_t even = (rows + blocks - 1) / blocks;
    return std::min(most_tokens, (even + panel_rows - 1) / panel_rows * panel_rows);
  }

  /// Rows up to a whole number of tiles of 16 (AMX), and of cache lines of floats.
  static constexpr std::size_t padded_rows(std::size_t rows) { return (rows + 15) / 16 * 16; }
  /// Floats of the state of up to `rows` rows.
  [[nodiscard]] std::size_t state_floats(std::size_t rows) const {
    return padded_rows(rows) * (1 + sum_lanes + padded_dim);
  }
  [[nodiscard]] static AttentionState state_at(float* p, std::size_t rows) {
    return {p, p + padded_rows(rows), p + padded_rows(rows) * (1 + sum_lanes)};
  }
  /// Rows of the states of a call of at most split_rows token rows.
  [[nodiscard]] std::size_t split_state_rows(std::size_t rows) const { return std::min(rows, most_tokens) * group; }
};

/// What one thread needs for one block of rows and one segment of keys.
struct AttentionWorkspace {
  AlignedBuffer<float> queries;        // [block_rows, head_dim]
  AlignedBuffer<float> keys;           // [segment_keys / key_tile, head_dim, key_tile]
  AlignedBuffer<float> values;         // [segment_keys, padded_dim]
  AlignedBuffer<float> rows;           // [16, padded_dim]: rows of the cache on their way into keys or values
  AlignedBuffer<float> state;          // of the segments so far
  AlignedBuffer<float> panel;          // of 16 rows in one segment
  AlignedBuffer<float> scales;         // of CodeScales: [3 * segment_keys + block_rows]
  AlignedBuffer<std::int32_t> starts;  // [block_rows]
  AlignedBuffer<std::size_t> counts;
  AlignedBuffer<std::size_t> taken;  // of split keys: segments of each block's KV head
  AlignedBuffer<float*> score_rows;
};

}  // namespace detail

/// Owned by the caller of attention(), one per concurrent call.
class AttentionScratch {
 public:
  /// Makes room for calls of up to `rows` rows, `keys` keys and `query_rows` rows of scores by an executor of that
  /// concurrency. attention() does it itself; calling it first moves the allocations out of the hot path.
  void reserve(const AttentionShape& shape, std::size_t rows, std::size_t keys, std::size_t query_rows,
               std::size_t concurrency) {
    LAZYLLM_EXPECTS(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0 && shape.head_dim > 0);
    const detail::AttentionBlocking blocking(shape);
    if (!(shape == shape_)) {
      shape_ = shape;
      workspaces_.clear();
    }
    workspaces_.grow(concurrency,
                     [&](detail::AttentionWorkspace& workspace) { prepare(workspace, blocking, shape.kv_heads); });
    const std::size_t few = std::min(rows, detail::split_rows);
    const std::size_t blocks = (few + blocking.most_tokens - 1) / blocking.most_tokens;
    const std::size_t segments = (keys + detail::segment_keys - 1) / detail::segment_keys;
    grow(split_states_, blocks * shape.kv_heads * segments * blocking.state_floats(blocking.split_state_rows(few)));
    grow(merged_heads_, shape.kv_heads * blocks);
    grow(limits_, rows);
    grow(score_stats_, 2 * query_rows * shape.heads);
  }

  /// States of split keys, [kv_head, block, segment, state_floats(split_state_rows)].
  [[nodiscard]] float* split_states() { return split_states_.data(); }
  /// Of split keys: whether a thread has merged what belongs to a block's KV head, [kv_head, block].
  [[nodiscard]] bool* merged_heads() { return merged_heads_.data(); }
  /// Keys that each row sees, [rows].
  [[nodiscard]] std::size_t* limits() { return limits_.data(); }
  /// Maximum and 1 / sum of each row of scores, [query_rows, heads, 2].
  [[nodiscard]] float* score_stats() { return score_stats_.data(); }

  [[nodiscard]] detail::LeasePool<detail::AttentionWorkspace>& workspaces() { return workspaces_; }

 private:
  template <class T>
  static void grow(AlignedBuffer<T>& buffer, std::size_t size) {
    if (size > buffer.size()) buffer = AlignedBuffer<T>(size);
  }

  static void prepare(detail::AttentionWorkspace& workspace, const detail::AttentionBlocking& blocking,
                      std::size_t kv_heads) {
    workspace.queries.resize_discard(blocking.padded_rows(blocking.block_rows) * blocking.padded_dim);
    workspace.keys.resize_discard(detail::segment_keys * blocking.padded_dim);
    workspace.values.resize_discard(detail::segment_keys * blocking.padded_dim);
    workspace.rows.resize_discard(16 * blocking.padded_dim);
    workspace.state.resize_discard(blocking.state_floats(blocking.block_rows));
    workspace.panel.resize_discard(blocking.state_floats(16));
    workspace.scales.resize_discard(3 * detail::segment_keys + blocking.block_rows);
    workspace.starts.resize_discard(blocking.block_rows);
    workspace.counts.resize_discard(blocking.block_rows);
    workspace.taken.resize_discard(detail::split_rows * kv_heads);
    workspace.score_rows.resize_discard(blocking.block_rows);
  }

  AttentionShape shape_;
  detail::LeasePool<detail::AttentionWorkspace> workspaces_;
  AlignedBuffer<float> split_states_;
  AlignedBuffer<bool> merged_heads_;
  AlignedBuffer<std::size_t> limits_;
  AlignedBuffer<float> score_stats_;
};

}  // namespace lazyllm::inline v0
