#include <doctest/doctest.h>

#include <lazyllm/text/pre_tokenizer.hpp>

#include "support/tokenizer_files.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace {

using lazyllm::PreTokenizer;
using Words = std::vector<std::string>;

Words words(PreTokenizer kind, std::string_view text) {
  Words result;
  lazyllm::for_each_pre_token(kind, text, [&](std::string_view word) { result.emplace_back(word); });
  return result;
}

template <class V>
concept Visitable = requires(V visit) {
  lazyllm::for_each_pre_token(PreTokenizer::gpt2, "", visit);
};
static_assert(Visitable<void (*)(std::string_view)>);
static_assert(!Visitable<void (*)(int*)>);

TEST_CASE("Pre-tokens end where the tokenizers package ends them, for each name in a GGUF file") {
  for (const std::string name : {"smollm", "gpt-2", "llama-bpe", "qwen2"}) {
    const PreTokenizer kind = lazyllm::pre_tokenizer_named(name);
    const auto expected = test::tokenizer_golden()["pre_tokens"][name].get<std::vector<std::uint32_t>>();
    REQUIRE(expected.size() == test::corpus().size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const std::string& text = test::corpus()[i];
      test::Fnv hash;
      std::string joined;
      for (const std::string& word : words(kind, text)) {
        hash.add(static_cast<std::uint32_t>(word.size()));
        joined += word;
      }
      CAPTURE(name);
      CAPTURE(text);
      CHECK(hash.value() == expected[i]);
      CHECK(joined == text);
    }
  }
}

TEST_CASE("The four pre-tokenizers differ where their expressions do") {
  const std::string text = "I'LL pay  1234\t$x\r\n\n  go";
  CHECK(words(PreTokenizer::gpt2, text) ==
        Words{"I", "'", "LL", " pay", " ", " 1234", "\t", "$", "x", "\r\n\n ", " go"});
  CHECK(words(PreTokenizer::smollm, text) ==
        Words{"I", "'", "LL", " pay", "  ", "1", "2", "3", "4", "\t", "$", "x", "\r\n\n ", " go"});
  CHECK(words(PreTokenizer::llama_bpe, text) ==
        Words{"I", "'LL", " pay", " ", " ", "123", "4", "\t", "$x", "\r\n\n", " ", " go"});
  CHECK(words(PreTokenizer::qwen2, text) ==
        Words{"I", "'LL", " pay", " ", " ", "1", "2", "3", "4", "\t", "$x", "\r\n\n", " ", " go"});
}

TEST_CASE("Any bytes are cut into words that cover them") {
  std::uint32_t state = 1;
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (int i = 0; i < 40; ++i) {
      state = state * 1664525u + 1013904223u;
      // Half arbitrary bytes, half lead and continuation bytes, spaces and quotes.
      text += (state >> 30) % 2 ? static_cast<char>(state >> 20) : "\xE2\x80\xC3 '\n1a"[(state >> 24) % 8];
    }
    for (const auto kind : {PreTokenizer::smollm, PreTokenizer::gpt2, PreTokenizer::llama_bpe, PreTokenizer::qwen2}) {
      std::string joined;
      for (const std::string& word : words(kind, text)) {
        CHECK(!word.empty());
        joined += word;
      }
      CHECK(joined == text);
    }
  }
}

TEST_CASE("An unknown pre-tokenizer is an error that lists the known ones") {
  CHECK_THROWS_WITH_AS(static_cast<void>(lazyllm::pre_tokenizer_named("deepseek-llm")),
                       "tokenizer.ggml.pre is \"deepseek-llm\"; supported are smollm, gpt-2, llama-bpe, qwen2",
                       lazyllm::Error);
}

}  // namespace
