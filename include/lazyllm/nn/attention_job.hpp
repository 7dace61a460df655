// One call of attention(): how its work is cut, and what each piece does with the kernels.
// Rows and keys are ascending token indices; a row at position p sees the keys <= p. Never a rows x keys matrix.
// Source: Milakov and Gimelshein, arXiv 1805.02867 (running softmax); Dao et al., arXiv 2205.14135 (tiling).
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/nn/attention_operands.hpp>
#include <lazyllm/nn/attention_scratch.hpp>
#include <lazyllm/nn/attention_stored.hpp>
#include <lazyllm/nn/kernels/attention.hpp>
#include <lazyllm/parallel/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <utility>

namespace lazyllm::inline v0 {

/// What attention() tells of its probabilities beside its output. Each is asked for by a view that is not empty.
struct AttentionScores {
  /// [query_rows, heads, keys] gets the probabilities of the last query_rows rows, exactly 0 for keys that the row does
  /// not see.
  ScoreView last_rows = {};
  /// [heads, keys]: to each key's number the probabilities that all rows of the call give it are added, row after row,
  /// so that the bits do not depend on the number of threads, nor on how the rows are cut into calls.
  /// Costs one more product of queries and keys, and one more exponential for each. Never a rows x keys matrix.
  Rows column_sums = {};

  AttentionScores() = default;
  AttentionScores(ScoreView probabilities, Rows sums = {}) : last_rows(probabilities), column_sums(sums) {}
};

namespace detail {

/// One call of attention(). Work is cut into (block of rows, KV head), for few rows also into segments of keys.
template <class V, KeyValueReader KV>
class AttentionJob {
 public:
  AttentionJob(const AttentionShape& shape, ConstRows queries, std::span<const TokenIndex> rows,
               std::span<const TokenIndex> keys, const KV& kv, Rows out, const AttentionScores& scores,
               AttentionScratch& scratch)
      : shape_(shape),
        blocking_(shape),
        operands_(shape, queries, keys, kv),
        rows_(rows),
        keys_(keys.size()),
        out_(out),
        scores_(scores.last_rows),
        column_sums_(scores.column_sums),
        stats_rows_(column_sums_.empty() ? scores_.query_rows() : rows.size()),
        scratch_(scratch),
        blocks_((rows.size() + blocking_.most_tokens - 1) / blocking_.most_tokens),
        block_tokens_(blocking_.even_tokens(rows.size(), blocks_)),
        segments_((keys.size() + segment_keys - 1) / segment_keys) {
    auto key = keys.begin();
    for (std::size_t r = 0; r < rows.size(); ++r) {
      key = std::upper_bound(key, keys.end(), rows[r]);
      LAZYLLM_EXPECTS(key != keys.begin() && *(key - 1) == rows[r]);
      scratch.limits()[r] = static_cast<std::size_t>(key - keys.begin());
    }
  }

  template <Executor E>
  void run(E& executor) {
    if (rows_.size() <= split_rows) {
      run_split(executor);
    } else {
      run_blocks(executor);
    }
    fill_probabilities(executor);
    sum_columns(executor);
  }

 private:
  using WorkspaceLease = LeasePool<AttentionWorkspace>::Lease;
  static constexpr std::size_t serial_macs = 100000;  // about 1 us: less than that is not worth another thread

  /// The token rows of a block and the sizes that go with them.
  struct Block {
    std::size_t first;   // of rows_
    std::size_t tokens;  // at most block_tokens_
    std::size_t limit;   // keys that its last row sees
  };

  [[nodiscard]] Block block(std::size_t index) const {
    const std::size_t first = index * block_tokens_;
    const std::size_t tokens = std::min(block_tokens_, rows_.size() - first);
    return {first, tokens, scratch_.limits()[first + tokens - 1]};
  }

  /// call(threads): the executor, or for little work the calling thread.
  template <Executor E, class Call>
  static void on_threads(std::size_t macs, E& executor, const Call& call) {
    if (macs < serial_macs) {
      const SerialExecutor here;
      call(here);
    } else {
      call(executor);
    }
  }
  template <Executor E, class Body>
  static void spread(std::size_t n, std::size_t macs, E& executor, const Body& body) {
    on_threads(macs, executor, [&](auto& threads) { threads.parallel_for(n, body); });
  }

