#include <doctest/doctest.h>

#include <lazyllm/io/gguf_parse.hpp>
#include <lazyllm/io/mapped_file.hpp>
#include <lazyllm/text/tokenizer.hpp>

#include "support/real_model.hpp"
#include "support/tokenizer_files.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace {

using lazyllm::Error;
using lazyllm::TokenId;
using lazyllm::Tokenizer;
using Ids = std::vector<TokenId>;

constexpr const char* pre_names[] = {"smollm", "gpt-2", "llama-bpe", "qwen2"};

Tokenizer synthetic(const std::string& pre) {
  return Tokenizer::from_gguf(test::tokenizer_metadata(test::synthetic_vocabulary(), pre).file());
}

/// Two letters, their merge, a control token; ids 0 to 255 are the bytes.
test::VocabularyParts tiny_vocabulary() {
  test::VocabularyParts parts;
  for (unsigned byte = 0; byte < 256; ++byte) parts.add(test::stand_in(byte), 1);
  parts.add("ab", 1);
  parts.merges = {"a b"};
  parts.add("<|endoftext|>", 3);
  return parts;
}

std::uint32_t hash_of(const Ids& ids) {
  test::Fnv hash;
  for (const TokenId id : ids) hash.add(static_cast<std::uint32_t>(id));
  return hash.value();
}

std::string message_of(const test::Metadata& metadata) {
  try {
    static_cast<void>(Tokenizer::from_gguf(metadata.file()));
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_CASE("Ids equal those of the tokenizers package on a synthetic vocabulary, for each pre-tokenizer") {
  for (const std::string pre : pre_names) {
    CAPTURE(pre);
    const Tokenizer tokenizer = synthetic(pre);
    const auto expected = test::tokenizer_golden()["synthetic"][pre].get<std::vector<std::uint32_t>>();
    REQUIRE(expected.size() == test::corpus().size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const std::string& text = test::corpus()[i];
      CAPTURE(text);
      const Ids ids = tokenizer.encode(text);
      CHECK(hash_of(ids) == expected[i]);
      CHECK(tokenizer.decode(ids, true) == text);
    }
  }
  const Tokenizer llama = synthetic("llama-bpe");
  const auto first = test::tokenizer_golden()["synthetic_first"].get<std::vector<Ids>>();
  for (std::size_t i = 0; i < first.size(); ++i) CHECK(llama.encode(test::corpus()[i]) == first[i]);
}

TEST_CASE("Without parse_special control tokens are text and user-defined ones still tokens") {
  for (const std::string pre : pre_names) {
    const Tokenizer tokenizer = synthetic(pre);
    const auto& golden = test::tokenizer_golden()["synthetic_without_control"][pre];
    CHECK(golden.size() > 20);
    for (const auto& [index, hash] : golden.get<std::vector<std::pair<std::size_t, std::uint32_t>>>()) {
      const std::string& text = test::corpus()[index];
      CAPTURE(text);
      const Ids ids = tokenizer.encode(text, {.parse_special = false});
      CHECK(hash_of(ids) == hash);
      CHECK(tokenizer.decode(ids) == text);
    }
  }
}

TEST_CASE("Ids of the real model equal those of the tokenizers package") {
  const auto path = real_model_path();
  if (!path) {
    MESSAGE("skipped: LAZYLLM_MODEL is not set");
    return;
  }
  const lazyllm::MappedFile file(*path);
  const Tokenizer tokenizer = Tokenizer::from_gguf(lazyllm::parse_gguf(file.bytes()));
  if (tokenizer.vocab_size() != 49152 || tokenizer.pre_tokenizer() != lazyllm::PreTokenizer::smollm) {
    MESSAGE("skipped: LAZYLLM_MODEL is not SmolLM2");
    return;
  }
  const auto first = test::tokenizer_golden()["smollm2_first"].get<std::vector<Ids>>();
  for (std::size_t i = 0; i < first.size(); ++i) CHECK(tokenizer.encode(test::corpus()[i]) == first[i]);
  const auto expected = test::tokenizer_golden()["smollm2"].get<std::vector<std::uint32_t>>();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const std::string& text = test::corpus()[i];
    CAPTURE(text);
    const Ids ids = tokenizer.encode(text);
    CHECK(hash_of(ids) == expected[i]);
    if (tokenizer.missing_bytes(text) == 0) CHECK(tokenizer.decode(ids, true) == text);
  }
  CHECK(tokenizer.eos() == 2);
  CHECK(tokenizer.is_end_of_generation(0));
  CHECK(tokenizer.is_end_of_generation(*tokenizer.find("<|im_end|>")));
  CHECK_FALSE(tokenizer.is_end_of_generation(*tokenizer.find("<|im_start|>")));
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) every_byte += static_cast<char>(byte);
  CHECK(tokenizer.missing_bytes(every_byte) == 21);
}

