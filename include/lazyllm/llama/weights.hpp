// A Llama model's weights, packed for the kernels once and shared, const, by every session.
// `Weights` is AsStored (each tensor in the format the file has) or one format that all linear layers get: a tensor of
// another format is converted while it is packed. The embedding and the head stay as stored.
// Tensor names: the GGUF convention of the ggml project.
#pragma once

#include <lazyllm/core/checksum.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/io/gguf.hpp>
#include <lazyllm/io/gguf_fingerprint.hpp>
#include <lazyllm/io/mapped_file.hpp>
#include <lazyllm/llama/config.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/quant/any_matrix.hpp>
#include <lazyllm/quant/bf16.hpp>
#include <lazyllm/quant/f16.hpp>
#include <lazyllm/quant/f32.hpp>
#include <lazyllm/quant/packed_matrix.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace lazyllm::inline v0 {

/// Each tensor keeps the format it has in the file: one branch per matmul call.
struct AsStored {};

template <class W>
concept WeightChoice = std::same_as<W, AsStored> || PackableFormat<W>;

namespace detail {
template <class W>
struct MatrixOf {
  using type = PackedMatrix<W>;
};
template <>
struct MatrixOf<AsStored> {
  using type = AnyMatrix;
};
}  // namespace detail

/// The matrix type of the linear layers.
template <WeightChoice W>
using WeightMatrix = typename detail::MatrixOf<W>::type;

template <WeightChoice W>
struct LlamaLayerWeights {
  std::vector<float> attention_norm;                    // [hidden_dim]
  std::vector<float> query_bias, key_bias, value_bias;  // by output; empty where the file has none (Qwen2 has them)
  WeightMatrix<W> query, key, value, attention;  // [heads * head_dim | kv_heads * head_dim (2) | hidden_dim, ...]
  std::vector<float> ffn_norm;                   // [hidden_dim]
  WeightMatrix<W> gate, up, down;                // [ffn_dim (2), hidden_dim], [hidden_dim, ffn_dim]
};

/// Called while weights are packed: bytes of the file done, and all of them.
using LoadProgress = std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>;

template <WeightChoice W = AsStored>
class LlamaWeights {
 public:
  /// Packs every tensor of the file, or quantises it to W; mapped pages are released as they are done, so two copies of
  /// all weights never exist. Throws Error, naming the tensor, for missing, surplus or misshaped tensors, for formats
  /// without kernels, and for rows that are no multiple of W's block.
  template <Executor E>
  static std::shared_ptr<const LlamaWeights> load(const MappedFile& file, const GgufFile& gguf, E& executor,
                                                  const LoadProgress& progress = {});

  [[nodiscard]] const LlamaConfig& config() const { return config_; }
  /// Of the file (io/gguf_fingerprint.hpp) and of what its weights were made into.
  [[nodiscard]] std::uint64_t fingerprint() const { return fingerprint_; }
  [[nodiscard]] const LlamaLayerWeights<W>& layer(std::size_t i) const { return layers_[i]; }
  [[nodiscard]] const AnyMatrix& embedding() const { return embedding_; }  // [vocab_size, hidden_dim]
  [[nodiscard]] std::span<const float> output_norm() const { return output_norm_; }
  /// The head [vocab_size, hidden_dim]: the embedding again where the file has no own head.
  [[nodiscard]] const AnyMatrix& head() const { return head_ ? *head_ : embedding_; }
  /// Factors of rope_freqs.weight [rope_dim / 2]; empty: all 1.
  [[nodiscard]] std::span<const float> rope_factors() const { return rope_factors_; }

 private:
  LlamaWeights() = default;

  LlamaConfig config_;
  std::uint64_t fingerprint_ = 0;
  std::vector<LlamaLayerWeights<W>> layers_;
  AnyMatrix embedding_;
  std::unique_ptr<AnyMatrix> head_;
  std::vector<float> output_norm_;
  std::vector<float> rope_factors_;
};

namespace detail {

/// Reads one tensor after the other, checks its shape, and remembers which were used.
template <Executor E>
class TensorLoader {
 public:
  TensorLoader(const MappedFile& file, const GgufFile& gguf, E& executor, const LoadProgress& progress)
      : file_(file), gguf_(gguf), executor_(executor), progress_(progress) {
    for (const GgufTensor& tensor : gguf.tensors()) total_bytes_ += tensor.size_bytes;
  }

