// The Llama graph of one sequence: shared const weights, its own KV cache, and scratch for one tile of rows.
// hidden [rows, hidden_dim] runs through a layer tile by tile, so scratch does not grow with the prompt.
// Source: Llama 2, arXiv 2307.09288 (RMSNorm, grouped-query attention, RoPE, SwiGLU).
#pragma once

#include <lazyllm/cache/kv_cache.hpp>
#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/llama/config.hpp>
#include <lazyllm/llama/weights.hpp>
#include <lazyllm/nn/attention.hpp>
#include <lazyllm/nn/rms_norm.hpp>
#include <lazyllm/nn/rope.hpp>
#include <lazyllm/nn/swiglu.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/quant/activations.hpp>
#include <lazyllm/quant/any_matrix.hpp>
#include <lazyllm/quant/matmul.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <memory>
#include <span>
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

}  // namespace detail

/// A LanguageGraph over shared weights. Not thread-safe: one graph, one executor and one thread per sequence; any
/// number of graphs share the weights. Nothing allocates after construction.
template <WeightChoice W = AsStored, Executor E = ThreadPool, CacheLayout Layout = TokenMajor,
          KeyValueElement Element = BFloat16>
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

  void embed(std::span<const TokenId> ids, Rows hidden) const {
    for (std::size_t r = 0; r < ids.size(); ++r) {
      weights_->embedding().dequantize_row(static_cast<std::size_t>(ids[r]), hidden.row(r));
    }
  }
  void run_layer(const LayerStep& step);
  void project(ConstRows hidden, Rows logits);

 private:
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
  /// key and value [count, ...] of the rows `normed`, and query [outputs, ...] of the last ones, in one go over the
  /// threads where those are all.
  template <MatmulEpilogue P>
  void project_heads(const LlamaLayerWeights<W>& w, ConstRows normed, const std::array<P, 3>& epilogues, Rows query,
                     Rows key, Rows value) {
    const Product query_product{w.query, query, epilogues[0]};
    const Product key_product{w.key, key, epilogues[1]}, value_product{w.value, value, epilogues[2]};
    scratch_.input.assign(normed);
    if (query.rows() == normed.rows()) {
      matmul(active_isa(), scratch_.input, executor_, query_product, key_product, value_product);
      return;
    }
    matmul(active_isa(), scratch_.input, executor_, key_product, value_product);
    scratch_.input.assign(normed.middle_rows(normed.rows() - query.rows(), query.rows()));
    matmul(active_isa(), scratch_.input, executor_, query_product);
  }
  void run_tile(const LayerStep& step, std::size_t first, std::size_t count);

  std::shared_ptr<const LlamaWeights<W>> weights_;
  E& executor_;
  KvCache<Layout, Element> cache_;
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

template <WeightChoice W, Executor E, CacheLayout Layout, KeyValueElement Element>
Llama<W, E, Layout, Element>::Llama(std::shared_ptr<const LlamaWeights<W>> weights, E& executor,
                                    std::size_t context_size)
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

template <WeightChoice W, Executor E, CacheLayout Layout, KeyValueElement Element>
void Llama<W, E, Layout, Element>::run_layer(const LayerStep& step) {
  LAZYLLM_EXPECTS(step.rows.size() == step.hidden.rows() && step.outputs <= step.rows.size());
  // Rows are ascending and attention is causal: a tile needs no K or V of the tiles after it.
  for (std::size_t first = 0; first < step.rows.size(); first += tile_rows) {
    run_tile(step, first, std::min(tile_rows, step.rows.size() - first));
  }
}

