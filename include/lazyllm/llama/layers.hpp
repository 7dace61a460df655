// What rows go through in the layers of a Llama: norm, projections, rotation, attention, feed-forward.
// Const: the weights and what follows from them. Threads, scratch and K and V are the caller's.
// Source: Llama 2, arXiv 2307.09288 (RMSNorm, grouped-query attention, RoPE, SwiGLU).
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/llama/config.hpp>
#include <lazyllm/llama/weights.hpp>
#include <lazyllm/nn/attention.hpp>
#include <lazyllm/nn/hadamard.hpp>
#include <lazyllm/nn/rms_norm.hpp>
#include <lazyllm/nn/rope.hpp>
#include <lazyllm/nn/swiglu.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/quant/activations.hpp>
#include <lazyllm/quant/matmul.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>

namespace lazyllm::inline v0::detail {

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

/// Activations of some rows [rows, ...].
struct LlamaScratch {
  AlignedBuffer<float> normed, query, key, value, attended, gate;
  Activations input;
  AttentionScratch attention;
};

/// The threads that do something, and the scratch that they do it in.
template <class X>  // an Executor; clang 14 crashes where a lambda names a template with constraints
struct Crew {
  X& executor;
  LlamaScratch& scratch;
};

/// Every result that is not an argument lies in the crew's scratch, until its next use.
template <WeightChoice W>
class LlamaLayers {
 public:
  /// For positions below context_size. spreads_keys: queries and keys are rotated by a Hadamard matrix, too. Throws
  /// Error when the context size is 0 or beyond the model's context length.
  LlamaLayers(std::shared_ptr<const LlamaWeights<W>> weights, std::size_t context_size, bool spreads_keys)
      : weights_(std::move(weights)),
        rope_(config().rope_dim, config().rope_base, weights_->rope_factors()),
        attention_shape_{.heads = config().heads,
                         .kv_heads = config().kv_heads,
                         .head_dim = config().head_dim,
                         .scale = 1.0f / std::sqrt(static_cast<float>(config().head_dim))},
        spreads_keys_(spreads_keys) {
    if (context_size == 0 || context_size > config().context_length) {
      throw Error(ErrorCode::limit, "a context of " + std::to_string(context_size) +
                                        " tokens is outside the model's 1 to " +
                                        std::to_string(config().context_length));
    }
    rope_.reserve(context_size);
  }

  [[nodiscard]] const LlamaWeights<W>& weights() const { return *weights_; }
  [[nodiscard]] const LlamaConfig& config() const { return weights_->config(); }
  [[nodiscard]] const AttentionShape& attention_shape() const { return attention_shape_; }

  /// Makes room for `rows` rows, keys of the whole context and that many threads.
  void prepare(LlamaScratch& scratch, std::size_t rows, std::size_t context_size, std::size_t concurrency) const {
    scratch.attention.reserve(attention_shape_, std::min(rows, context_size), context_size, rows, concurrency);
    const auto buffer = [&](std::size_t cols) { return AlignedBuffer<float>(rows * cols); };
    scratch.normed = buffer(config().hidden_dim);
    scratch.query = buffer(query_dim());
    scratch.key = buffer(kv_dim());
    scratch.value = buffer(kv_dim());
    scratch.attended = buffer(query_dim());
    scratch.gate = buffer(config().ffn_dim);
    scratch.input.reserve(rows, std::max({config().hidden_dim, query_dim(), config().ffn_dim}));
  }

  struct Heads {
    Rows query, key, value;
  };
  /// Keys and values [rows, kv_heads * head_dim] of all rows, and queries [outputs, heads * head_dim] of the last ones;
  /// queries and keys rotated.
  template <Executor X>
  Heads project(Crew<X> crew, LayerIndex layer, ConstRows hidden, std::span<const TokenIndex> positions,
                std::size_t outputs) const {
    const LlamaLayerWeights<W>& w = weights_->layer(layer);
    LlamaScratch& scratch = crew.scratch;
    const std::size_t rows = hidden.rows(), skip = rows - outputs;
    const Projection query{w.query, w.query_bias, part(scratch.query, outputs, query_dim())};
    const Projection key{w.key, w.key_bias, part(scratch.key, rows, kv_dim())};
    const Projection value{w.value, w.value_bias, part(scratch.value, rows, kv_dim())};
    const Rows normed = norm(crew, hidden, w.attention_norm);
    scratch.input.assign(normed);
    if (skip == 0) {
      multiply(crew, query, key, value);
    } else {
      multiply(crew, key, value);
      if (outputs != 0) {
        scratch.input.assign(normed.middle_rows(skip, outputs));
        multiply(crew, query);
      }
    }
    rotate(crew.executor, positions, key.out);
    rotate(crew.executor, positions.last(outputs), query.out);
    return {query.out, key.out, value.out};
  }
  /// Queries alone.
  template <Executor X>
  Rows project_queries(Crew<X> crew, LayerIndex layer, ConstRows hidden, std::span<const TokenIndex> positions) const {
    const LlamaLayerWeights<W>& w = weights_->layer(layer);
    const Projection query{w.query, w.query_bias, part(crew.scratch.query, hidden.rows(), query_dim())};
    crew.scratch.input.assign(norm(crew, hidden, w.attention_norm));
    multiply(crew, query);
    rotate(crew.executor, positions, query.out);
    return query.out;
  }