TEST_CASE("Any bytes survive encoding and decoding, valid UTF-8 or not") {
  std::uint32_t state = 3;
  for (const std::string pre : pre_names) {
    const Tokenizer tokenizer = synthetic(pre);
    for (int round = 0; round < 100; ++round) {
      std::string text;
      for (int i = 0; i < 60; ++i) {
        state = state * 1664525u + 1013904223u;
        text += (state >> 30) % 2 ? static_cast<char>(state >> 20) : "the \xE2\x80\xF0"[(state >> 24) % 7];
      }
      CHECK(tokenizer.missing_bytes(text) == 0);
      CHECK(tokenizer.decode(tokenizer.encode(text, {.parse_special = false})) == text);
    }
  }
}

TEST_CASE("Long runs of one character are encoded in full by every pre-tokenizer") {
  for (const std::string pre : pre_names) {
    const Tokenizer tokenizer = synthetic(pre);
    for (const char c : {'a', ' ', '\n', '1', '!', '<', '\'', '\xFF'}) {
      const std::string text(100000, c);
      CHECK(tokenizer.decode(tokenizer.encode(text), true) == text);
    }
  }
}

TEST_CASE("A byte that the vocabulary lacks is left out and counted") {
  test::VocabularyParts parts = tiny_vocabulary();
  parts.tokens[0x04] = test::in_alphabet("zz");  // no token for byte 4 any more
  const Tokenizer tokenizer = Tokenizer::from_gguf(test::tokenizer_metadata(parts, "gpt-2").file());
  CHECK(tokenizer.missing_bytes("\x04 a\x04") == 2);
  // As in the tokenizers package, the neighbours merge within one pre-token.
  CHECK(tokenizer.encode("\xFF\x04\xFE") == Ids{0xFF, 0xFE});
}

TEST_CASE("Begin and end tokens are added where the file says, unless the caller says otherwise") {
  auto metadata = test::tokenizer_metadata(tiny_vocabulary(), "gpt-2");
  metadata.set("tokenizer.ggml.bos_token_id", std::uint32_t{257})
      .set("tokenizer.ggml.eos_token_id", std::uint32_t{'!'});
  CHECK(Tokenizer::from_gguf(metadata.file()).encode("ab") == Ids{256});
  metadata.set("tokenizer.ggml.add_bos_token", true).set("tokenizer.ggml.add_eos_token", true);
  const Tokenizer tokenizer = Tokenizer::from_gguf(metadata.file());
  CHECK(tokenizer.encode("ab") == Ids{257, 256, '!'});
  CHECK(tokenizer.encode("") == Ids{257, '!'});
  CHECK(tokenizer.encode("ab", {.add_special = false}) == Ids{256});
  CHECK(tokenizer.bos() == 257);
  CHECK(tokenizer.eos() == '!');

  metadata.erase("tokenizer.ggml.add_bos_token").erase("tokenizer.ggml.add_eos_token");
  CHECK(Tokenizer::from_gguf(metadata.file()).encode("ab") == Ids{256});
  metadata.set("tokenizer.ggml.pre", std::string("llama-bpe"));
  CHECK(Tokenizer::from_gguf(metadata.file()).encode("ab") == Ids{257, 256});
}

TEST_CASE("Control, unknown and unused tokens carry no text; user-defined ones do") {
  test::VocabularyParts parts = tiny_vocabulary();
  parts.add("<unk>", 2);
  parts.add("<tool call>", 4);
  parts.add("[PAD1]", 5);
  const Tokenizer tokenizer = Tokenizer::from_gguf(test::tokenizer_metadata(parts, "qwen2").file());
  CHECK(tokenizer.vocab_size() == 261);
  const Ids ids = {'x', 257, 258, 259, 260, 256};
  CHECK(tokenizer.decode(ids) == "x<tool call>ab");
  CHECK(tokenizer.decode(ids, true) == "x<|endoftext|><unk><tool call>[PAD1]ab");
  CHECK(tokenizer.piece(259) == "<tool call>");
  CHECK(tokenizer.is_control(257));
  CHECK_FALSE(tokenizer.is_control(259));
  CHECK(tokenizer.find("<tool call>") == 259);
  CHECK_FALSE(tokenizer.find("ab").has_value());
  CHECK_FALSE(tokenizer.find("[PAD1]").has_value());
  CHECK(tokenizer.encode("[PAD1]").size() == 6);
  CHECK(tokenizer.is_end_of_generation(257));
  CHECK_FALSE(tokenizer.is_end_of_generation(256));
}