  /// Many rows: a thread takes a block through all segments. One head after the other, whose keys stay in the cache;
  /// late blocks, which see most keys, come first.
  template <Executor E>
  void run_blocks(E& executor) {
    executor.parallel_for(blocks_ * shape_.kv_heads, [this](std::size_t begin, std::size_t end) {
      const WorkspaceLease lease(scratch_.workspaces());
      AttentionWorkspace& workspace = *lease;
      const AttentionState state = blocking_.state_at(workspace.state.data(), blocking_.block_rows);
      for (std::size_t i = begin; i < end; ++i) {
        const Block b = block(blocks_ - 1 - i % blocks_);
        const std::size_t kv_head = i / blocks_;
        operands_.load_queries(b.first, b.tokens, kv_head, workspace);
        for (std::size_t s = 0; s * segment_keys < b.limit; ++s) {
          attend_segment(segment_into(state, s == 0, b, kv_head, s, workspace), segment_rows(b, kv_head, s), workspace);
        }
        finish(b, kv_head, state);
      }
    });
  }

  /// Few rows: segments are spread over the threads, then merged in order, as run_blocks does. A block's KV head that a
  /// thread has alone it merges itself, while others still work; those that threads share wait for the end.
  template <Executor E>
  void run_split(E& executor) {
    const std::size_t items = shape_.kv_heads * blocks_ * segments_;
    std::fill_n(scratch_.merged_heads(), shape_.kv_heads * blocks_, false);
    const std::size_t macs = 2 * rows_.size() * keys_ * shape_.heads * shape_.head_dim;
    on_threads(macs, executor, [&](auto& threads) {
      for_ranges(items, threads, [&](auto& ranges) { attend_ranges(ranges, threads.concurrency() > 1); });
    });
    for (std::size_t head = 0; head < blocks_ * shape_.kv_heads; ++head) {
      if (!scratch_.merged_heads()[head]) merge_segments(head);
    }
  }

  /// What one thread does of run_split's items; `shares_memory`: beside others.
  template <class Ranges>
  void attend_ranges(Ranges& ranges, bool shares_memory) const {
    const WorkspaceLease lease(scratch_.workspaces());
    StoredAttention<V, KV> stored(shares_memory);
    std::size_t* const taken = (*lease).taken.data();
    std::fill_n(taken, shape_.kv_heads * blocks_, 0);
    std::size_t loaded = blocks_ * shape_.kv_heads;  // whose queries: none yet
    for (WorkRange range = ranges.next(); !range.empty(); range = ranges.next()) {
      for (std::size_t i = range.begin; i < range.end; ++i) {
        const auto [b, kv_head, s] = split_item(i);
        ++taken[i / segments_];
        if (std::exchange(loaded, i / segments_) != i / segments_) {
          operands_.load_queries(b.first, b.tokens, kv_head, *lease);
        }
        const AttentionSegment segment = segment_into(split_state(i), true, b, kv_head, s, *lease);
        const SegmentRows<KV> rows = segment_rows(b, kv_head, s);
        if (rows.groups() == 0) continue;
        if (stored.takes(segment)) {
          stored.add(segment, rows, rows_after(i), *lease);
        } else {
          attend_segment(segment, rows, *lease);
        }
      }
    }
    stored.finish();
    for (std::size_t head = 0; head < blocks_ * shape_.kv_heads; ++head) {
      if (taken[head] != segments_) continue;
      merge_segments(head);
      scratch_.merged_heads()[head] = true;
    }
  }

  /// Merges the segments of a block's KV head, block + kv_head * blocks_, into its output.
  void merge_segments(std::size_t head) const {
    const std::size_t first = head * segments_;
    const SplitItem item = split_item(first);
    for (std::size_t s = 1; s < segments_; ++s) {
      merge_states(V{}, item.rows.tokens * blocking_.group, blocking_.padded_dim, split_state(first + s),
                   split_state(first));
    }
    finish(item.rows, item.kv_head, split_state(first));
  }

