// The Llama graph of one sequence: shared const weights, its own KV cache, and scratch that does not grow with the
// prompt: hidden [rows, hidden_dim] runs through a layer tile by tile, all threads on each, or, once K and V are there,
// block by block, a thread on each.
// What rows go through is in llama/layers.hpp.
#pragma once

#include <lazyllm/cache/kv_cache.hpp>
#include <lazyllm/core/checksum.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/row_element.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/llama/config.hpp>
#include <lazyllm/llama/layers.hpp>
#include <lazyllm/llama/weights.hpp>
#include <lazyllm/nn/attention.hpp>
#include <lazyllm/nn/value_norms.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/parallel/lease_pool.hpp>
#include <lazyllm/parallel/thread_pool.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

namespace lazyllm::inline v0 {

namespace detail {

/// Tells what K or V is stored as in a fingerprint.
template <RowElement Element>
inline constexpr std::uint64_t element_number = std::same_as<Element, float>      ? 0
                                                : std::same_as<Element, Float16>  ? 1
                                                : std::same_as<Element, BFloat16> ? 2
                                                                                  : 3;

}  // namespace detail

/// A LanguageGraph over shared weights. Not thread-safe: one graph, one executor and one thread per sequence; any
/// number of graphs share the weights. Nothing allocates after construction.
template <WeightChoice W = AsStored, Executor E = ThreadPool, KeyValueCache Cache = KvCache<>>
class Llama {
 public:
  /// Rows of a prompt that pass through a layer together: enough to reuse each weight from the cache, few enough for
  /// the tile's activations to stay there; a multiple of the kernels' tiles (12 rows of a matmul, 96 of attention with
  /// 3 heads a group).
  static constexpr std::size_t tile_rows = 384;

  /// Holds up to `context_size` tokens; the executor must outlive the graph. Throws Error when the context size is 0 or
  /// beyond the model's context length.
  Llama(std::shared_ptr<const LlamaWeights<W>> weights, E& executor, std::size_t context_size);

  [[nodiscard]] std::size_t layer_count() const { return config().layers; }
  [[nodiscard]] std::size_t head_count() const { return config().heads; }
  [[nodiscard]] std::size_t hidden_dim() const { return config().hidden_dim; }
  [[nodiscard]] std::size_t vocab_size() const { return config().vocab_size; }
  [[nodiscard]] const LlamaConfig& config() const { return layers_.config(); }
  /// Bytes of K and V in use.
  [[nodiscard]] std::size_t kv_bytes() const { return cache_.size_bytes(); }
  /// Bytes of the pages that hold them; with a layout that is not paged the address space of the whole context.
  [[nodiscard]] std::size_t kv_reserved_bytes() const { return cache_.reserved_bytes(); }

  void embed(std::span<const TokenId> ids, Rows hidden) const {
    for (std::size_t r = 0; r < ids.size(); ++r) {
      layers_.weights().embedding().dequantize_row(static_cast<std::size_t>(ids[r]), hidden.row(r));
    }
  }
  /// column_sums: empty, or [heads, keys], as of a ColumnSumGraph.
  void run_layer(const LayerStep& step, Rows column_sums = {});
  void project_kv(const LayerStep& step);
  void score(const LayerStep& step);
  void finish(const LayerStep& step);
  void project(ConstRows hidden, Rows logits);

  /// As of a ValueNormGraph, of the values as they are stored.
  void value_norms(LayerIndex layer, std::span<const TokenIndex> tokens, Rows norms) const {
    lazyllm::value_norms(cache_.layer(layer), tokens, norms, executor_);
  }
  void evict(LayerIndex layer, std::span<const TokenIndex> tokens) {
    for (const TokenIndex token : tokens) cache_.layer(layer).remove(token);
  }
  void truncate(std::size_t tokens) { cache_.truncate(tokens); }
  [[nodiscard]] std::size_t token_bytes() const { return cache_.layer(0).token_bytes(); }
  void export_token(LayerIndex layer, TokenIndex token, std::span<std::byte> out) const {
    cache_.layer(layer).export_token(token, out);
  }
  void import_token(LayerIndex layer, TokenIndex token, std::span<const std::byte> in) {
    cache_.layer(layer).import_token(token, in);
  }
  /// Of the weights, the ISA whose kernels run, and the type of K and V.
  [[nodiscard]] std::uint64_t fingerprint() const;

 private:
  using Layer = std::remove_cvref_t<decltype(std::declval<Cache&>().layer(LayerIndex{}))>;
  /// Keys of 8 bits have one scale a row: large numbers are spread over it.
  static constexpr bool spreads_keys = std::same_as<KeyElementOf<Layer>, Int8>;

