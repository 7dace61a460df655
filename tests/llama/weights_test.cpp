#include <lazyllm/io/gguf_parse.hpp>
#include <lazyllm/io/mapped_file.hpp>
#include <lazyllm/llama/weights.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/parallel/thread_pool.hpp>

#include <doctest/doctest.h>

#include "support/random_model.hpp"
#include "support/requantized.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_model.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

static_assert(WeightChoice<AsStored> && WeightChoice<Q8_0> && WeightChoice<F32> && !WeightChoice<int>);

NaiveLlama some_model(bool own_head) {
  for (std::uint64_t seed = 1;; ++seed) {
    Random random(seed);
    NaiveLlama model = random_llama(random);
    if (model.head.empty() != own_head && model.layers.size() > 1) return model;
  }
}

template <class W = AsStored>
std::shared_ptr<const LlamaWeights<W>> load(const GgufWriter& writer, const LoadProgress& progress = {}) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "model.gguf";
  writer.save(path);
  const MappedFile file(path);
  SerialExecutor executor;
  return LlamaWeights<W>::load(file, parse_gguf(file.bytes()), executor, progress);
}

}  // namespace

TEST_CASE("Weights come out of the file as they went in") {
  const NaiveLlama model = some_model(true);
  std::uint64_t done = 0, total = 0;
  const auto weights = load(gguf_of(model, 64), [&](std::uint64_t d, std::uint64_t t) {
    CHECK(d > done);
    done = d;
    total = t;
  });
  CHECK(done == total);
  CHECK(total > 0);
  CHECK(weights->config().layers == model.layers.size());
  std::vector<float> row(model.hidden_dim);
  for (std::size_t i = 0; i < model.vocab_size; ++i) {
    weights->embedding().dequantize_row(i, row);
    CHECK(row == std::vector<float>(model.embedding.begin() + static_cast<std::ptrdiff_t>(i * model.hidden_dim),
                                    model.embedding.begin() + static_cast<std::ptrdiff_t>((i + 1) * model.hidden_dim)));
    weights->head().dequantize_row(i, row);
    CHECK(row == std::vector<float>(model.head.begin() + static_cast<std::ptrdiff_t>(i * model.hidden_dim),
                                    model.head.begin() + static_cast<std::ptrdiff_t>((i + 1) * model.hidden_dim)));
  }
  weights->layer(1).key.dequantize_row(0, row);
  CHECK(std::equal(row.begin(), row.end(), model.layers[1].k.begin()));
  CHECK(weights->layer(1).ffn_norm == model.layers[1].ffn_norm);
}

TEST_CASE("Without a head of its own the model projects with its embedding") {
  const auto weights = load(gguf_of(some_model(false), 64));
  CHECK(&weights->head() == &weights->embedding());
}

TEST_CASE("A fixed format loads a file of that format") {
  const NaiveLlama model = some_model(true);
  CHECK(load<F32>(gguf_of(model, 64))->layer(0).query.out_features() == model.heads * model.head_dim);
}

