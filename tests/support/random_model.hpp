// Tiny random Llama models: the same float weights for the naive reference and, as GGUF bytes, for the library.
// Sizes: layers 1 to 6, hidden 16 to 64, grouped heads, vocabulary 32 to 100; tied or own head; with or without
// rope_freqs. Reproducible: the numbers depend on the seed only, not on the standard library's distributions.
#pragma once

#include <lazyllm/io/gguf.hpp>
#include <lazyllm/io/gguf_write.hpp>

#include "support/naive_llama.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace lazyllm::test {

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  /// An integer in [low, high].
  std::size_t integer(std::size_t low, std::size_t high) {
    return low + static_cast<std::size_t>(engine_() % (high - low + 1));
  }
  /// In [-1, 1).
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-52 - 1; }
  bool chance(double probability) { return (uniform() + 1) / 2 < probability; }
  template <class T>
  T pick(std::initializer_list<T> values) {
    return values.begin()[integer(0, values.size() - 1)];
  }

 private:
  std::mt19937_64 engine_;
};

/// A matrix [rows, cols] whose product with a vector of root mean square 1 has a root mean square of about `gain`.
inline Weights random_matrix(Random& random, std::size_t rows, std::size_t cols, double gain) {
  const double largest = gain * std::sqrt(3.0 / static_cast<double>(cols));
  Weights weights(rows * cols);
  for (float& w : weights) w = static_cast<float>(random.uniform() * largest);
  return weights;
}

inline Weights random_around_one(Random& random, std::size_t count) {
  Weights weights(count);
  for (float& w : weights) w = static_cast<float>(1 + 0.3 * random.uniform());
  return weights;
}

/// Attention is neither flat nor one-hot (scores of a spread of about 2 before the softmax). One layer in ten has zero
/// queries: all its scores are exactly equal, so that the tie rule decides alone.
inline NaiveLlama random_llama(Random& random) {
  NaiveLlama model;
  model.head_dim = random.pick<std::size_t>({8, 16, 24});
  model.rope_dim = random.chance(0.8) ? model.head_dim : model.head_dim - 4;
  model.heads = random.integer(1, 64 / model.head_dim);
  do {
    model.kv_heads = random.integer(1, model.heads);
  } while (model.heads % model.kv_heads != 0);
  model.hidden_dim = random.integer(16, 64);
  model.ffn_dim = random.integer(16, 96);
  model.vocab_size = random.integer(32, 100);
  model.rms_epsilon = random.pick({1e-5, 1e-6});
  model.rope_base = random.pick({100.0, 10000.0, 100000.0});
  model.embedding = random_matrix(random, model.vocab_size, model.hidden_dim, 1);
  for (float& w : model.embedding) w *= std::sqrt(static_cast<float>(model.hidden_dim));
  if (random.chance(0.3)) model.rope_factors = random_around_one(random, model.rope_dim / 2);
  model.output_norm = random_around_one(random, model.hidden_dim);
  if (random.chance(0.5)) model.head = random_matrix(random, model.vocab_size, model.hidden_dim, 1);
  const bool qwen2 = random.chance(0.3);
  if (qwen2) model.pairing = NaivePairing::halves;
  model.layers.resize(random.integer(1, 6));
  const std::size_t query_dim = model.heads * model.head_dim;
  const std::size_t kv_dim = model.kv_heads * model.head_dim;
  for (NaiveLayer& layer : model.layers) {
    layer.attention_norm = random_around_one(random, model.hidden_dim);
    layer.q = random_matrix(random, query_dim, model.hidden_dim, random.chance(0.1) ? 0 : 1.4);
    layer.k = random_matrix(random, kv_dim, model.hidden_dim, 1.4);
    layer.v = random_matrix(random, kv_dim, model.hidden_dim, 1);
    layer.o = random_matrix(random, model.hidden_dim, query_dim, 0.8);
    layer.ffn_norm = random_around_one(random, model.hidden_dim);
    layer.gate = random_matrix(random, model.ffn_dim, model.hidden_dim, 1);
    layer.up = random_matrix(random, model.ffn_dim, model.hidden_dim, 1);
    layer.down = random_matrix(random, model.hidden_dim, model.ffn_dim, 0.8);
    if (qwen2) {
      layer.q_bias = random_matrix(random, 1, query_dim, 2);
      layer.k_bias = random_matrix(random, 1, kv_dim, 2);
      layer.v_bias = random_matrix(random, 1, kv_dim, 2);
    }
  }
  return model;
}

