// Encoding, decoding, loading and sampling. Named tokenizer/<what>/<text>/bytes:<n> and sampler/<options>/vocab:<n>.
// With LAZYLLM_MODEL the tokenizer is that file's, else a small one whose merges spell a few words.
#include <benchmark/benchmark.h>

#include <lazyllm/io/gguf_parse.hpp>
#include <lazyllm/io/mapped_file.hpp>
#include <lazyllm/text/sampler.hpp>
#include <lazyllm/text/tokenizer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace lazyllm;

constexpr std::string_view sentence =
    "The quick brown fox jumps over 13 lazy dogs; it's \"fun\" (isn't it?) and costs $4.50.\n\tNaïve café — 東京 😀 ";

/// A token for each byte, and for each word of the sentence the merges that spell it from left to right.
GgufFile small_vocabulary() {
  std::vector<std::string> tokens;
  std::vector<std::string> merges;
  for (unsigned c = 0; c < detail::byte_alphabet_end; ++c) {
    if (detail::byte_of_character[c] < 0) continue;
    if (c < 0x80)
      tokens.push_back({static_cast<char>(c)});
    else
      tokens.push_back({static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3F))});
  }
  for (const std::string_view word : {"the", "quick", "brown", "jumps", "over", "lazy", "dogs", "costs", "and"}) {
    std::string left = "\u0120";
    for (const char c : word) {
      if (std::find(tokens.begin(), tokens.end(), left + c) == tokens.end()) {
        merges.push_back(left + " " + c);
        tokens.push_back(left + c);
      }
      left += c;
    }
  }
  return {3,
          0,
          {{"tokenizer.ggml.model", std::string("gpt2")},
           {"tokenizer.ggml.pre", std::string("smollm")},
           {"tokenizer.ggml.tokens", GgufArray(tokens)},
           {"tokenizer.ggml.merges", GgufArray(merges)}},
          {}};
}

const GgufFile& vocabulary_file() {
  static const GgufFile file = [] {
    const char* path = std::getenv("LAZYLLM_MODEL");
    return path != nullptr && *path != '\0' ? parse_gguf(MappedFile(path).bytes()) : small_vocabulary();
  }();
  return file;
}

const Tokenizer& tokenizer() {
  static const Tokenizer loaded = Tokenizer::from_gguf(vocabulary_file());
  return loaded;
}

std::string prose(std::size_t size_bytes) {
  std::string text;
  while (text.size() < size_bytes) text += sentence;
  return text;
}

void set_speed(benchmark::State& state, std::size_t size_bytes, std::size_t tokens) {
  state.SetBytesProcessed(static_cast<std::int64_t>(static_cast<std::size_t>(state.iterations()) * size_bytes));
  state.counters["tok/s"] = benchmark::Counter(
      static_cast<double>(static_cast<std::size_t>(state.iterations()) * tokens), benchmark::Counter::kIsRate);
}

void encode(benchmark::State& state, const std::string& text) {
  std::size_t tokens = 0;
  for (auto _ : state) tokens = tokenizer().encode(text).size();
  set_speed(state, text.size(), tokens);
}

void encode_prose(benchmark::State& state) { encode(state, prose(static_cast<std::size_t>(state.range(0)))); }

/// One word of equal characters: the worst case for the merges. Time per byte may grow with the logarithm only.
void encode_one_word(benchmark::State& state) {
  encode(state, std::string(static_cast<std::size_t>(state.range(0)), 'a'));
}

void decode(benchmark::State& state) {
  const std::string text = prose(static_cast<std::size_t>(state.range(0)));
  const auto ids = tokenizer().encode(text);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer().decode(ids));
  set_speed(state, text.size(), ids.size());
}

void load(benchmark::State& state) {
  const GgufFile& file = vocabulary_file();
  for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::from_gguf(file));
  state.counters["tokens"] = static_cast<double>(tokenizer().vocab_size());
}

void sample(benchmark::State& state, SamplerOptions options) {
  std::vector<float> logits(49152);
  std::uint32_t bits = 1;
  for (float& logit : logits) {
    bits = bits * 1664525u + 1013904223u;
    logit = static_cast<float>(bits >> 8) * 0x1p-20f - 8;
  }
  Sampler sampler(options);
  for (auto _ : state) benchmark::DoNotOptimize(sampler.sample(logits));
}

BENCHMARK(encode_prose)->Name("tokenizer/encode/prose/bytes")->Arg(1000)->Arg(16000);
BENCHMARK(encode_one_word)->Name("tokenizer/encode/one_word/bytes")->Arg(1000)->Arg(100000);
BENCHMARK(decode)->Name("tokenizer/decode/prose/bytes")->Arg(16000);
BENCHMARK(load)->Name("tokenizer/load")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(sample, default, SamplerOptions{})->Name("sampler/default/vocab:49152");
BENCHMARK_CAPTURE(sample, greedy, SamplerOptions{.temperature = 0})->Name("sampler/greedy/vocab:49152");
BENCHMARK_CAPTURE(sample, no_top_k, SamplerOptions{.top_k = 0})->Name("sampler/no_top_k/vocab:49152");

}  // namespace