TEST_CASE_TEMPLATE("A file of another format is quantised to the fixed format while it loads", W, Q4_1, Q8_0, BF16) {
  const TemporaryDirectory directory;
  save_tiny_model(directory.path() / "f32.gguf");
  const MappedFile original(directory.path() / "f32.gguf");
  const GgufFile gguf = parse_gguf(original.bytes());
  ThreadPool pool(2);
  for (const GgufType type : {GgufType::f32, GgufType::f16, GgufType::bf16, GgufType::q8_0}) {
    CAPTURE(name(type));
    const auto type_of = [&](const GgufTensor& tensor) { return tensor.shape.size() == 2 ? type : tensor.type; };
    requantized(original.bytes(), gguf, type_of).save(directory.path() / "stored.gguf");
    const MappedFile file(directory.path() / "stored.gguf");
    const GgufFile stored = parse_gguf(file.bytes());
    const std::vector<std::byte> bytes(file.bytes().begin(), file.bytes().end());
    const auto weights = LlamaWeights<W>::load(file, stored, pool);
    CHECK(weights->embedding().format_name() == name(type));
    CHECK(weights->head().format_name() == name(type));

    const auto check = [&](const char* tensor_name, const PackedMatrix<W>& matrix) {
      CAPTURE(tensor_name);
      const GgufTensor& tensor = stored.require_tensor(tensor_name);
      const auto values =
          stored_floats(name(type), std::span(bytes).subspan(stored.data_offset() + tensor.offset, tensor.size_bytes));
      std::vector<typename W::Block> blocks(values.size() / W::block_size);
      std::vector<float> expected(values.size()), row(matrix.in_features());
      W::quantize(values, blocks);
      W::dequantize(blocks, expected);
      for (std::size_t n = 0; n < matrix.out_features(); ++n) {
        matrix.dequantize_row(n, row);
        CHECK(std::equal(row.begin(), row.end(), expected.begin() + static_cast<std::ptrdiff_t>(n * row.size())));
      }
    };
    check("blk.0.attn_q.weight", weights->layer(0).query);
    check("blk.2.ffn_down.weight", weights->layer(2).down);
  }
}

TEST_CASE("Rows that are no whole blocks of the fixed format are an error that names tensor, type and format") {
  const TemporaryDirectory directory;
  save_tiny_model(directory.path() / "f32.gguf");
  const MappedFile file(directory.path() / "f32.gguf");
  SerialExecutor executor;
  CHECK_THROWS_WITH_AS(
      (void)LlamaWeights<Q4_K>::load(file, parse_gguf(file.bytes()), executor),
      "tensor blk.0.attn_q.weight: type F32 with rows of 32 in a model of format Q4_K is not supported; "
      "supported: rows of a multiple of 256",
      Error);
}

TEST_CASE("A tensor that the graph does not know is an error that names it") {
  const NaiveLlama model = some_model(true);  // the writer refers to it
  GgufWriter writer = gguf_of(model, 64);
  const std::vector<float> surplus(8, 1.0f);
  writer.add_tensor("blk.0.attn_sinks.weight", GgufType::f32, {8}, std::as_bytes(std::span(surplus)));
  CHECK_THROWS_WITH_AS((void)load(writer), doctest::Contains("blk.0.attn_sinks.weight"), Error);
}

TEST_CASE("A tensor of a type without kernels is an error that names both and lists the types") {
  GgufWriter writer;
  writer.add("general.architecture", std::string("llama"));
  for (const char* key : {"block_count", "context_length", "feed_forward_length", "attention.head_count"}) {
    writer.add(std::string("llama.") + key, std::uint32_t{1});
  }
  writer.add("llama.embedding_length", std::uint32_t{256});
  writer.add("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  const std::vector<std::byte> zeros(84 * 32);  // Q2_K: 84 bytes a block of 256
  writer.add_tensor("token_embd.weight", GgufType::q2_k, {256, 32}, zeros);
  CHECK_THROWS_WITH_AS((void)load(writer), doctest::Contains("token_embd.weight: type Q2_K"), Error);
  CHECK_THROWS_WITH_AS((void)load(writer), doctest::Contains("Q4_1"), Error);
}

TEST_CASE("A misshaped tensor is named with its shape") {
  const NaiveLlama model = some_model(true);
  NaiveLlama misshaped = model;
  misshaped.layers[0].down.resize(misshaped.layers[0].down.size() - misshaped.ffn_dim);
  CHECK_THROWS_WITH_AS((void)load(gguf_of(misshaped, 64)), doctest::Contains("blk.0.ffn_down.weight has shape"), Error);
  NaiveLlama long_norm = model;
  long_norm.output_norm.push_back(1.0f);
  CHECK_THROWS_WITH_AS((void)load(gguf_of(long_norm, 64)), doctest::Contains("output_norm.weight has shape"), Error);
}