  template <class Matrix>
  Matrix matrix(const std::string& name, std::size_t out_features, std::size_t in_features) {
    const GgufTensor& tensor = checked(name, {in_features, out_features});
    const std::string_view format = format_of(tensor);
    if (!AnyMatrix::supports(format)) {
      unsupported_model("tensor " + name + ": type " + std::string(format), AnyMatrix::format_names());
    }
    Matrix result = [&] {
      if constexpr (std::same_as<Matrix, AnyMatrix>) {
        return AnyMatrix::pack(format, bytes(tensor), out_features, in_features, executor_);
      } else {
        using Format = typename Matrix::Format;
        if (format == Format::name) return Matrix::pack(bytes(tensor), out_features, in_features, executor_);
        if (in_features % Format::block_size != 0) {
          unsupported_model("tensor " + name + ": type " + std::string(format) + " with rows of " +
                                std::to_string(in_features) + " in a model of format " + std::string(Format::name),
                            "rows of a multiple of " + std::to_string(Format::block_size));
        }
        return quantized<Matrix>(tensor, out_features, in_features);
      }
    }();
    finish(tensor);
    return result;
  }

  std::vector<float> vector(const std::string& name, std::size_t size) {
    const GgufTensor& tensor = checked(name, {size});
    std::vector<float> result(size);
    const auto read = [&]<class F>(F) {
      std::vector<typename F::Block> blocks(size);
      std::memcpy(blocks.data(), bytes(tensor).data(), tensor.size_bytes);
      F::dequantize(blocks, result);
    };
    switch (tensor.type) {
      case GgufType::f32: read(F32{}); break;
      case GgufType::f16: read(F16{}); break;
      case GgufType::bf16: read(BF16{}); break;
      default: unsupported_model("tensor " + name + ": type " + std::string(format_of(tensor)), "F32, F16, BF16");
    }
    finish(tensor);
    return result;
  }

  [[nodiscard]] bool has(const std::string& name) const { return gguf_.find_tensor(name) != nullptr; }

  /// A tensor that this graph does not know could change the model's answers.
  void check_all_used() const {
    for (const GgufTensor& tensor : gguf_.tensors()) {
      if (!used_.contains(tensor.name)) {
        unsupported_model("tensor " + gguf_quoted(tensor.name), "the tensors of a Llama or Qwen2 model");
      }
    }
  }

 private:
  /// From another format, by way of floats, a row at a time.
  template <class Matrix>
  Matrix quantized(const GgufTensor& tensor, std::size_t out_features, std::size_t in_features) {
    Matrix result;
    AnyMatrix::with_format(format_of(tensor), [&]<class Stored>(Stored) {
      using Block = typename Stored::Block;
      const std::size_t row_blocks = in_features / Stored::block_size, row_bytes = row_blocks * sizeof(Block);
      const std::span<const std::byte> stored = bytes(tensor);
      const auto read_row = [&](std::size_t n, std::span<float> values) {
        for (std::size_t i = 0; i < row_blocks; ++i) {
          const auto block = load_as<Block>(stored.data() + n * row_bytes + i * sizeof(Block));
          Stored::dequantize({&block, 1}, values.subspan(i * Stored::block_size, Stored::block_size));
        }
      };
      result = Matrix::quantize(out_features, in_features, read_row, executor_);
    });
    return result;
  }

  static std::string_view format_of(const GgufTensor& tensor) { return lazyllm::name(tensor.type); }

