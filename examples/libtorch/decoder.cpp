// LazyLLM around a model written with libtorch: a Llama decoder of tensors, its weights from a GGUF file.
// lazyllm reads the file, makes tokens of text and prunes; everything of the model is torch.
// Usage: lazyllm_libtorch MODEL.gguf
#include <torch/torch.h>

#include <lazyllm/lazyllm.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {

using lazyllm::ConstRows;
using lazyllm::Rows;
using lazyllm::TokenId;
using lazyllm::TokenIndex;
using torch::Tensor;

/// A tensor of the file as floats, [out, in] or [in].
Tensor read_tensor(const lazyllm::MappedFile& file, const lazyllm::GgufFile& gguf, const std::string& name) {
  const lazyllm::GgufTensor& stored = gguf.require_tensor(name);
  const std::vector<std::int64_t> shape(stored.shape.rbegin(), stored.shape.rend());
  Tensor values = torch::empty(shape);
  const bool known = lazyllm::AnyMatrix::with_format(lazyllm::name(stored.type), [&]<class Format>(Format) {
    std::vector<typename Format::Block> blocks(static_cast<std::size_t>(values.numel()) / Format::block_size);
    std::memcpy(blocks.data(), file.bytes().data() + gguf.data_offset() + stored.offset, stored.size_bytes);
    Format::dequantize(blocks, {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
  });
  if (!known) {
    throw lazyllm::Error(lazyllm::ErrorCode::unsupported,
                         "tensor " + name + " is " + std::string(lazyllm::name(stored.type)));
  }
  return values;
}

Tensor as_tensor(Rows rows) {  // shares the session's memory; rows made by it are dense
  return torch::from_blob(rows.data(),
                          {static_cast<std::int64_t>(rows.rows()), static_cast<std::int64_t>(rows.cols())});
}
Tensor as_tensor(std::span<const TokenIndex> tokens) {
  return torch::tensor(std::vector<std::int64_t>(tokens.begin(), tokens.end()));
}

class TorchDecoder {
 public:
  TorchDecoder(const lazyllm::MappedFile& file, const lazyllm::GgufFile& gguf, std::int64_t context_size) {
    const auto number = [&](const char* key) {
      return static_cast<std::int64_t>(gguf.require_unsigned("llama." + std::string(key)));
    };
    heads_ = number("attention.head_count");
    kv_heads_ = number("attention.head_count_kv");
    epsilon_ = gguf.require_real("llama.attention.layer_norm_rms_epsilon");
    const auto tensor = [&](const std::string& name) { return read_tensor(file, gguf, name + ".weight"); };
    embedding_ = tensor("token_embd");
    output_norm_ = tensor("output_norm");
    head_ = gguf.find_tensor("output.weight") == nullptr ? embedding_ : tensor("output");
    for (std::int64_t i = 0; i < number("block_count"); ++i) {
      const auto part = [&](const char* name) { return tensor("blk." + std::to_string(i) + "." + name); };
      Layer layer{part("attn_norm"),
                  part("attn_q"),
                  part("attn_k"),
                  part("attn_v"),
                  part("attn_output"),
                  part("ffn_norm"),
                  part("ffn_gate"),
                  part("ffn_up"),
                  part("ffn_down"),
                  {},
                  {}};
      head_dim_ = layer.query.size(0) / heads_;
      layer.keys = torch::zeros({context_size, kv_heads_, head_dim_});
      layer.values = torch::zeros({context_size, kv_heads_, head_dim_});
      layers_.push_back(std::move(layer));
    }
    frequencies_ = torch::pow(gguf.real_or("llama.rope.freq_base", 10000.0),
                              torch::arange(0, head_dim_, 2, torch::kDouble) / -static_cast<double>(head_dim_));
  }

  // What the engine asks of a graph ...
  [[nodiscard]] std::size_t layer_count() const { return layers_.size(); }
  [[nodiscard]] std::size_t head_count() const { return static_cast<std::size_t>(heads_); }
  [[nodiscard]] std::size_t hidden_dim() const { return static_cast<std::size_t>(embedding_.size(1)); }

  void run_layer(const lazyllm::LayerStep& step) {
    Layer& layer = layers_[step.layer];
    const Tensor positions = as_tensor(step.rows), key_positions = as_tensor(step.keys);
    Tensor hidden = as_tensor(step.hidden);
    const Tensor normed = normalised(hidden, layer.attention_norm);
    layer.keys.index_copy_(0, positions, rotated(linear(normed, layer.key, kv_heads_), positions));
    layer.values.index_copy_(0, positions, linear(normed, layer.value, kv_heads_));

    // Only the last rows' outputs are wanted: [heads, rows, keys] probabilities of these.
    const std::int64_t last = positions.size(0) - static_cast<std::int64_t>(step.outputs);
    hidden = hidden.slice(0, last);
    const Tensor rows = positions.slice(0, last);
    const Tensor query = rotated(linear(normed.slice(0, last), layer.query, heads_), rows).transpose(0, 1);
    const auto stored = [&](const Tensor& cache) {
      return cache.index_select(0, key_positions).repeat_interleave(heads_ / kv_heads_, 1).transpose(0, 1);
    };
    const Tensor hidden_keys = key_positions.unsqueeze(0) > rows.unsqueeze(1);
    const Tensor scores = torch::matmul(query, stored(layer.keys).transpose(1, 2)) / std::sqrt(head_dim_);
    const Tensor probabilities = torch::softmax(scores.masked_fill(hidden_keys, -INFINITY), -1);
    store_scores(probabilities, step.scores);
    const Tensor attended = torch::matmul(probabilities, stored(layer.values)).transpose(0, 1).flatten(1);

    hidden += torch::matmul(attended, layer.output.t());
    const Tensor wide = normalised(hidden, layer.ffn_norm);
    const Tensor gate = torch::silu(torch::matmul(wide, layer.gate.t()));
    hidden += torch::matmul(gate * torch::matmul(wide, layer.up.t()), layer.down.t());
  }

  // ... and of a language model.
  [[nodiscard]] std::size_t vocab_size() const { return static_cast<std::size_t>(embedding_.size(0)); }
  void embed(std::span<const TokenId> ids, Rows hidden) const {
    const Tensor index = torch::tensor(std::vector<std::int64_t>(ids.begin(), ids.end()));
    as_tensor(hidden).copy_(embedding_.index_select(0, index));
  }
  void project(ConstRows hidden, Rows logits) const {
    const Tensor rows = torch::from_blob(const_cast<float*>(hidden.data()),
                                         {static_cast<std::int64_t>(hidden.rows()), embedding_.size(1)});
    as_tensor(logits).copy_(torch::matmul(normalised(rows, output_norm_), head_.t()));
  }

 private:
  struct Layer {
    Tensor attention_norm, query, key, value, output, ffn_norm, gate, up, down;
    Tensor keys, values;  // [context, kv_heads, head_dim]: this sequence's K and V, by token
  };

  [[nodiscard]] Tensor normalised(const Tensor& x, const Tensor& weight) const {
    return x * torch::rsqrt(x.square().mean(-1, true) + epsilon_) * weight;
  }
  /// [rows, heads, head_dim]
  static Tensor linear(const Tensor& x, const Tensor& weight, std::int64_t heads) {
    return torch::matmul(x, weight.t()).view({x.size(0), heads, -1});
  }
  /// RoPE on neighbouring pairs.
  [[nodiscard]] Tensor rotated(const Tensor& x, const Tensor& positions) const {
    const Tensor angles = positions.to(torch::kDouble).unsqueeze(1) * frequencies_;
    const Tensor cosine = angles.cos().to(torch::kFloat).unsqueeze(1),
                 sine = angles.sin().to(torch::kFloat).unsqueeze(1);
    const Tensor pairs = x.unflatten(-1, {head_dim_ / 2, 2});
    const Tensor first = pairs.select(-1, 0), second = pairs.select(-1, 1);
    return torch::stack({first * cosine - second * sine, first * sine + second * cosine}, -1).flatten(-2);
  }
  /// The last rows' probabilities, [query_rows, heads, keys], where the policy wants them.
  static void store_scores(const Tensor& probabilities, lazyllm::ScoreView scores) {
    const auto rows = static_cast<std::int64_t>(scores.query_rows());
    if (rows == 0) return;
    const Tensor wanted = probabilities.slice(1, probabilities.size(1) - rows).transpose(0, 1).contiguous();
    const float* from = wanted.data_ptr<float>();
    for (std::size_t row = 0; row < scores.query_rows(); ++row) {
      for (std::size_t head = 0; head < scores.heads(); ++head, from += scores.keys()) {
        std::copy_n(from, scores.keys(), scores.row(row, head).begin());
      }
    }
  }

  std::int64_t heads_ = 0, kv_heads_ = 0, head_dim_ = 0;
  double epsilon_ = 0;
  Tensor embedding_, output_norm_, head_, frequencies_;
  std::vector<Layer> layers_;
};
static_assert(lazyllm::LanguageGraph<TorchDecoder>);

/// A number hidden in dull text.
std::string question() {
  std::string text = "Some facts are hidden in the following text. Remember them.\n\n";
  for (int i = 0; i < 12; ++i) {
    if (i == 4) text += "The special magic number for amber anchor is 4817. ";
    text += "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ";
  }
  return text + "\n\nWhat is the special magic number for amber anchor?";
}

struct Answer {
  std::string text;
  std::size_t rows_computed;
  double first_token_ms;
};

template <class Policy>
Answer answer(TorchDecoder& graph, const Policy& policy, const std::vector<TokenId>& prompt,
              const lazyllm::Tokenizer& tokenizer) {
  constexpr std::size_t most_tokens = 24;
  lazyllm::LazySession session(
      graph, policy,
      {.context_size = prompt.size() + most_tokens, .decode_revivals = lazyllm::recommended_decode_revivals});
  const auto likeliest = [](std::span<const float> logits) {
    return static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
  };
  const auto start = std::chrono::steady_clock::now();
  TokenId token = likeliest(session.prefill(prompt));
  const std::chrono::duration<double, std::milli> first = std::chrono::steady_clock::now() - start;
  std::vector<TokenId> answer;
  while (answer.size() < most_tokens && !tokenizer.is_end_of_generation(token)) {
    answer.push_back(token);
    token = likeliest(session.decode(token));
  }
  return {tokenizer.decode(answer), session.totals(lazyllm::Phase::prefill).total_rows(), first.count()};
}

/// The last token's logits of a plain loop over the layers, without the engine.
std::vector<float> plain_logits(TorchDecoder& graph, const std::vector<TokenId>& ids) {
  std::vector<TokenIndex> tokens(ids.size());
  std::iota(tokens.begin(), tokens.end(), TokenIndex{0});
  std::vector<float> hidden(ids.size() * graph.hidden_dim()), logits(graph.vocab_size());
  const Rows rows(hidden.data(), ids.size(), graph.hidden_dim());
  graph.embed(ids, rows);
  for (std::size_t layer = 0; layer < graph.layer_count(); ++layer) {
    const std::size_t outputs = layer + 1 == graph.layer_count() ? 1 : ids.size();
    graph.run_layer({layer, tokens, tokens, outputs, rows, {}});
  }
  graph.project(ConstRows(rows).middle_rows(ids.size() - 1, 1), Rows(logits.data(), 1, logits.size()));
  return logits;
}

int run(const char* path) {
  const torch::InferenceMode no_gradients;
  const lazyllm::MappedFile file(path);
  const lazyllm::GgufFile gguf = lazyllm::parse_gguf(file.bytes());
  const auto tokenizer = lazyllm::Tokenizer::from_gguf(gguf);
  const lazyllm::ChatMessage message{.role = "user", .content = question()};
  const std::string text = lazyllm::ChatTemplate::from_gguf(gguf).apply({&message, 1});
  const std::vector<TokenId> prompt = tokenizer.encode(text, {.add_special = false});
  // One after the other, sessions may use the same graph: each writes a token's K and V before it reads them.
  TorchDecoder graph(file, gguf, static_cast<std::int64_t>(prompt.size() + 24));

  // The engine adds nothing: a session that keeps everything gives the bits of a plain loop.
  lazyllm::LazySession dense_session(graph, lazyllm::KeepAll{}, {.context_size = prompt.size()});
  if (!std::ranges::equal(dense_session.prefill(prompt), plain_logits(graph, prompt))) {
    std::puts("the session's logits differ from the plain loop's");
    return 1;
  }

  const std::size_t layers = graph.layer_count();
  const lazyllm::StepSchedule schedule(
      {{layers * 3 / 5, lazyllm::KeepRule::fraction(0.5)}, {layers * 3 / 4, lazyllm::KeepRule::fraction(0.25)}});
  const Answer dense = answer(graph, lazyllm::KeepAll{}, prompt, tokenizer);
  const Answer pruned = answer(graph, lazyllm::TopKPolicy(lazyllm::MeanOverHeads{}, schedule), prompt, tokenizer);
  for (const auto& [name, result] : {std::pair("dense", dense), std::pair("lazy", pruned)}) {
    std::printf("%-5s  %5zu rows  %6.0f ms to the first token  %s\n", name, result.rows_computed, result.first_token_ms,
                result.text.c_str());
  }
  const bool right = pruned.text.find("4817") != std::string::npos;
  if (!right) std::puts("the number is not in the pruned model's answer");
  return right && pruned.rows_computed < dense.rows_computed ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: lazyllm_libtorch MODEL.gguf\n", stderr);
    return 2;
  }
  try {
    return run(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lazyllm_libtorch: %s\n", error.what());
    return 1;
  }
}