  [[nodiscard]] detail::Crew<E> everyone() { return {executor_, scratch_}; }

  /// Calls body(first, count) for each tile of `rows` rows.
  template <class Body>
  static void for_tiles(std::size_t rows, Body body) {
    for (std::size_t first = 0; first < rows; first += tile_rows) body(first, std::min(tile_rows, rows - first));
  }
  void run_tile(const LayerStep& step, Rows column_sums, std::size_t first, std::size_t count);
  /// The part of the scores that `count` rows from `first` on fill: the score rows are the last rows of the whole step.
  [[nodiscard]] static ScoreView scores_of(const LayerStep& step, std::size_t first, std::size_t count) {
    const std::size_t first_score_row = step.rows.size() - step.scores.query_rows();
    const std::size_t begin = std::max(first, first_score_row), end = first + count;
    return begin < end ? step.scores.middle_query_rows(begin - first_score_row, end - begin) : ScoreView{};
  }
  /// Rows that one thread takes through a part of a layer by itself: to K and V, or from the queries to the end. Their
  /// activations stay in its caches, and threads meet once for all of it. Enough to share loads of weights, keys and
  /// values; fewer towards the end, so that threads end together. Multiples of a matmul's 12 rows.
  static constexpr std::size_t least_block_rows = 24, most_block_rows = 96;
  static constexpr std::size_t least_rows_a_thread = 192;
  /// Whether that many rows go block by block. Not with AMX: its kernels unpack weights once for all rows of a call.
  [[nodiscard]] bool in_blocks(std::size_t rows) const {
    return rows >= least_rows_a_thread * executor_.concurrency() && active_isa() != Isa::amx;
  }
  template <class Body>
  void for_blocks(std::size_t rows, const Body& body);
  /// Calls body(crew, first, count) for parts of `rows` rows whose order does not matter: for blocks, a thread each, or
  /// for tiles, all threads on each.
  template <class Body>
  void for_parts(std::size_t rows, const Body& body) {
    if (in_blocks(rows)) return for_blocks(rows, body);
    for_tiles(rows, [&](std::size_t first, std::size_t count) { body(everyone(), first, count); });
  }
  void finish_rows(const LayerStep& step);
  template <Executor X>
  void store(X& executor, LayerIndex layer, std::span<const TokenIndex> positions, ConstRows keys, ConstRows values);
  template <Executor X>
  void attend_and_feed(detail::Crew<X> crew, const LayerStep& step, ConstRows query,
                       std::span<const TokenIndex> positions, AttentionScores scores, Rows hidden) const {
    layers_.attend_and_feed(crew, step.layer, query, positions, step.keys, cache_.layer(step.layer), scores, hidden);
  }