  /// Attention of the queries over `keys`, and the feed-forward block: both added to hidden.
  template <Executor X, KeyValueReader KV>
  void attend_and_feed(Crew<X> crew, LayerIndex layer, ConstRows query, std::span<const TokenIndex> positions,
                       std::span<const TokenIndex> keys, const KV& kv, AttentionScores scores, Rows hidden) const {
    const LlamaLayerWeights<W>& w = weights_->layer(layer);
    auto& [executor, scratch] = crew;
    const Rows attended = part(scratch.attended, query.rows(), query.cols());
    attention(attention_shape_, query, positions, keys, kv, attended, scores, scratch.attention, executor);
    scratch.input.assign(attended);
    matmul(scratch.input, w.attention, hidden, executor, AddTo{});

    scratch.input.assign(norm(crew, hidden, w.ffn_norm));
    const Rows gate = part(scratch.gate, hidden.rows(), config().ffn_dim);
    matmul(scratch.input, w.gate, gate, executor);
    matmul(scratch.input, w.up, gate, executor, SwiGluWithOutput{});
    scratch.input.assign(gate);
    matmul(scratch.input, w.down, hidden, executor, AddTo{});
  }

  /// logits [rows, vocab_size] of the last layer's outputs.
  template <Executor X>
  void project_logits(Crew<X> crew, ConstRows hidden, Rows logits) const {
    crew.scratch.input.assign(norm(crew, hidden, weights_->output_norm()));
    matmul(crew.scratch.input, weights_->head(), logits, crew.executor);
  }

 private:
  /// One of the matrices that a layer's input goes through.
  struct Projection {
    const WeightMatrix<W>& weight;
    std::span<const float> bias;  // empty: none
    Rows out;
  };

  [[nodiscard]] std::size_t query_dim() const { return config().heads * config().head_dim; }
  [[nodiscard]] std::size_t kv_dim() const { return config().kv_heads * config().head_dim; }

  [[nodiscard]] static Rows part(AlignedBuffer<float>& buffer, std::size_t rows, std::size_t cols) {
    LAZYLLM_EXPECTS(rows * cols <= buffer.size());
    return {buffer.data(), rows, cols};
  }

  template <Executor X>
  Rows norm(Crew<X> crew, ConstRows hidden, std::span<const float> weight) const {
    const Rows normed = part(crew.scratch.normed, hidden.rows(), config().hidden_dim);
    rms_norm(hidden, weight, config().norm_epsilon, normed, crew.executor);
    return normed;
  }
  /// The crew's input times matrices, in one go over its threads.
  template <Executor X, std::same_as<Projection>... P>
  void multiply(Crew<X> crew, const P&... projections) const {
    if ((projections.bias.empty() && ...)) {
      matmul(active_isa(), crew.scratch.input, crew.executor, Product{projections.weight, projections.out}...);
    } else {
      matmul(active_isa(), crew.scratch.input, crew.executor,
             Product{projections.weight, projections.out, StoreWithBias{projections.bias}}...);
    }
  }
  template <Executor X>
  void rotate(X& executor, std::span<const TokenIndex> positions, Rows heads) const {
    rope(rope_, config().rope_pairing, positions, config().head_dim, heads, executor);
    if (spreads_keys_) hadamard_rotate(config().head_dim, heads, executor);
  }

  std::shared_ptr<const LlamaWeights<W>> weights_;
  RopeTable rope_;
  AttentionShape attention_shape_;
  bool spreads_keys_;
};

}  // namespace lazyllm::inline v0::detail
