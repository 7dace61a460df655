// A Llama in double precision, one token and one layer at a time: the oracle for the model and for the engine.
// Weights are float vectors [out, in], row-major, as a GGUF file stores them; everything computed is double.
// Written from the definitions (RMSNorm arXiv 1910.07467, RoPE 2104.09864, GQA 2305.13245, SwiGLU 2002.05202).
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace lazyllm::test {

using Vector = std::vector<double>;
using Weights = std::vector<float>;

enum class NaivePairing { neighbours, halves };  // RoPE turns (x[2i], x[2i + 1]) or (x[i], x[i + rope_dim / 2])

struct NaiveLayer {
  Weights attention_norm, q, k, v, o, ffn_norm, gate, up, down;
  Weights q_bias, k_bias, v_bias;  // empty: none
};

struct NaiveLlama {
  std::size_t vocab_size = 0, hidden_dim = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn_dim = 0;
  double rms_epsilon = 1e-5;
  double rope_base = 10000;
  std::size_t rope_dim = 0;  // the first rope_dim elements of a head rotate
  NaivePairing pairing = NaivePairing::neighbours;
  Weights embedding;     // [vocab_size, hidden_dim]
  Weights rope_factors;  // [rope_dim / 2], each pair's frequency is divided by its factor; empty: none
  Weights output_norm;
  Weights head;  // [vocab_size, hidden_dim]; empty: tied to the embedding
  std::vector<NaiveLayer> layers;
};

/// K and V of one token at one layer, [kv_heads * head_dim]; K has its position's rotation.
struct NaiveKeyValue {
  Vector key, value;
};

/// What one layer makes of one token.
struct NaiveOutput {
  Vector hidden;
  std::vector<Vector> probs;  // [heads][keys]
};

inline Vector naive_matvec(const Weights& matrix, const Vector& x) {
  Vector y(matrix.size() / x.size(), 0.0);
  for (std::size_t row = 0; row < y.size(); ++row) {
    for (std::size_t col = 0; col < x.size(); ++col) {
      y[row] += static_cast<double>(matrix[row * x.size() + col]) * x[col];
    }
  }
  return y;
}

inline Vector naive_rms_norm(const Vector& x, const Weights& weight, double epsilon) {
  double sum = 0;
  for (const double value : x) sum += value * value;
  const double scale = 1 / std::sqrt(sum / static_cast<double>(x.size()) + epsilon);
  Vector y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * static_cast<double>(weight[i]);
  return y;
}

/// Rotates every head of x [heads * head_dim] by the token's position.
inline void naive_rope(const NaiveLlama& model, Vector& x, std::size_t position) {
  const std::size_t dim = model.head_dim;
  for (std::size_t head = 0; head < x.size() / dim; ++head) {
    for (std::size_t pair = 0; pair < model.rope_dim / 2; ++pair) {
      double angle = static_cast<double>(position) *
                     std::pow(model.rope_base, -2 * static_cast<double>(pair) / static_cast<double>(model.rope_dim));
      if (!model.rope_factors.empty()) angle /= static_cast<double>(model.rope_factors[pair]);
      const bool neighbours = model.pairing == NaivePairing::neighbours;
      double& a = x[head * dim + (neighbours ? 2 * pair : pair)];
      double& b = x[head * dim + (neighbours ? 2 * pair + 1 : pair + model.rope_dim / 2)];
      const double turned = a * std::cos(angle) - b * std::sin(angle);
      b = a * std::sin(angle) + b * std::cos(angle);
      a = turned;
    }
  }
}

inline Vector naive_embedding(const NaiveLlama& model, std::size_t id) {
  const float* row = model.embedding.data() + id * model.hidden_dim;
  return {row, row + model.hidden_dim};
}

inline Vector naive_add(Vector x, const Weights& bias) {
  for (std::size_t i = 0; i < bias.size(); ++i) x[i] += static_cast<double>(bias[i]);
  return x;
}

/// K and V of a token whose input of the layer is `hidden`.
inline NaiveKeyValue naive_key_value(const NaiveLlama& model, std::size_t layer, const Vector& hidden,
                                     std::size_t position) {
  const NaiveLayer& weights = model.layers[layer];
  const Vector normed = naive_rms_norm(hidden, weights.attention_norm, model.rms_epsilon);
  NaiveKeyValue result{naive_add(naive_matvec(weights.k, normed), weights.k_bias),
                       naive_add(naive_matvec(weights.v, normed), weights.v_bias)};
  naive_rope(model, result.key, position);
  return result;
}

/// The sum of the magnitudes of the value that each query head reads, [heads].
inline Vector naive_value_norms(const NaiveLlama& model, const NaiveKeyValue& stored) {
  Vector norms(model.heads, 0.0);
  for (std::size_t head = 0; head < model.heads; ++head) {
    const std::size_t kv_head = head / (model.heads / model.kv_heads);
    for (std::size_t i = 0; i < model.head_dim; ++i)
      norms[head] += std::abs(stored.value[kv_head * model.head_dim + i]);
  }
  return norms;
}

/// The layer's output for a token that attends to `keys`, and its attention probabilities over them.
inline NaiveOutput naive_layer(const NaiveLlama& model, std::size_t layer, const Vector& hidden, std::size_t position,
                               const std::vector<const NaiveKeyValue*>& keys) {
  const NaiveLayer& weights = model.layers[layer];
  const std::size_t dim = model.head_dim;
  Vector query = naive_add(naive_matvec(weights.q, naive_rms_norm(hidden, weights.attention_norm, model.rms_epsilon)),
                           weights.q_bias);
  naive_rope(model, query, position);

  NaiveOutput result;
  Vector attended(model.heads * dim, 0.0);
  for (std::size_t head = 0; head < model.heads; ++head) {
    const std::size_t kv_head = head / (model.heads / model.kv_heads);
    Vector probs;
    double total = 0;
    for (const NaiveKeyValue* key : keys) {
      double dot = 0;
      for (std::size_t i = 0; i < dim; ++i) dot += query[head * dim + i] * key->key[kv_head * dim + i];
      probs.push_back(std::exp(dot / std::sqrt(static_cast<double>(dim))));
      total += probs.back();
    }
    for (double& p : probs) p /= total;
    for (std::size_t k = 0; k < keys.size(); ++k) {
      for (std::size_t i = 0; i < dim; ++i) attended[head * dim + i] += probs[k] * keys[k]->value[kv_head * dim + i];
    }
    result.probs.push_back(std::move(probs));
  }

  result.hidden = hidden;
  const Vector attention = naive_matvec(weights.o, attended);
  for (std::size_t i = 0; i < hidden.size(); ++i) result.hidden[i] += attention[i];

  const Vector normed = naive_rms_norm(result.hidden, weights.ffn_norm, model.rms_epsilon);
  Vector gate = naive_matvec(weights.gate, normed);
  const Vector up = naive_matvec(weights.up, normed);
  for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
  const Vector ffn = naive_matvec(weights.down, gate);
  for (std::size_t i = 0; i < hidden.size(); ++i) result.hidden[i] += ffn[i];
  return result;
}

inline Vector naive_logits(const NaiveLlama& model, const Vector& hidden) {
  return naive_matvec(model.head.empty() ? model.embedding : model.head,
                      naive_rms_norm(hidden, model.output_norm, model.rms_epsilon));
}

/// The dense model over a whole sequence, layer by layer with a full causal mask: logits of every position.
inline std::vector<Vector> naive_dense(const NaiveLlama& model, const std::vector<std::size_t>& ids) {
  std::vector<Vector> hidden;
  for (const std::size_t id : ids) hidden.push_back(naive_embedding(model, id));
  for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
    std::vector<NaiveKeyValue> stored;
    for (std::size_t t = 0; t < ids.size(); ++t) stored.push_back(naive_key_value(model, layer, hidden[t], t));
    std::vector<const NaiveKeyValue*> keys;
    for (std::size_t t = 0; t < ids.size(); ++t) {
      keys.push_back(&stored[t]);
      hidden[t] = naive_layer(model, layer, hidden[t], t, keys).hidden;
    }
  }
  std::vector<Vector> logits;
  for (const Vector& row : hidden) logits.push_back(naive_logits(model, row));
  return logits;
}

}  // namespace lazyllm::test