  detail::LlamaLayers<W> layers_;
  E& executor_;
  Cache cache_;
  detail::LlamaScratch scratch_;                             // of a tile
  detail::LeasePool<detail::LlamaScratch> block_scratches_;  // of a block, one a thread
};

template <WeightChoice W, Executor E>
Llama(std::shared_ptr<const LlamaWeights<W>>, E&, std::size_t) -> Llama<W, E>;

template <WeightChoice W, Executor E, KeyValueCache Cache>
Llama<W, E, Cache>::Llama(std::shared_ptr<const LlamaWeights<W>> weights, E& executor, std::size_t context_size)
    : layers_(std::move(weights), context_size, spreads_keys),
      executor_(executor),
      cache_(config().layers,
             CacheShape{.kv_heads = config().kv_heads, .head_dim = config().head_dim, .slots = context_size}) {
  layers_.prepare(scratch_, tile_rows, context_size, executor.concurrency());
  block_scratches_.grow(executor.concurrency(), [&](detail::LlamaScratch& scratch) {
    layers_.prepare(scratch, most_block_rows, context_size, 1);
  });
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::run_layer(const LayerStep& step, Rows column_sums) {
  LAZYLLM_EXPECTS(step.rows.size() == step.hidden.rows() && step.outputs <= step.rows.size());
  if (column_sums.empty() && in_blocks(step.outputs)) {
    project_kv(step);
    LayerStep rest = step;
    rest.rows = step.rows.last(step.outputs);
    rest.hidden = step.hidden.middle_rows(step.rows.size() - step.outputs, step.outputs);
    return finish_rows(rest);
  }
  cache_.layer(step.layer).add(step.rows);
  // Rows are ascending and attention is causal: a tile needs no K or V of the tiles after it.
  for_tiles(step.rows.size(), [&](std::size_t first, std::size_t count) { run_tile(step, column_sums, first, count); });
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::run_tile(const LayerStep& step, Rows column_sums, std::size_t first, std::size_t count) {
  const std::span<const TokenIndex> positions = step.rows.subspan(first, count);
  const Rows hidden = step.hidden.middle_rows(first, count);
  // Queries, attention and what follows only for the rows whose output is used.
  const std::size_t unused = step.rows.size() - step.outputs;
  const std::size_t skip = unused > first ? std::min(count, unused - first) : 0;
  const std::size_t outputs = count - skip;
  const auto [query, key, value] = layers_.project(everyone(), step.layer, hidden, positions, outputs);
  store(executor_, step.layer, positions, key, value);
  if (outputs == 0) return;
  attend_and_feed(everyone(), step, query, positions.subspan(skip),
                  {scores_of(step, first + skip, outputs), column_sums}, hidden.middle_rows(skip, outputs));
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::project_kv(const LayerStep& step) {
  cache_.layer(step.layer).add(step.rows);
  for_parts(step.rows.size(), [&](auto crew, std::size_t first, std::size_t count) {
    const std::span<const TokenIndex> positions = step.rows.subspan(first, count);
    const auto heads = layers_.project(crew, step.layer, step.hidden.middle_rows(first, count), positions, 0);
    store(crew.executor, step.layer, positions, heads.key, heads.value);
  });
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::score(const LayerStep& step) {
  const std::size_t skip = step.rows.size() - step.scores.query_rows();
  for_tiles(step.scores.query_rows(), [&](std::size_t first, std::size_t count) {
    const std::span<const TokenIndex> positions = step.rows.subspan(skip + first, count);
    const ConstRows hidden = step.hidden.middle_rows(skip + first, count);
    const Rows query = layers_.project_queries(everyone(), step.layer, hidden, positions);
    attention(layers_.attention_shape(), query, positions, step.keys, cache_.layer(step.layer), query,
              step.scores.middle_query_rows(first, count), scratch_.attention, executor_);
  });
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::finish(const LayerStep& step) {
  LayerStep rest = step;
  rest.scores = {};  // score() gave them
  finish_rows(rest);
}

/// The rest of a layer, from the queries on, for the rows of `step`, whose K and V are there.
template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::finish_rows(const LayerStep& step) {
  for_parts(step.rows.size(), [&](auto crew, std::size_t first, std::size_t count) {
    const std::span<const TokenIndex> positions = step.rows.subspan(first, count);
    const Rows hidden = step.hidden.middle_rows(first, count);
    const Rows query = layers_.project_queries(crew, step.layer, hidden, positions);
    attend_and_feed(crew, step, query, positions, scores_of(step, first, count), hidden);
  });
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
template <class Body>
void Llama<W, E, Cache>::for_blocks(std::size_t rows, const Body& body) {
  const std::size_t units = (rows + least_block_rows - 1) / least_block_rows;
  executor_.parallel_for(units, [&](std::size_t begin, std::size_t end) {
    const typename detail::LeasePool<detail::LlamaScratch>::Lease scratch(block_scratches_);
    SerialExecutor alone;
    const std::size_t first = (units - end) * least_block_rows;  // late rows, which see most keys, come first
    std::size_t last = std::min(rows, (units - begin) * least_block_rows);
    while (last > first) {
      const std::size_t count = std::min(most_block_rows, last - first);
      last -= count;
      body(detail::Crew<SerialExecutor>{alone, *scratch}, last, count);
    }
  });
}

/// K and V of tokens that the cache was told of.
template <WeightChoice W, Executor E, KeyValueCache Cache>
template <Executor X>
void Llama<W, E, Cache>::store(X& executor, LayerIndex layer, std::span<const TokenIndex> positions, ConstRows keys,
                               ConstRows values) {
  auto& cache = cache_.layer(layer);
  detail::for_rows(positions.size(), 2 * keys.cols(), executor, [&](std::size_t begin, std::size_t end) {
    for (std::size_t r = begin; r < end; ++r) cache.store(positions[r], keys.row(r), values.row(r));
  });
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::project(ConstRows hidden, Rows logits) {
  for_tiles(hidden.rows(), [&](std::size_t first, std::size_t count) {
    layers_.project_logits(everyone(), hidden.middle_rows(first, count), logits.middle_rows(first, count));
  });
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
std::uint64_t Llama<W, E, Cache>::fingerprint() const {
  const std::array<std::uint64_t, 4> kind{static_cast<std::uint64_t>(active_isa()),
                                          detail::element_number<KeyElementOf<Layer>>,
                                          detail::element_number<ValueElementOf<Layer>>, spreads_keys};
  return checksum(std::as_bytes(std::span(kind)), layers_.weights().fingerprint());
}

}  // namespace lazyllm::inline v0