  const GgufTensor& checked(const std::string& name, const std::vector<std::uint64_t>& shape) {
    const GgufTensor& tensor = gguf_.require_tensor(name);
    if (tensor.shape != shape) {
      throw Error(ErrorCode::malformed,
                  "tensor " + name + " has shape " + text(tensor.shape) + ", wanted " + text(shape));
    }
    if (gguf_.data_offset() + tensor.offset + tensor.size_bytes > file_.bytes().size()) {
      throw Error(ErrorCode::malformed, "tensor " + name + ": " + std::to_string(tensor.size_bytes) +
                                            " bytes at offset " + std::to_string(gguf_.data_offset() + tensor.offset) +
                                            " exceed the file's " + std::to_string(file_.bytes().size()));
    }
    return tensor;
  }
  [[nodiscard]] std::span<const std::byte> bytes(const GgufTensor& tensor) const {
    return file_.bytes().subspan(gguf_.data_offset() + tensor.offset, tensor.size_bytes);
  }
  void finish(const GgufTensor& tensor) {
    file_.release(gguf_.data_offset() + tensor.offset, tensor.size_bytes);
    used_.insert(tensor.name);
    done_bytes_ += tensor.size_bytes;
    if (progress_) progress_(done_bytes_, total_bytes_);
  }
  static std::string text(const std::vector<std::uint64_t>& shape) {
    std::string result;
    for (const std::uint64_t size : shape) result += (result.empty() ? "[" : ", ") + std::to_string(size);
    return result + "]";
  }

  const MappedFile& file_;
  const GgufFile& gguf_;
  E& executor_;
  const LoadProgress& progress_;
  std::set<std::string, std::less<>> used_;
  std::uint64_t done_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace detail

template <WeightChoice W>
template <Executor E>
std::shared_ptr<const LlamaWeights<W>> LlamaWeights<W>::load(const MappedFile& file, const GgufFile& gguf, E& executor,
                                                             const LoadProgress& progress) {
  std::shared_ptr<LlamaWeights> weights(new LlamaWeights);
  const LlamaConfig& config = weights->config_ = LlamaConfig::from_gguf(gguf);
  weights->fingerprint_ = lazyllm::fingerprint(file.bytes(), gguf);
  if constexpr (!std::same_as<W, AsStored>) {
    weights->fingerprint_ = checksum(std::as_bytes(std::span(std::string_view(W::name))), weights->fingerprint_);
  }
  const std::size_t hidden = config.hidden_dim;
  const std::size_t query_dim = config.heads * config.head_dim;
  const std::size_t kv_dim = config.kv_heads * config.head_dim;

  detail::TensorLoader<E> loader(file, gguf, executor, progress);
  weights->embedding_ = loader.template matrix<AnyMatrix>("token_embd.weight", config.vocab_size, hidden);
  weights->output_norm_ = loader.vector("output_norm.weight", hidden);
  if (loader.has("output.weight")) {
    weights->head_ =
        std::make_unique<AnyMatrix>(loader.template matrix<AnyMatrix>("output.weight", config.vocab_size, hidden));
  }
  if (loader.has("rope_freqs.weight")) {
    weights->rope_factors_ = loader.vector("rope_freqs.weight", config.rope_dim / 2);
  }
  for (std::size_t i = 0; i < config.layers; ++i) {
    const std::string prefix = "blk." + std::to_string(i) + ".";
    const auto matrix = [&](const char* name, std::size_t out_features, std::size_t in_features) {
      return loader.template matrix<WeightMatrix<W>>(prefix + name, out_features, in_features);
    };
    const auto bias = [&](const char* name, std::size_t size) {
      return loader.has(prefix + name) ? loader.vector(prefix + name, size) : std::vector<float>();
    };
    weights->layers_.push_back({
        .attention_norm = loader.vector(prefix + "attn_norm.weight", hidden),
        .query_bias = bias("attn_q.bias", query_dim),
        .key_bias = bias("attn_k.bias", kv_dim),
        .value_bias = bias("attn_v.bias", kv_dim),
        .query = matrix("attn_q.weight", query_dim, hidden),
        .key = matrix("attn_k.weight", kv_dim, hidden),
        .value = matrix("attn_v.weight", kv_dim, hidden),
        .attention = matrix("attn_output.weight", hidden, query_dim),
        .ffn_norm = loader.vector(prefix + "ffn_norm.weight", hidden),
        .gate = matrix("ffn_gate.weight", config.ffn_dim, hidden),
        .up = matrix("ffn_up.weight", config.ffn_dim, hidden),
        .down = matrix("ffn_down.weight", hidden, config.ffn_dim),
    });
  }
  loader.check_all_used();
  return weights;
}

}  // namespace lazyllm::inline v0
