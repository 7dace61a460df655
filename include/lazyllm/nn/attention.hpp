// Causal grouped-query attention of some rows over a list of keys, tiled, with a running softmax.
// The call chooses the kernels of an ISA and of the stored elements; nn/attention_job.hpp does the work.
// Source: Milakov and Gimelshein, arXiv 1805.02867 (running softmax); Dao et al., arXiv 2205.14135 (tiling).
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/nn/attention_job.hpp>
#include <lazyllm/nn/attention_scratch.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/simd/dispatch.hpp>

#include <concepts>
#include <span>

namespace lazyllm::inline v0 {

namespace detail {
/// Whether kernels on pairs of bfloat16 take rows of Element.
template <RowElement Element>
inline constexpr bool in_bfloat16_pairs = std::same_as<Element, BFloat16> || std::same_as<Element, Int8>;
}  // namespace detail

/// out[r, h] = sum over keys k <= rows[r] of softmax(scale * query[r, h] . key[k])[k] * value[k].
/// queries, out: [rows, heads * head_dim], rotation applied; may be the same rows where no column sums are wanted.
/// keys: ascending, each row among them, stored in kv. A row's output and probabilities depend, bit for bit, only on
/// its query and the keys up to its position: not on the other rows, the executor or the number of threads. Scores must
/// be finite; K and V of BFloat16 or Int8 must be finite throughout, and where both are (head_dim a multiple of 32),
/// AVX-512-BF16 and AMX round queries, weights and numbers of 8 bits to bfloat16. But with values of Int8,
/// AVX-512-BF16 rounds weights to 8 bits, and where keys are too, it and AVX-512-VNNI do so with queries and weights;
/// with keys of Int8 and values that are not multiplied as bfloat16, both round queries to 8 bits.
/// O(rows * keys * heads * head_dim); no allocation once scratch holds these sizes.
template <KeyValueReader KV, Executor E>
void attention(const AttentionShape& shape, ConstRows queries, std::span<const TokenIndex> rows,
               std::span<const TokenIndex> keys, const KV& kv, Rows out, AttentionScores scores,
               AttentionScratch& scratch, E& executor, Isa isa = active_isa()) {
  LAZYLLM_EXPECTS(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0 && shape.head_dim > 0);
  LAZYLLM_EXPECTS(kv.kv_head_count() == shape.kv_heads && kv.head_dim() == shape.head_dim);
  LAZYLLM_EXPECTS(queries.rows() == rows.size() && queries.cols() == shape.heads * shape.head_dim);
  LAZYLLM_EXPECTS(out.rows() == rows.size() && out.cols() == queries.cols());
  const auto& [last_rows, column_sums] = scores;
  LAZYLLM_EXPECTS(last_rows.empty() || (last_rows.heads() == shape.heads && last_rows.keys() == keys.size()));
  LAZYLLM_EXPECTS(last_rows.query_rows() <= rows.size());
  LAZYLLM_EXPECTS(column_sums.empty() || (column_sums.rows() == shape.heads && column_sums.cols() == keys.size() &&
                                          out.data() != queries.data()));
  if (rows.empty()) return;
  scratch.reserve(shape, rows.size(), keys.size(), column_sums.empty() ? last_rows.query_rows() : rows.size(),
                  executor.concurrency());
  const auto run_on = [&](auto vectors) {
    detail::AttentionJob<decltype(vectors), KV>(shape, queries, rows, keys, kv, out, scores, scratch).run(executor);
  };
#if defined(__x86_64__)
  using Key = KeyElementOf<KV>;
  using Value = ValueElementOf<KV>;
  const bool whole_pairs = shape.head_dim % 32 == 0;
  if constexpr (detail::in_bfloat16_pairs<Key> && detail::in_bfloat16_pairs<Value>) {
    if (isa == Isa::amx && whole_pairs) return run_on(detail::AmxFloats{});
  }
  if constexpr (std::same_as<Key, Int8> && std::same_as<Value, Int8>) {
    if (isa == Isa::avx512vnni || isa == Isa::avx512bf16) return run_on(detail::VnniFloats{});
  } else if constexpr (std::same_as<Key, BFloat16> && std::same_as<Value, Int8>) {
    if (isa == Isa::avx512bf16 && whole_pairs) return run_on(detail::PairCodeFloats{});
  } else if constexpr (detail::in_bfloat16_pairs<Key> && detail::in_bfloat16_pairs<Value>) {
    if (isa == Isa::avx512bf16 && whole_pairs) return run_on(detail::Bfloat16Floats{});
  }
  if constexpr (std::same_as<Key, Int8> && !std::same_as<Value, Int8>) {
    if (isa == Isa::avx512vnni || isa == Isa::avx512bf16) return run_on(detail::CodeKeyFloats{});
  }
#endif
  dispatch_float(isa, [&](auto tag) { run_on(detail::Floats<decltype(tag)::value>{}); });
}

}  // namespace lazyllm::inline v0
