// The Llama graph of one sequence: shared const weights, its own KV cache, and scratch that does not grow with the
// prompt: hidden [rows, hidden_dim] runs through a layer tile by tile, all threads on each, or, once K and V are there,
// block by block, a thread on each.
// Source: Llama 2, arXiv 2307.09288 (RMSNorm, grouped-query attention, RoPE, SwiGLU).
#pragma once

#include <lazyllm/cache/kv_cache.hpp>
#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/checksum.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/row_element.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/llama/config.hpp>
#include <lazyllm/llama/weights.hpp>
#include <lazyllm/nn/attention.hpp>
#include <lazyllm/nn/hadamard.hpp>
#include <lazyllm/nn/rms_norm.hpp>
#include <lazyllm/nn/rope.hpp>
#include <lazyllm/nn/swiglu.hpp>
#include <lazyllm/nn/value_norms.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/parallel/lease_pool.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/quant/activations.hpp>
#include <lazyllm/quant/any_matrix.hpp>
#include <lazyllm/quant/matmul.hpp>
#include <lazyllm/simd/quantized_rows.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

namespace lazyllm::inline v0 {

namespace detail {

/// A matmul's epilogue: adds one number per output, or nothing.
struct StoreWithBias {
  std::span<const float> bias;
  void operator()(std::size_t row, std::size_t column, ConstRows sums, Rows out) const {
    if (bias.empty()) return Store{}(row, column, sums, out);
    for (std::size_t r = 0; r < sums.rows(); ++r) {
      for (std::size_t c = 0; c < sums.cols(); ++c) out.row(r)[c] = sums.row(r)[c] + bias[column + c];
    }
  }
};

/// The epilogue of `up` where the output holds `gate`: out = silu(gate) * up.
struct SwiGluWithOutput {
  void operator()(std::size_t, std::size_t, ConstRows sums, Rows out) const {
    SerialExecutor here;
    swiglu(out, sums, out, here);
  }
};
static_assert(MatmulEpilogue<StoreWithBias> && MatmulEpilogue<SwiGluWithOutput>);

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
  [[nodiscard]] const LlamaConfig& config() const { return weights_->config(); }
  /// Bytes of K and V in use.
  [[nodiscard]] std::size_t kv_bytes() const { return cache_.size_bytes(); }
  /// Bytes of the pages that hold them; with a layout that is not paged the address space of the whole context.
  [[nodiscard]] std::size_t kv_reserved_bytes() const { return cache_.reserved_bytes(); }

