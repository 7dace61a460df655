// The Llama graph of one sequence: shared const weights, its own KV cache, and scratch for one tile of rows.
// hidden [rows, hidden_dim] runs through a layer tile by tile, so scratch does not grow with the prompt.
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
#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/quant/activations.hpp>
#include <lazyllm/quant/any_matrix.hpp>
#include <lazyllm/quant/matmul.hpp>

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
  /// the tile's activations to stay there; a multiple of the kernels' tiles (12 rows of a matmul, 64 of attention with
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

  /// Activations of one tile [tile_rows, ...].
  struct Scratch {
    AlignedBuffer<float> normed, query, key, value, attended, gate;
    Activations input;
    AttentionScratch attention;
  };

  [[nodiscard]] Rows tile(AlignedBuffer<float>& buffer, std::size_t rows, std::size_t cols) const {
    LAZYLLM_EXPECTS(rows * cols <= buffer.size());
    return {buffer.data(), rows, cols};
  }
  /// One of the matrices that a layer's input goes through.
  struct Projection {
    const WeightMatrix<W>& weight;
    std::span<const float> bias;  // empty: none
    Rows out;
  };
  /// All of scratch_.input, in one go over the threads.
  template <std::same_as<Projection>... P>
  void project_heads(const P&... projections) {
    if ((projections.bias.empty() && ...)) {
      matmul(active_isa(), scratch_.input, executor_, Product{projections.weight, projections.out}...);
    } else {
      matmul(active_isa(), scratch_.input, executor_,
             Product{projections.weight, projections.out, detail::StoreWithBias{projections.bias}}...);
    }
  }

  /// Calls body(first, count) for each tile of `rows` rows.
  template <class Body>
  static void for_tiles(std::size_t rows, Body body) {
    for (std::size_t first = 0; first < rows; first += tile_rows) body(first, std::min(tile_rows, rows - first));
  }
  void run_tile(const LayerStep& step, Rows column_sums, std::size_t first, std::size_t count);
  Rows norm_rows(ConstRows hidden, std::span<const float> weight);
  void rotate(std::span<const TokenIndex> positions, Rows heads);
  Rows project_queries(LayerIndex layer, ConstRows hidden, std::span<const TokenIndex> positions);
  void store_keys(LayerIndex layer, std::span<const TokenIndex> positions, Rows key, ConstRows value);
  void attend_and_feed(const LayerStep& step, ConstRows query, std::span<const TokenIndex> positions,
                       AttentionScores scores, Rows hidden);

  std::shared_ptr<const LlamaWeights<W>> weights_;
  E& executor_;
  Cache cache_;
  RopeTable rope_;
  AttentionShape attention_shape_;
  Scratch scratch_;
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
  scratch_.attention.reserve(attention_shape_, std::min(tile_rows, context_size), context_size, tile_rows,
                             executor.concurrency());
  const std::size_t query_dim = config().heads * config().head_dim;
  const std::size_t kv_dim = config().kv_heads * config().head_dim;
  const auto tile_buffer = [](std::size_t cols) { return AlignedBuffer<float>(tile_rows * cols); };
  scratch_.normed = tile_buffer(config().hidden_dim);
  scratch_.query = tile_buffer(query_dim);
  scratch_.key = tile_buffer(kv_dim);
  scratch_.value = tile_buffer(kv_dim);
  scratch_.attended = tile_buffer(query_dim);
  scratch_.gate = tile_buffer(config().ffn_dim);
  scratch_.input.reserve(tile_rows, std::max({config().hidden_dim, query_dim, config().ffn_dim}));
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::run_layer(const LayerStep& step, Rows column_sums) {
  LAZYLLM_EXPECTS(step.rows.size() == step.hidden.rows() && step.outputs <= step.rows.size());
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

  const Rows normed = norm_rows(hidden, w.attention_norm);
  const Projection query{w.query, w.query_bias, tile(scratch_.query, outputs, c.heads * c.head_dim)};
  const Projection key{w.key, w.key_bias, tile(scratch_.key, count, c.kv_heads * c.head_dim)};
  const Projection value{w.value, w.value_bias, tile(scratch_.value, count, c.kv_heads * c.head_dim)};
  scratch_.input.assign(normed);
  if (skip == 0) {
    project_heads(query, key, value);
  } else {
    project_heads(key, value);
  }
  store_keys(step.layer, positions, key.out, value.out);
  if (outputs == 0) return;
  if (skip != 0) {
    scratch_.input.assign(normed.middle_rows(skip, outputs));
    project_heads(query);
  }
  rotate(positions.subspan(skip), query.out);

  // The part of the scores that this tile's rows fill: the score rows are the last rows of the whole step.
  ScoreView scores;
  const std::size_t first_score_row = step.rows.size() - step.scores.query_rows();
  const std::size_t begin = std::max(first + skip, first_score_row);
  if (begin < first + count) scores = step.scores.middle_query_rows(begin - first_score_row, first + count - begin);
  attend_and_feed(step, query.out, positions.subspan(skip), {scores, column_sums}, hidden.middle_rows(skip, outputs));
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::project_kv(const LayerStep& step) {
  const LlamaLayerWeights<W>& w = weights_->layer(step.layer);
  const std::size_t kv_dim = config().kv_heads * config().head_dim;
  for_tiles(step.rows.size(), [&](std::size_t first, std::size_t count) {
    const Projection key{w.key, w.key_bias, tile(scratch_.key, count, kv_dim)};
    const Projection value{w.value, w.value_bias, tile(scratch_.value, count, kv_dim)};
    scratch_.input.assign(norm_rows(step.hidden.middle_rows(first, count), w.attention_norm));
    project_heads(key, value);
    store_keys(step.layer, step.rows.subspan(first, count), key.out, value.out);
  });
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::score(const LayerStep& step) {
  const std::size_t skip = step.rows.size() - step.scores.query_rows();
  for_tiles(step.scores.query_rows(), [&](std::size_t first, std::size_t count) {
    const std::span<const TokenIndex> positions = step.rows.subspan(skip + first, count);
    const Rows query = project_queries(step.layer, step.hidden.middle_rows(skip + first, count), positions);
    attention(attention_shape_, query, positions, step.keys, cache_.layer(step.layer), query,
              step.scores.middle_query_rows(first, count), scratch_.attention, executor_);
  });
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::finish(const LayerStep& step) {
  for_tiles(step.rows.size(), [&](std::size_t first, std::size_t count) {
    const std::span<const TokenIndex> positions = step.rows.subspan(first, count);
    const Rows hidden = step.hidden.middle_rows(first, count);
    attend_and_feed(step, project_queries(step.layer, hidden, positions), positions, {}, hidden);
  });
}

/// The rows' norm, in scratch_.normed.
template <WeightChoice W, Executor E, KeyValueCache Cache>
Rows Llama<W, E, Cache>::norm_rows(ConstRows hidden, std::span<const float> weight) {
  const Rows normed = tile(scratch_.normed, hidden.rows(), config().hidden_dim);
  rms_norm(hidden, weight, config().norm_epsilon, normed, executor_);
  return normed;
}

/// Rotates queries or keys by their positions, and where keys are of 8 bits by a Hadamard matrix.
template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::rotate(std::span<const TokenIndex> positions, Rows heads) {
  rope(rope_, config().rope_pairing, positions, config().head_dim, heads, executor_);
  if constexpr (spreads_keys) hadamard_rotate(config().head_dim, heads, executor_);
}

/// The rows' queries, rotated, in scratch_.query.
template <WeightChoice W, Executor E, KeyValueCache Cache>
Rows Llama<W, E, Cache>::project_queries(LayerIndex layer, ConstRows hidden, std::span<const TokenIndex> positions) {
  const LlamaLayerWeights<W>& w = weights_->layer(layer);
  const Projection query{w.query, w.query_bias,
                         tile(scratch_.query, hidden.rows(), config().heads * config().head_dim)};
  scratch_.input.assign(norm_rows(hidden, w.attention_norm));
  project_heads(query);
  rotate(positions, query.out);
  return query.out;
}

/// Rotates the keys and puts them and the values into the cache.
template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::store_keys(LayerIndex layer, std::span<const TokenIndex> positions, Rows key,
                                    ConstRows value) {
  rotate(positions, key);
  auto& cache = cache_.layer(layer);
  if constexpr (requires { cache.store(positions, ConstRows(key), value, executor_); }) {
    cache.store(positions, ConstRows(key), value, executor_);
  } else {
    for (std::size_t r = 0; r < positions.size(); ++r) cache.store(positions[r], key.row(r), value.row(r));
  }
}

/// Attention of the queries and the FFN, both added to hidden.
template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::attend_and_feed(const LayerStep& step, ConstRows query, std::span<const TokenIndex> positions,
                                         AttentionScores scores, Rows hidden) {
  const LlamaLayerWeights<W>& w = weights_->layer(step.layer);
  const Rows attended = tile(scratch_.attended, query.rows(), query.cols());
  attention(attention_shape_, query, positions, step.keys, cache_.layer(step.layer), attended, scores,
            scratch_.attention, executor_);
  scratch_.input.assign(attended);
  matmul(scratch_.input, w.attention, hidden, executor_, AddTo{});

  scratch_.input.assign(norm_rows(hidden, w.ffn_norm));
  const Rows gate = tile(scratch_.gate, hidden.rows(), config().ffn_dim);
  matmul(scratch_.input, w.gate, gate, executor_);
  matmul(scratch_.input, w.up, gate, executor_, detail::SwiGluWithOutput{});
  scratch_.input.assign(gate);
  matmul(scratch_.input, w.down, hidden, executor_, AddTo{});
}

template <WeightChoice W, Executor E, KeyValueCache Cache>
void Llama<W, E, Cache>::project(ConstRows hidden, Rows logits) {
  for_tiles(hidden.rows(), [&](std::size_t first, std::size_t count) {
    scratch_.input.assign(norm_rows(hidden.middle_rows(first, count), weights_->output_norm()));
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