template <WeightChoice W, Executor E, CacheLayout Layout, KeyValueElement Element>
void Llama<W, E, Layout, Element>::run_tile(const LayerStep& step, std::size_t first, std::size_t count) {
  const LlamaConfig& c = config();
  const LlamaLayerWeights<W>& w = weights_->layer(step.layer);
  LayerCache<Layout, Element>& cache = cache_.layer(step.layer);
  const std::size_t query_dim = c.heads * c.head_dim;
  const std::size_t kv_dim = c.kv_heads * c.head_dim;
  const std::span<const TokenIndex> positions = step.rows.subspan(first, count);
  const Rows hidden = step.hidden.middle_rows(first, count);

  // Queries, attention and what follows only for the rows whose output is used.
  const std::size_t unused = step.rows.size() - step.outputs;
  const std::size_t skip = unused > first ? std::min(count, unused - first) : 0;
  const std::size_t outputs = count - skip;

  const Rows normed = tile(scratch_.normed, count, c.hidden_dim);
  rms_norm(hidden, w.attention_norm, c.norm_epsilon, normed, executor_);
  const Rows query = tile(scratch_.query, outputs, query_dim);
  const Rows key = tile(scratch_.key, count, kv_dim);
  const Rows value = tile(scratch_.value, count, kv_dim);
  if (w.query_bias.empty() && w.key_bias.empty() && w.value_bias.empty()) {
    project_heads(w, normed, std::array<Store, 3>{}, query, key, value);
  } else {
    using Bias = detail::StoreWithBias;
    project_heads(w, normed, std::array{Bias{w.query_bias}, Bias{w.key_bias}, Bias{w.value_bias}}, query, key, value);
  }
  rope(rope_, c.rope_pairing, positions, c.head_dim, key, executor_);
  for (std::size_t r = 0; r < count; ++r) cache.store(positions[r], key.row(r), value.row(r));
  if (outputs == 0) return;
  const std::span<const TokenIndex> output_positions = positions.subspan(skip);
  const Rows residual = hidden.middle_rows(skip, outputs);
  rope(rope_, c.rope_pairing, output_positions, c.head_dim, query, executor_);

  // The part of the scores that this tile's rows fill: the score rows are the last rows of the whole step.
  ScoreView scores;
  if (!step.scores.empty()) {
    const std::size_t first_score_row = step.rows.size() - step.scores.query_rows();
    const std::size_t begin = std::max(first + skip, first_score_row);
    if (begin < first + count) {
      scores = ScoreView(step.scores.row(begin - first_score_row, 0).data(), first + count - begin, step.scores.heads(),
                         step.scores.keys());
    }
  }
  const Rows attended = tile(scratch_.attended, outputs, query_dim);
  attention(attention_shape_, query, output_positions, step.keys, cache, attended, scores, scratch_.attention,
            executor_);
  scratch_.input.assign(attended);
  matmul(scratch_.input, w.attention, residual, executor_, AddTo{});

  const Rows ffn_normed = tile(scratch_.normed, outputs, c.hidden_dim);
  rms_norm(residual, w.ffn_norm, c.norm_epsilon, ffn_normed, executor_);
  scratch_.input.assign(ffn_normed);
  const Rows gate = tile(scratch_.gate, outputs, c.ffn_dim);
  matmul(scratch_.input, w.gate, gate, executor_);
  matmul(scratch_.input, w.up, gate, executor_, detail::SwiGluWithOutput{});
  scratch_.input.assign(gate);
  matmul(scratch_.input, w.down, residual, executor_, AddTo{});
}

template <WeightChoice W, Executor E, CacheLayout Layout, KeyValueElement Element>
void Llama<W, E, Layout, Element>::project(ConstRows hidden, Rows logits) {
  for (std::size_t first = 0; first < hidden.rows(); first += tile_rows) {
    const std::size_t count = std::min(tile_rows, hidden.rows() - first);
    const Rows normed = tile(scratch_.normed, count, config().hidden_dim);
    rms_norm(hidden.middle_rows(first, count), weights_->output_norm(), config().norm_epsilon, normed, executor_);
    scratch_.input.assign(normed);
    matmul(scratch_.input, weights_->head(), logits.middle_rows(first, count), executor_);
  }
}

}  // namespace lazyllm::inline v0
