// A tiny random Llama as a GGUF file with a tokenizer for printable ASCII and a ChatML template: what the program
// needs.
#pragma once

#include <lazyllm/io/gguf.hpp>
#include <lazyllm/io/gguf_write.hpp>

#include "support/naive_llama.hpp"
#include "support/random_model.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace lazyllm::test {

inline constexpr std::size_t tiny_layers = 4;
inline constexpr std::size_t tiny_context = 512;
inline constexpr std::size_t tiny_vocab = 98;
inline constexpr std::int32_t tiny_end_id = 0;  // <|im_end|>

/// `always_end`: every logit is 0, so that a greedy choice is always id 0, the end token.
inline void save_tiny_model(const std::filesystem::path& path, bool always_end = false) {
  Random random(7);
  NaiveLlama model;
  model.vocab_size = tiny_vocab;
  model.hidden_dim = 32;
  model.heads = 4;
  model.kv_heads = 2;
  model.head_dim = model.rope_dim = 8;
  model.ffn_dim = 64;
  model.embedding = random_matrix(random, tiny_vocab, model.hidden_dim, 4);
  model.output_norm = random_around_one(random, model.hidden_dim);
  model.head = random_matrix(random, tiny_vocab, model.hidden_dim, always_end ? 0 : 2);
  model.layers.resize(tiny_layers);
  for (NaiveLayer& layer : model.layers) {
    const auto matrix = [&](std::size_t rows, std::size_t cols) { return random_matrix(random, rows, cols, 1.4); };
    layer.attention_norm = random_around_one(random, model.hidden_dim);
    layer.q = matrix(model.hidden_dim, model.hidden_dim);
    layer.k = matrix(model.hidden_dim / 2, model.hidden_dim);
    layer.v = matrix(model.hidden_dim / 2, model.hidden_dim);
    layer.o = matrix(model.hidden_dim, model.hidden_dim);
    layer.ffn_norm = random_around_one(random, model.hidden_dim);
    layer.gate = matrix(model.ffn_dim, model.hidden_dim);
    layer.up = matrix(model.ffn_dim, model.hidden_dim);
    layer.down = matrix(model.hidden_dim, model.ffn_dim);
  }

  std::vector<std::string> tokens = {"<|im_end|>", "<|im_start|>", "\xC4\xA0", "\xC4\x8A"};  // space is U+0120
  std::vector<std::int32_t> types = {3, 3, 1, 1};
  for (char c = '!'; c <= '~'; ++c) {
    tokens.emplace_back(1, c);
    types.push_back(1);
  }
  GgufWriter writer = gguf_of(model, tiny_context);
  writer.add("tokenizer.ggml.model", std::string("gpt2"));
  writer.add("tokenizer.ggml.pre", std::string("gpt-2"));
  writer.add("tokenizer.ggml.tokens", GgufArray(std::move(tokens)));
  writer.add("tokenizer.ggml.token_type", GgufArray(std::move(types)));
  writer.add("tokenizer.ggml.merges", GgufArray(std::vector<std::string>{}));
  writer.add("tokenizer.ggml.eos_token_id", static_cast<std::uint32_t>(tiny_end_id));
  writer.add(
      "tokenizer.chat_template",
      std::string("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
                  "'<|im_end|>' + '\n'}}{% endfor %}"
                  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"));
  writer.save(path);
}

}  // namespace lazyllm::test
