// What the tests of text/ share: the golden data of tests/golden/make_tokenizer_golden.py and GGUF files built from it.
#pragma once

#include <nlohmann/json.hpp>

#include <lazyllm/io/gguf.hpp>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace test {

inline nlohmann::json read_json(const std::string& name) {
  std::ifstream file(std::string(LAZYLLM_TEST_DATA) + "/" + name, std::ios::binary);
  return nlohmann::json::parse(file);
}

/// The corpus: texts of every script, white space, numbers, emoji, code, random mixtures.
inline const std::vector<std::string>& corpus() {
  static const auto texts = read_json("tokenizer_corpus.json").get<std::vector<std::string>>();
  return texts;
}

inline const nlohmann::json& tokenizer_golden() {
  static const nlohmann::json golden = read_json("tokenizer_golden.json");
  return golden;
}

/// 32-bit FNV-1a of numbers, each as four bytes, as in the script.
class Fnv {
 public:
  void add(std::uint32_t value) {
    for (int byte = 0; byte < 4; ++byte, value >>= 8) state_ = (state_ ^ (value & 0xFFu)) * 0x01000193u;
  }
  [[nodiscard]] std::uint32_t value() const { return state_; }

 private:
  std::uint32_t state_ = 0x811C9DC5u;
};

/// The stand-in of a byte in vocabularies, written down independently of the library.
inline std::string stand_in(unsigned byte) {
  unsigned code_point = byte;
  const auto printable = [](unsigned b) { return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE; };
  if (!printable(byte)) {
    code_point = 0x100;
    for (unsigned b = 0; b < byte; ++b) code_point += printable(b) ? 0 : 1;
  }
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  return {static_cast<char>(0xC0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 0x3F))};
}

inline std::string in_alphabet(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) text += stand_in(static_cast<unsigned char>(c));
  return text;
}

/// Metadata of a file under construction.
struct Metadata {
  std::vector<lazyllm::GgufEntry> entries;

  Metadata& set(const std::string& key, lazyllm::GgufValue value) {
    erase(key);
    entries.push_back({key, std::move(value)});
    return *this;
  }
  Metadata& erase(const std::string& key) {
    std::erase_if(entries, [&](const auto& entry) { return entry.key == key; });
    return *this;
  }
  [[nodiscard]] lazyllm::GgufFile file() const { return {3, 0, entries, {}}; }
};

struct VocabularyParts {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> kinds;
  std::vector<std::string> merges;
  void add(const std::string& token, std::int32_t kind) {
    tokens.push_back(token);
    kinds.push_back(kind);
  }
};

inline Metadata tokenizer_metadata(const VocabularyParts& parts, const std::string& pre) {
  Metadata metadata;
  metadata.set("tokenizer.ggml.model", std::string("gpt2"))
      .set("tokenizer.ggml.pre", pre)
      .set("tokenizer.ggml.tokens", lazyllm::GgufArray(parts.tokens))
      .set("tokenizer.ggml.token_type", lazyllm::GgufArray(parts.kinds))
      .set("tokenizer.ggml.merges", lazyllm::GgufArray(parts.merges))
      .set("tokenizer.ggml.add_bos_token", false);
  return metadata;
}

/// The synthetic vocabulary of the golden data: 256 bytes, merges, whole words without merges, control, user-defined.
inline VocabularyParts synthetic_vocabulary() {
  const nlohmann::json& golden = tokenizer_golden();
  VocabularyParts parts;
  // The stand-ins in order of their code points: those with one byte in UTF-8 first, then the two-byte ones.
  std::vector<std::string> bytes;
  for (unsigned byte = 0; byte < 256; ++byte) bytes.push_back(stand_in(byte));
  std::sort(bytes.begin(), bytes.end());
  for (const std::string& byte : bytes) parts.add(byte, 1);
  for (const std::string merge : golden["merges"]) {
    parts.merges.push_back(merge);
    const std::size_t space = merge.find(' ');
    const std::string result = merge.substr(0, space) + merge.substr(space + 1);
    if (std::find(parts.tokens.begin(), parts.tokens.end(), result) == parts.tokens.end()) parts.add(result, 1);
  }
  for (const std::string word : golden["whole_words"]) parts.add(word, 1);
  for (const std::string name : golden["control"]) parts.add(name, 3);
  for (const std::string name : golden["user_defined"]) parts.add(name, 4);
  return parts;
}

}  // namespace test