  void embed(std::span<const TokenId> ids, Rows hidden) const {
    for (std::size_t r = 0; r < ids.size(); ++r) {
      weights_->embedding().dequantize_row(static_cast<std::size_t>(ids[r]), hidden.row(r));
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

  /// Activations of some rows [rows, ...].
  struct Scratch {
    AlignedBuffer<float> normed, query, key, value, attended, gate;
    Activations input;
    AttentionScratch attention;
  };
  /// The threads that do something, and the scratch that they do it in.
  template <class X>  // an Executor; clang 14 crashes where a lambda names a template with constraints
  struct Crew {
    X& executor;
    Scratch& scratch;
  };
  [[nodiscard]] Crew<E> everyone() { return {executor_, scratch_}; }
  void prepare(Scratch& scratch, std::size_t rows, std::size_t context_size, std::size_t concurrency) const;

  [[nodiscard]] static Rows part(AlignedBuffer<float>& buffer, std::size_t rows, std::size_t cols) {
    LAZYLLM_EXPECTS(rows * cols <= buffer.size());
    return {buffer.data(), rows, cols};
  }
  /// One of the matrices that a layer's input goes through.
  struct Projection {
    const WeightMatrix<W>& weight;
    std::span<const float> bias;  // empty: none
    Rows out;
  };
  /// All of the crew's input, in one go over its threads.
  template <Executor X, std::same_as<Projection>... P>
  void project_heads(Crew<X> crew, const P&... projections) const {
    if ((projections.bias.empty() && ...)) {
      matmul(active_isa(), crew.scratch.input, crew.executor, Product{projections.weight, projections.out}...);
    } else {
      matmul(active_isa(), crew.scratch.input, crew.executor,
             Product{projections.weight, projections.out, detail::StoreWithBias{projections.bias}}...);
    }
  }

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
  /// Rows that one thread takes through the rest of a layer, from the queries on: their activations stay in its caches,
  /// and threads meet once for all of it. Enough to share loads of weights, keys and values; and enough blocks for
  /// threads to end together.
  static constexpr std::size_t least_block_rows = 24, most_block_rows = 96, blocks_a_thread = 8;
  /// Whether that many rows go block by block. Not with AMX: its kernels unpack weights once for all rows of a call.
  [[nodiscard]] bool in_blocks(std::size_t rows) const {
    return rows >= blocks_a_thread * executor_.concurrency() * least_block_rows && active_isa() != Isa::amx;
  }
  void finish_blocks(const LayerStep& step);
  template <Executor X>
  void finish_rows(Crew<X> crew, const LayerStep& step, std::size_t first, std::size_t count) const;
  template <Executor X>
  Rows norm_rows(Crew<X> crew, ConstRows hidden, std::span<const float> weight) const;
  template <Executor X>
  void rotate(X& executor, std::span<const TokenIndex> positions, Rows heads) const;
  template <Executor X>
  Rows project_queries(Crew<X> crew, LayerIndex layer, ConstRows hidden, std::span<const TokenIndex> positions) const;
  void store_keys(LayerIndex layer, std::span<const TokenIndex> positions, Rows key, ConstRows value);
  template <Executor X>
  void attend_and_feed(Crew<X> crew, const LayerStep& step, ConstRows query, std::span<const TokenIndex> positions,
                       AttentionScores scores, Rows hidden) const;

  std::shared_ptr<const LlamaWeights<W>> weights_;
  E& executor_;
  Cache cache_;
  RopeTable rope_;
  AttentionShape attention_shape_;
  Scratch scratch_;                             // of a tile
  detail::LeasePool<Scratch> block_scratches_;  // of a block, one a thread
};

template <WeightChoice W, Executor E>
Llama(std::shared_ptr<const LlamaWeights<W>>, E&, std::size_t) -> Llama<W, E>;

namespace detail {

inline std::size_t checked_context(const LlamaConfig& config, std::size_t context_size) {
  if (context_size == 0 || context_size > config.context_length) {
    throw Error(ErrorCode::limit, "a context of " + std::to_string(context_size) +
                                      " tokens is outside the model's 1 to " + std::to_string(config.context_length));
  }
  return context_size;
}

}  // namespace detail

template <WeightChoice W, Executor E, KeyValueCache Cache>
Llama<W, E, Cache>::Llama(std::shared_ptr<const LlamaWeights<W>> weights, E& executor, std::size_t context_size)
    : weights_(std::move(weights)),
      executor_(executor),
      cache_(config().layers, CacheShape{.kv_heads = config().kv_heads,
                                         .head_dim = config().head_dim,
                                         .slots = detail::checked_context(config(), context_size)}),
      rope_(config().rope_dim, config().rope_base, weights_->rope_factors()),
      attention_shape_{.heads = config().heads,
                       .kv_heads = config().kv_heads,
                       .head_dim = config().head_dim,
                       .scale = 1.0f / std::sqrt(static_cast<float>(config().head_dim))} {
  rope_.reserve(context_size);
  prepare(scratch_, tile_rows, context_size, executor.concurrency());
  block_scratches_.grow(executor.concurrency(),
                        [&](Scratch& scratch) { prepare(scratch, most_block_rows, context_size, 1); });
}

/// Room for `rows` rows.
template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::prepare(Scratch& scratch, std::size_t rows, std::size_t context_size,
                                 std::size_t concurrency) const {
  scratch.attention.reserve(attention_shape_, std::min(rows, context_size), context_size, rows, concurrency);
  const std::size_t query_dim = config().heads * config().head_dim;
  const std::size_t kv_dim = config().kv_heads * config().head_dim;
  const auto buffer = [&](std::size_t cols) { return AlignedBuffer<float>(rows * cols); };
  scratch.normed = buffer(config().hidden_dim);
  scratch.query = buffer(query_dim);
  scratch.key = buffer(kv_dim);
  scratch.value = buffer(kv_dim);
  scratch.attended = buffer(query_dim);
  scratch.gate = buffer(config().ffn_dim);
  scratch.input.reserve(rows, std::max({config().hidden_dim, query_dim, config().ffn_dim}));
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::run_layer(const LayerStep& step, Rows column_sums) {
  LAZYLLM_EXPECTS(step.rows.size() == step.hidden.rows() && step.outputs <= step.rows.size());
  if (column_sums.empty() && in_blocks(step.outputs)) {
    project_kv(step);
    LayerStep rest = step;
    rest.rows = step.rows.last(step.outputs);
    rest.hidden = step.hidden.middle_rows(step.rows.size() - step.outputs, step.outputs);
    return finish_blocks(rest);
  }
  // Rows are ascending and attention is causal: a tile needs no K or V of the tiles after it.
  for_tiles(step.rows.size(), [&](std::size_t first, std::size_t count) { run_tile(step, column_sums, first, count); });
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::run_tile(const LayerStep& step, Rows column_sums, std::size_t first, std::size_t count) {
  const LlamaConfig& c = config();
  const LlamaLayerWeights<W>& w = weights_->layer(step.layer);
  const std::span<const TokenIndex> positions = step.rows.subspan(first, count);
  const Rows hidden = step.hidden.middle_rows(first, count);

  // Queries, attention and what follows only for the rows whose output is used.
  const std::size_t unused = step.rows.size() - step.outputs;
  const std::size_t skip = unused > first ? std::min(count, unused - first) : 0;
  const std::size_t outputs = count - skip;

  const Rows normed = norm_rows(everyone(), hidden, w.attention_norm);
  const Projection query{w.query, w.query_bias, part(scratch_.query, outputs, c.heads * c.head_dim)};
  const Projection key{w.key, w.key_bias, part(scratch_.key, count, c.kv_heads * c.head_dim)};
  const Projection value{w.value, w.value_bias, part(scratch_.value, count, c.kv_heads * c.head_dim)};
  scratch_.input.assign(normed);
  if (skip == 0) {
    project_heads(everyone(), query, key, value);
  } else {
    project_heads(everyone(), key, value);
  }
  store_keys(step.layer, positions, key.out, value.out);
  if (outputs == 0) return;
  if (skip != 0) {
    scratch_.input.assign(normed.middle_rows(skip, outputs));
    project_heads(everyone(), query);
  }
  rotate(executor_, positions.subspan(skip), query.out);

  attend_and_feed(everyone(), step, query.out, positions.subspan(skip),
                  {scores_of(step, first + skip, outputs), column_sums}, hidden.middle_rows(skip, outputs));
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::project_kv(const LayerStep& step) {
  const LlamaLayerWeights<W>& w = weights_->layer(step.layer);
  const std::size_t kv_dim = config().kv_heads * config().head_dim;
  for_tiles(step.rows.size(), [&](std::size_t first, std::size_t count) {
    const Projection key{w.key, w.key_bias, part(scratch_.key, count, kv_dim)};
    const Projection value{w.value, w.value_bias, part(scratch_.value, count, kv_dim)};
    scratch_.input.assign(norm_rows(everyone(), step.hidden.middle_rows(first, count), w.attention_norm));
    project_heads(everyone(), key, value);
    store_keys(step.layer, step.rows.subspan(first, count), key.out, value.out);
  });
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::score(const LayerStep& step) {
  const std::size_t skip = step.rows.size() - step.scores.query_rows();
  for_tiles(step.scores.query_rows(), [&](std::size_t first, std::size_t count) {
    const std::span<const TokenIndex> positions = step.rows.subspan(skip + first, count);
    const Rows query = project_queries(everyone(), step.layer, step.hidden.middle_rows(skip + first, count), positions);
    attention(attention_shape_, query, positions, step.keys, cache_.layer(step.layer), query,
              step.scores.middle_query_rows(first, count), scratch_.attention, executor_);
  });
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::finish(const LayerStep& step) {
  LayerStep rest = step;
  rest.scores = {};  // score() gave them
  if (in_blocks(rest.rows.size())) return finish_blocks(rest);
  for_tiles(rest.rows.size(),
            [&](std::size_t first, std::size_t count) { finish_rows(everyone(), rest, first, count); });
}

/// The rest of a layer, from the queries on, for `count` rows of `step` from `first` on, whose K and V are there.
template <WeightChoice W, Executor E, KeyValueCache Cache>
template <Executor X>
void Llama<W, E, Cache>::finish_rows(Crew<X> crew, const LayerStep& step, std::size_t first, std::size_t count) const {
  const std::span<const TokenIndex> positions = step.rows.subspan(first, count);
  const Rows hidden = step.hidden.middle_rows(first, count);
  const Rows query = project_queries(crew, step.layer, hidden, positions);
  attend_and_feed(crew, step, query, positions, scores_of(step, first, count), hidden);
}

/// The same for all rows of `step`: a thread takes a block through all of it.
template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::finish_blocks(const LayerStep& step) {
  constexpr std::size_t matmul_rows = QuantizedRows::group_rows;
  const std::size_t rows = step.rows.size();
  const std::size_t even = rows / (blocks_a_thread * executor_.concurrency()) / matmul_rows * matmul_rows;
  const std::size_t block_rows = std::clamp(even, least_block_rows, most_block_rows);
  const std::size_t blocks = (rows + block_rows - 1) / block_rows;
  executor_.parallel_for(blocks, [&](std::size_t begin, std::size_t end) {
    const typename detail::LeasePool<Scratch>::Lease scratch(block_scratches_);
    SerialExecutor alone;
    const Crew<SerialExecutor> crew{alone, *scratch};
    for (std::size_t i = begin; i < end; ++i) {
      const std::size_t first = (blocks - 1 - i) * block_rows;  // late blocks, which see most keys, come first
      finish_rows(crew, step, first, std::min(block_rows, rows - first));
    }
  });
}

/// The rows' norm, in the crew's scratch.
template <WeightChoice W, Executor E, KeyValueCache Cache>
template <Executor X>
Rows Llama<W, E, Cache>::norm_rows(Crew<X> crew, ConstRows hidden, std::span<const float> weight) const {
  const Rows normed = part(crew.scratch.normed, hidden.rows(), config().hidden_dim);
  rms_norm(hidden, weight, config().norm_epsilon, normed, crew.executor);
  return normed;
}

/// Rotates queries or keys by their positions, and where keys are of 8 bits by a Hadamard matrix.
template <WeightChoice W, Executor E, KeyValueCache Cache>
template <Executor X>
void Llama<W, E, Cache>::rotate(X& executor, std::span<const TokenIndex> positions, Rows heads) const {
  rope(rope_, config().rope_pairing, positions, config().head_dim, heads, executor);
  if constexpr (spreads_keys) hadamard_rotate(config().head_dim, heads, executor);
}

/// The rows' queries, rotated, in the crew's scratch.
template <WeightChoice W, Executor E, KeyValueCache Cache>
template <Executor X>
Rows Llama<W, E, Cache>::project_queries(Crew<X> crew, LayerIndex layer, ConstRows hidden,
                                         std::span<const TokenIndex> positions) const {
  const LlamaLayerWeights<W>& w = weights_->layer(layer);
  const Projection query{w.query, w.query_bias,
                         part(crew.scratch.query, hidden.rows(), config().heads * config().head_dim)};
  crew.scratch.input.assign(norm_rows(crew, hidden, w.attention_norm));
  project_heads(crew, query);
  rotate(crew.executor, positions, query.out);
  return query.out;
}

/// Rotates the keys and puts them and the values into the cache.
template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::store_keys(LayerIndex layer, std::span<const TokenIndex> positions, Rows key,
                                    ConstRows value) {
  rotate(executor_, positions, key);
  auto& cache = cache_.layer(layer);
  if constexpr (requires { cache.store(positions, ConstRows(key), value, executor_); }) {
    cache.store(positions, ConstRows(key), value, executor_);
  } else {
    for (std::size_t r = 0; r < positions.size(); ++r) cache.store(positions[r], key.row(r), value.row(r));
  }
}

/// Attention of the queries and the FFN, both added to hidden.
template <WeightChoice W, Executor E, KeyValueCache Cache>
template <Executor X>
void Llama<W, E, Cache>::attend_and_feed(Crew<X> crew, const LayerStep& step, ConstRows query,
                                         std::span<const TokenIndex> positions, AttentionScores scores,
                                         Rows hidden) const {
  const LlamaLayerWeights<W>& w = weights_->layer(step.layer);
  auto& [executor, scratch] = crew;
  const Rows attended = part(scratch.attended, query.rows(), query.cols());
  attention(attention_shape_, query, positions, step.keys, cache_.layer(step.layer), attended, scores,
            scratch.attention, executor);
  scratch.input.assign(attended);
  matmul(scratch.input, w.attention, hidden, executor, AddTo{});

  scratch.input.assign(norm_rows(crew, hidden, w.ffn_norm));
  const Rows gate = part(scratch.gate, hidden.rows(), config().ffn_dim);
  matmul(scratch.input, w.gate, gate, executor);
  matmul(scratch.input, w.up, gate, executor, detail::SwiGluWithOutput{});
  scratch.input.assign(gate);
  matmul(scratch.input, w.down, hidden, executor, AddTo{});
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::project(ConstRows hidden, Rows logits) {
  for_tiles(hidden.rows(), [&](std::size_t first, std::size_t count) {
    scratch_.input.assign(norm_rows(everyone(), hidden.middle_rows(first, count), weights_->output_norm()));
    matmul(scratch_.input, weights_->head(), logits.middle_rows(first, count), executor_);
  });
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
std::uint64_t Llama<W, E, Cache>::fingerprint() const {
  const std::array<std::uint64_t, 4> kind{static_cast<std::uint64_t>(active_isa()),
                                          detail::element_number<KeyElementOf<Layer>>,
                                          detail::element_number<ValueElementOf<Layer>>, spreads_keys};
  return checksum(std::as_bytes(std::span(kind)), weights_->fingerprint());
}

}  // namespace lazyllm::inline v0