  /// An item of run_split: a block's rows against one segment of keys.
  struct SplitItem {
    Block rows;
    std::size_t kv_head, segment;
  };
  [[nodiscard]] SplitItem split_item(std::size_t i) const {
    return {block(i / segments_ % blocks_), i / segments_ / blocks_, i % segments_};
  }
  /// The keys and values of the item after this one, none after the last.
  [[nodiscard]] SegmentRows<KV> rows_after(std::size_t i) const {
    const auto [b, kv_head, s] = split_item(i + 1);
    return operands_.segment_rows(kv_head, s * segment_keys, kv_head < shape_.kv_heads ? b.limit : 0);
  }

  [[nodiscard]] AttentionState split_state(std::size_t item) const {
    const std::size_t state_rows = blocking_.split_state_rows(rows_.size());
    return blocking_.state_at(scratch_.split_states() + item * blocking_.state_floats(state_rows), state_rows);
  }

  /// The block's rows against the segment that begins at key `first`.
  [[nodiscard]] AttentionSegment segment_of(const Block& b, std::size_t first, AttentionWorkspace& workspace) const {
    AttentionSegment segment;
    segment.rows = b.tokens * blocking_.group;
    segment.head_dim = shape_.head_dim;
    segment.padded_dim = blocking_.padded_dim;
    segment.queries = workspace.queries.data();
    segment.keys = workspace.keys.data();
    segment.values = workspace.values.data();
    segment.counts = workspace.counts.data();
    segment.score_rows = workspace.score_rows.data();
    segment.scales = code_scales(workspace);
    for (std::size_t t = 0; t < b.tokens; ++t) {
      const std::size_t limit = scratch_.limits()[b.first + t];
      const std::size_t count = limit <= first ? 0 : std::min(segment_keys, limit - first);
      std::fill_n(workspace.counts.data() + t * blocking_.group, blocking_.group, count);
    }
    return segment;
  }

  /// The block's rows against segment `index`, whose softmax is added to the state, or begins it.
  [[nodiscard]] AttentionSegment segment_into(const AttentionState& state, bool begin, const Block& b,
                                              std::size_t kv_head, std::size_t index,
                                              AttentionWorkspace& workspace) const {
    if (begin) std::fill_n(state.max, b.tokens * blocking_.group, -std::numeric_limits<float>::infinity());
    const std::size_t first = index * segment_keys;
    AttentionSegment segment = segment_of(b, first, workspace);
    segment.state = state;
    segment.panel = blocking_.state_at(workspace.panel.data(), 16);
    segment.first = begin;
    for (std::size_t t = 0; t < b.tokens; ++t) {
      const std::size_t from_end = rows_.size() - (b.first + t);
      for (std::size_t g = 0; g < blocking_.group; ++g) {
        workspace.score_rows[t * blocking_.group + g] =
            from_end > scores_.query_rows()
                ? nullptr
                : scores_.row(scores_.query_rows() - from_end, kv_head * blocking_.group + g).data() + first;
      }
    }
    return segment;
  }
  /// The keys and values of it that the block's rows see.
  [[nodiscard]] SegmentRows<KV> segment_rows(const Block& b, std::size_t kv_head, std::size_t index) const {
    return operands_.segment_rows(kv_head, index * segment_keys, b.limit);
  }

  void attend_segment(const AttentionSegment& segment, const SegmentRows<KV>& rows,
                      AttentionWorkspace& workspace) const {
    operands_.load_keys(rows, workspace);
    operands_.load_values(rows, workspace);
    [[maybe_unused]] const AttentionSetup<V> setup(segment.rows);
    attend(V{}, segment);
  }

  void finish(const Block& b, std::size_t kv_head, const AttentionState& total) const {
    for (std::size_t t = 0; t < b.tokens; ++t) {
      const std::size_t from_end = rows_.size() - (b.first + t);
      for (std::size_t g = 0; g < blocking_.group; ++g) {
        const std::size_t row = t * blocking_.group + g;
        const std::size_t head = kv_head * blocking_.group + g;
        float* to = out_.row(b.first + t).data() + head * shape_.head_dim;
        const float inverse_sum = finish_row(V{}, total, row, blocking_.padded_dim, to, shape_.head_dim);
        if (from_end > stats_rows_) continue;
        float* stats = score_stats(from_end, head);
        stats[0] = total.max[row];
        stats[1] = inverse_sum;
      }
    }
  }

