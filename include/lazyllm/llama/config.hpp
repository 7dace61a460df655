// The sizes and constants of a Llama-like model (Llama, Qwen2), read from GGUF metadata and checked against each other.
// Whatever would make this graph compute something else than the file's model is an error here, not a wrong answer.
// Keys: the GGUF specification of the ggml project; their prefix is the architecture's name.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/io/gguf.hpp>
#include <lazyllm/nn/rope.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lazyllm::inline v0 {

struct LlamaConfig {
  std::size_t layers = 0;
  std::size_t hidden_dim = 0;
  std::size_t heads = 0;     ///< query heads
  std::size_t kv_heads = 0;  ///< key and value heads; divides heads
  std::size_t head_dim = 0;
  std::size_t ffn_dim = 0;
  std::size_t vocab_size = 0;
  std::size_t context_length = 0;  ///< tokens the model was made for
  float norm_epsilon = 1e-5f;
  float rope_base = 10000.0f;
  std::size_t rope_dim = 0;  ///< the first rope_dim elements of a head rotate
  RopePairing rope_pairing = RopePairing::neighbours;

  /// Throws Error for another architecture, a RoPE scaling, a sliding window, experts, a split file, or sizes that do
  /// not fit together; the message names the key, what it says and what is supported.
  static LlamaConfig from_gguf(const GgufFile& file);
};

namespace detail {

[[noreturn]] inline void unsupported_model(const std::string& what, std::string_view supported) {
  throw Error(ErrorCode::unsupported, what + " is not supported; supported: " + std::string(supported));
}

/// A size that must be in [1, 2^31): anything larger cannot be a model of this kind.
inline std::size_t model_size(const GgufFile& file, const std::string& key, std::uint64_t fallback = 0) {
  const std::uint64_t value = fallback == 0 ? file.require_unsigned(key) : file.unsigned_or(key, fallback);
  if (value == 0 || value >= (std::uint64_t{1} << 31)) {
    throw Error(ErrorCode::malformed, key + ": " + std::to_string(value) + " is outside [1, 2^31)");
  }
  return static_cast<std::size_t>(value);
}

inline void check_multiple(const std::string& what, std::size_t value, const std::string& of, std::size_t divisor) {
  if (value % divisor != 0) {
    throw Error(ErrorCode::malformed,
                what + " " + std::to_string(value) + " is not a multiple of " + of + " " + std::to_string(divisor));
  }
}

}  // namespace detail

inline LlamaConfig LlamaConfig::from_gguf(const GgufFile& file) {
  const std::string& architecture = file.require_string("general.architecture");
  if (architecture != "llama" && architecture != "qwen2") {
    detail::unsupported_model("general.architecture '" + architecture + "'", "llama, qwen2");
  }
  const auto key = [&](const char* name) { return architecture + "." + name; };
  if (const auto parts = file.unsigned_or("split.count", 1); parts > 1) {
    detail::unsupported_model("split.count " + std::to_string(parts), "models in one file");
  }
  if (const std::string scaling = file.string_or(key("rope.scaling.type"), "none");
      scaling != "none" && !scaling.empty()) {
    detail::unsupported_model(key("rope.scaling.type") + " '" + scaling + "'", "none, or factors in rope_freqs.weight");
  }
  if (const double factor = file.real_or(key("rope.scale_linear"), 1.0); factor != 1.0) {
    detail::unsupported_model(key("rope.scale_linear") + " " + std::to_string(factor),
                              "1, or factors in rope_freqs.weight");
  }
  for (const std::string& name : {key("attention.sliding_window"), key("expert_count")}) {
    if (const auto value = file.unsigned_or(name, 0); value != 0) {
      detail::unsupported_model(name + " " + std::to_string(value), "0");
    }
  }
  if (!file.bool_or(key("attention.causal"), true)) {
    detail::unsupported_model(key("attention.causal") + " false", "causal attention");
  }

  LlamaConfig config;
  config.layers = detail::model_size(file, key("block_count"));
  config.hidden_dim = detail::model_size(file, key("embedding_length"));
  config.heads = detail::model_size(file, key("attention.head_count"));
  config.kv_heads = detail::model_size(file, key("attention.head_count_kv"), config.heads);
  config.ffn_dim = detail::model_size(file, key("feed_forward_length"));
  config.context_length = detail::model_size(file, key("context_length"));
  if (file.find(key("attention.key_length")) == nullptr) {
    detail::check_multiple(key("embedding_length"), config.hidden_dim, key("attention.head_count"), config.heads);
  }
  config.head_dim =
      detail::model_size(file, key("attention.key_length"), std::max<std::size_t>(1, config.hidden_dim / config.heads));
  config.rope_dim = detail::model_size(file, key("rope.dimension_count"), config.head_dim);
  config.rope_base = static_cast<float>(file.real_or(key("rope.freq_base"), 10000.0));
  config.rope_pairing = architecture == "llama" ? RopePairing::neighbours : RopePairing::halves;
  config.norm_epsilon = static_cast<float>(file.require_real(key("attention.layer_norm_rms_epsilon")));

  detail::check_multiple(key("attention.head_count"), config.heads, key("attention.head_count_kv"), config.kv_heads);
  if (const auto length = file.unsigned_or(key("attention.value_length"), config.head_dim); length != config.head_dim) {
    detail::unsupported_model(key("attention.value_length") + " " + std::to_string(length),
                              "the key length, " + std::to_string(config.head_dim));
  }
  if (config.head_dim % 8 != 0 || config.head_dim > 256) {
    detail::unsupported_model("head size " + std::to_string(config.head_dim), "multiples of 8 up to 256");
  }
  if (config.rope_dim % 2 != 0 || config.rope_dim > config.head_dim) {
    throw Error(ErrorCode::malformed, key("rope.dimension_count") + " " + std::to_string(config.rope_dim) +
                                          " is no even number of at most the head size " +
                                          std::to_string(config.head_dim));
  }
  if (!(config.rope_base > 0.0f) || !(config.norm_epsilon >= 0.0f)) {
    throw Error(ErrorCode::malformed, key("rope.freq_base") + " " + std::to_string(config.rope_base) +
                                          " or rms epsilon " + std::to_string(config.norm_epsilon) +
                                          " is not positive");
  }
  const GgufTensor& embedding = file.require_tensor("token_embd.weight");
  if (embedding.shape.size() != 2) {
    throw Error(ErrorCode::malformed,
                "token_embd.weight has " + std::to_string(embedding.shape.size()) + " dimensions, wanted 2");
  }
  config.vocab_size = static_cast<std::size_t>(embedding.shape[1]);
  return config;
}

}  // namespace lazyllm::inline v0
