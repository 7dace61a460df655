#include <lazyllm/llama/config.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

using namespace lazyllm;

namespace {

std::vector<GgufEntry> entries(const std::string& architecture = "llama") {
  const auto key = [&](const char* name) { return architecture + "." + name; };
  return {{"general.architecture", architecture},
          {key("block_count"), std::uint32_t{30}},
          {key("context_length"), std::uint32_t{8192}},
          {key("embedding_length"), std::uint32_t{576}},
          {key("feed_forward_length"), std::uint32_t{1536}},
          {key("attention.head_count"), std::uint32_t{9}},
          {key("attention.head_count_kv"), std::uint32_t{3}},
          {key("attention.layer_norm_rms_epsilon"), 1e-5f},
          {key("rope.freq_base"), 100000.0f}};
}

LlamaConfig read(std::vector<GgufEntry> metadata) {
  std::vector<GgufTensor> tensors{{"token_embd.weight", GgufType::f32, {576, 49152}, 0, 576ull * 49152 * 4}};
  return LlamaConfig::from_gguf(GgufFile(3, 32, std::move(metadata), std::move(tensors)));
}

/// The standard entries with one changed or added.
LlamaConfig read_with(const std::string& key, GgufValue value) {
  std::vector<GgufEntry> metadata = entries();
  const auto place = std::find_if(metadata.begin(), metadata.end(), [&](const auto& e) { return e.key == key; });
  if (place != metadata.end()) {
    place->value = std::move(value);
  } else {
    metadata.push_back({key, std::move(value)});
  }
  return read(std::move(metadata));
}

}  // namespace

TEST_CASE("A configuration has the file's sizes, and defaults for what may be left out") {
  const LlamaConfig config = read(entries());
  CHECK(config.layers == 30);
  CHECK(config.hidden_dim == 576);
  CHECK(config.heads == 9);
  CHECK(config.kv_heads == 3);
  CHECK(config.head_dim == 64);
  CHECK(config.rope_dim == 64);
  CHECK(config.ffn_dim == 1536);
  CHECK(config.vocab_size == 49152);
  CHECK(config.context_length == 8192);
  CHECK(config.rope_base == 100000.0f);
  CHECK(config.norm_epsilon == 1e-5f);
  CHECK(config.rope_pairing == RopePairing::neighbours);
  CHECK(read_with("llama.attention.key_length", std::uint32_t{80}).head_dim == 80);
}

TEST_CASE("Qwen2 files have their own prefix and turn halves") {
  const LlamaConfig config = read(entries("qwen2"));
  CHECK(config.layers == 30);
  CHECK(config.rope_pairing == RopePairing::halves);
}

TEST_CASE("What the graph does not compute is an error that names it and lists what is supported") {
  const auto unsupported = [](const std::string& key, GgufValue value, const char* named) {
    CAPTURE(key);
    try {
      (void)read_with(key, std::move(value));
      FAIL("accepted");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::unsupported);
      CHECK(std::string(error.what()).find(named) != std::string::npos);
      CHECK(std::string(error.what()).find("supported: ") != std::string::npos);
    }
  };
  unsupported("general.architecture", std::string("gemma"), "gemma");
  unsupported("split.count", std::uint16_t{2}, "split.count 2");
  unsupported("llama.rope.scaling.type", std::string("yarn"), "yarn");
  unsupported("llama.rope.scaling.type", std::string("linear"), "linear");
  unsupported("llama.rope.scale_linear", 4.0f, "scale_linear");
  unsupported("llama.attention.sliding_window", std::uint32_t{4096}, "4096");
  unsupported("llama.expert_count", std::uint32_t{8}, "expert_count 8");
  unsupported("llama.attention.causal", false, "causal");
  unsupported("llama.attention.value_length", std::uint32_t{128}, "128");
  unsupported("llama.attention.key_length", std::uint32_t{60}, "60");
  unsupported("llama.attention.key_length", std::uint32_t{512}, "512");
}

TEST_CASE("Sizes that do not fit together are errors") {
  CHECK_THROWS_WITH_AS((void)read_with("llama.attention.head_count_kv", std::uint32_t{2}),
                       doctest::Contains("multiple"), Error);
  CHECK_THROWS_AS((void)read_with("llama.attention.head_count", std::uint32_t{7}), Error);
  CHECK_THROWS_AS((void)read_with("llama.block_count", std::uint32_t{0}), Error);
  CHECK_THROWS_AS((void)read_with("llama.block_count", std::uint64_t{1} << 40), Error);
  CHECK_THROWS_AS((void)read_with("llama.attention.head_count_kv", std::uint32_t{0}), Error);
  CHECK_THROWS_AS((void)read_with("llama.rope.dimension_count", std::uint32_t{66}), Error);
  CHECK_THROWS_AS((void)read_with("llama.rope.dimension_count", std::uint32_t{63}), Error);
  CHECK_THROWS_AS((void)read_with("llama.rope.freq_base", -1.0f), Error);
  CHECK_THROWS_AS((void)read_with("llama.block_count", std::string("thirty")), Error);
}

TEST_CASE("A required key or the embedding that is missing is named") {
  for (const char* key : {"general.architecture", "llama.block_count", "llama.attention.layer_norm_rms_epsilon"}) {
    std::vector<GgufEntry> metadata = entries();
    std::erase_if(metadata, [&](const GgufEntry& e) { return e.key == key; });
    CHECK_THROWS_WITH_AS((void)read(metadata), doctest::Contains(key), Error);
  }
  CHECK_THROWS_WITH_AS((void)LlamaConfig::from_gguf(GgufFile(3, 32, entries(), {})),
                       doctest::Contains("token_embd.weight"), Error);
}