  /// Maximum and 1 / sum of the row that is `from_end` rows before the end, 1 the last.
  [[nodiscard]] float* score_stats(std::size_t from_end, std::size_t head) const {
    return scratch_.score_stats() + 2 * ((stats_rows_ - from_end) * shape_.heads + head);
  }

  /// Turns the raw scores, which attend left in scores_, into probabilities.
  template <Executor E>
  void fill_probabilities(E& executor) const {
    if (scores_.empty()) return;
    const std::size_t count = scores_.query_rows() * shape_.heads;
    spread(count, count * keys_ * 16, executor, [this](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t query_row = i / shape_.heads;
        const std::size_t limit = scratch_.limits()[rows_.size() - scores_.query_rows() + query_row];
        const std::span<float> row = scores_.row(query_row, i % shape_.heads);
        const float* stats = score_stats(scores_.query_rows() - query_row, i % shape_.heads);
        probabilities(V{}, row.data(), limit, stats[0], stats[1]);
        std::fill(row.begin() + static_cast<std::ptrdiff_t>(limit), row.end(), 0.0f);
      }
    });
  }

  /// Adds the probabilities to column_sums_, from the scores once more. A thread takes a segment of keys of one KV head
  /// through all rows in order; early segments, which most rows see, come first.
  template <Executor E>
  void sum_columns(E& executor) const {
    if (column_sums_.empty()) return;
    const std::size_t macs = rows_.size() * keys_ * shape_.heads * shape_.head_dim;
    spread(segments_ * shape_.kv_heads, macs, executor, [this](std::size_t begin, std::size_t end) {
      const WorkspaceLease lease(scratch_.workspaces());
      for (std::size_t i = begin; i < end; ++i) sum_segment(i % shape_.kv_heads, i / shape_.kv_heads, *lease);
    });
  }

  void sum_segment(std::size_t kv_head, std::size_t index, AttentionWorkspace& workspace) const {
    const std::size_t first = index * segment_keys;
    const std::size_t limit = scratch_.limits()[rows_.size() - 1];
    if (first >= limit) return;
    operands_.load_keys(operands_.segment_rows(kv_head, first, limit), workspace);
    for (std::size_t i = 0; i < blocks_; ++i) {
      const Block b = block(i);
      if (b.limit <= first) continue;
      operands_.load_queries(b.first, b.tokens, kv_head, workspace);
      const AttentionSegment segment = segment_of(b, first, workspace);
      for_panels(segment, [&](auto rows, std::size_t row) {
        alignas(64) float scores[rows() * segment_keys];
        score_panel<rows()>(V{}, segment, row, whole_tiles(segment.counts[row + rows() - 1]), scores);
        for (std::size_t r = 0; r < rows(); ++r) {
          const std::size_t token = b.first + (row + r) / blocking_.group;
          const std::size_t head = kv_head * blocking_.group + (row + r) % blocking_.group;
          const std::size_t count = segment.counts[row + r];
          const float* const own = scores + r * segment_keys;
          const float* const stats = score_stats(rows_.size() - token, head);
          if (count != 0) add_probabilities(V{}, own, count, stats[0], stats[1], column_sums_.row(head).data() + first);
        }
      });
    }
  }

  const AttentionShape& shape_;
  const AttentionBlocking blocking_;
  const AttentionOperands<V, KV> operands_;
  const std::span<const TokenIndex> rows_;
  const std::size_t keys_;
  const Rows out_;
  const ScoreView scores_;
  const Rows column_sums_;
  const std::size_t stats_rows_;  // last rows whose maximum and sum are kept
  AttentionScratch& scratch_;
  const std::size_t blocks_;
  const std::size_t block_tokens_;  // of each but the last
  const std::size_t segments_;
};

}  // namespace detail

}  // namespace lazyllm::inline v0