/// The model as a GGUF file of type F32 that refers to the model's weights. Files of the llama architecture store the
/// rows of q and k such that RoPE turns neighbours; a model whose RoPE turns halves is a qwen2 file.
inline GgufWriter gguf_of(const NaiveLlama& model, std::size_t context_length) {
  const auto number = [](std::size_t value) { return static_cast<std::uint32_t>(value); };
  GgufWriter writer;
  const std::string architecture = model.pairing == NaivePairing::neighbours ? "llama" : "qwen2";
  writer.add("general.architecture", architecture);
  writer.add(architecture + ".block_count", number(model.layers.size()));
  writer.add(architecture + ".context_length", number(context_length));
  writer.add(architecture + ".embedding_length", number(model.hidden_dim));
  writer.add(architecture + ".feed_forward_length", number(model.ffn_dim));
  writer.add(architecture + ".attention.head_count", number(model.heads));
  writer.add(architecture + ".attention.head_count_kv", number(model.kv_heads));
  writer.add(architecture + ".attention.key_length", number(model.head_dim));
  writer.add(architecture + ".attention.value_length", number(model.head_dim));
  writer.add(architecture + ".rope.dimension_count", number(model.rope_dim));
  writer.add(architecture + ".rope.freq_base", static_cast<float>(model.rope_base));
  writer.add(architecture + ".attention.layer_norm_rms_epsilon", static_cast<float>(model.rms_epsilon));

  const auto matrix = [&](const std::string& name, const Weights& weights, std::size_t cols) {
    const std::vector<std::uint64_t> shape{cols, weights.size() / cols};
    writer.add_tensor(name, GgufType::f32, shape, std::as_bytes(std::span(weights)));
  };
  const auto vector = [&](const std::string& name, const Weights& weights) {
    writer.add_tensor(name, GgufType::f32, {weights.size()}, std::as_bytes(std::span(weights)));
  };
  matrix("token_embd.weight", model.embedding, model.hidden_dim);
  vector("output_norm.weight", model.output_norm);
  if (!model.head.empty()) matrix("output.weight", model.head, model.hidden_dim);
  if (!model.rope_factors.empty()) vector("rope_freqs.weight", model.rope_factors);
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    const NaiveLayer& layer = model.layers[i];
    const std::string prefix = "blk." + std::to_string(i) + ".";
    vector(prefix + "attn_norm.weight", layer.attention_norm);
    matrix(prefix + "attn_q.weight", layer.q, model.hidden_dim);
    matrix(prefix + "attn_k.weight", layer.k, model.hidden_dim);
    matrix(prefix + "attn_v.weight", layer.v, model.hidden_dim);
    matrix(prefix + "attn_output.weight", layer.o, model.heads * model.head_dim);
    if (!layer.q_bias.empty()) vector(prefix + "attn_q.bias", layer.q_bias);
    if (!layer.k_bias.empty()) vector(prefix + "attn_k.bias", layer.k_bias);
    if (!layer.v_bias.empty()) vector(prefix + "attn_v.bias", layer.v_bias);
    vector(prefix + "ffn_norm.weight", layer.ffn_norm);
    matrix(prefix + "ffn_gate.weight", layer.gate, model.hidden_dim);
    matrix(prefix + "ffn_up.weight", layer.up, model.hidden_dim);
    matrix(prefix + "ffn_down.weight", layer.down, model.ffn_dim);
  }
  return writer;
}

}  // namespace lazyllm::test