TEST_CASE("An id outside the vocabulary is an error") {
  const Tokenizer tokenizer = Tokenizer::from_gguf(test::tokenizer_metadata(tiny_vocabulary(), "gpt-2").file());
  CHECK_THROWS_AS(static_cast<void>(tokenizer.decode(Ids{258})), Error);
  CHECK_THROWS_AS(static_cast<void>(tokenizer.piece(-1)), Error);
  CHECK_THROWS_AS(static_cast<void>(tokenizer.is_control(258)), Error);
  CHECK_THROWS_AS(static_cast<void>(tokenizer.is_end_of_generation(-1)), Error);
}

TEST_CASE("What a file asks for and this library does not do is named") {
  const auto base = test::tokenizer_metadata(tiny_vocabulary(), "gpt-2");
  const auto with = [&](const char* key, lazyllm::GgufValue value) {
    auto metadata = base;
    return message_of(metadata.set(key, std::move(value)));
  };
  const auto without = [&](const char* key) {
    auto metadata = base;
    return message_of(metadata.erase(key));
  };
  using lazyllm::GgufArray;
  using Strings = std::vector<std::string>;
  CHECK(message_of(base) == "no error");
  CHECK(with("tokenizer.ggml.model", std::string("llama")) ==
        "tokenizer.ggml.model is \"llama\"; supported is gpt2 (byte-level BPE)");
  CHECK(with("tokenizer.ggml.pre", std::string("default")) ==
        "tokenizer.ggml.pre is \"default\"; supported are smollm, gpt-2, llama-bpe, qwen2");
  CHECK(without("tokenizer.ggml.pre") == "GGUF key tokenizer.ggml.pre is missing, wanted string");
  CHECK(without("tokenizer.ggml.merges") == "GGUF key tokenizer.ggml.merges is missing, wanted array of string");
  CHECK(without("tokenizer.ggml.token_type") == "no error");
  CHECK(with("tokenizer.ggml.add_space_prefix", true) == "tokenizer.ggml.add_space_prefix is true; supported is false");
  CHECK(with("tokenizer.ggml.token_type", GgufArray(std::vector<std::int32_t>(257, 1))) ==
        "tokenizer.ggml.token_type has 257 entries, tokenizer.ggml.tokens 258");
  CHECK(with("tokenizer.ggml.token_type", GgufArray(std::vector<std::int32_t>(258, 7))) ==
        "tokenizer.ggml.token_type[0] is 7, not 1 to 6");
  for (const char* merge : {"a q\u0144", "ab", "a b c", "b a", " ", "a ", ""}) {
    CHECK(with("tokenizer.ggml.merges", GgufArray(Strings{"a b", merge})) ==
          "tokenizer.ggml.merges[1] \"" + std::string(merge) + "\" does not merge two tokens into a third");
  }
  CHECK(with("tokenizer.ggml.merges", GgufArray(Strings{"a b", "a b"})) ==
        "tokenizer.ggml.merges: entries 0 and 1 merge the same pair");
  CHECK(with("tokenizer.ggml.eos_token_id", std::uint32_t{258}) ==
        "tokenizer.ggml.eos_token_id is 258, the vocabulary has 258 tokens");
  CHECK(with("tokenizer.ggml.add_bos_token", true) == "tokenizer.ggml.bos_token_id is missing, to be added");
  CHECK(with("tokenizer.ggml.add_eos_token", true) == "tokenizer.ggml.eos_token_id is missing, to be added");

  auto twins = tiny_vocabulary();
  twins.add("ab", 1);
  CHECK(message_of(test::tokenizer_metadata(twins, "gpt-2")) ==
        "tokenizer.ggml.tokens: entries 256 and 258 are the same token");
}

}  // namespace
