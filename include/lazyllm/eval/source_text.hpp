// Natural text as a list of sentences, each with its number of tokens: what documents are filled with.
// A sentence ends at a line's end or after '.', '?' or '!' before white space; white space inside is one space each.
// Source: this library's; any text will do, the more the better.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/text/tokenizer.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

class SourceText {
 public:
  struct Sentence {
    std::string text;
    std::size_t tokens;  ///< with a space before it
  };

  /// Throws Error (invalid_argument) for a text without words.
  SourceText(std::string_view text, const Tokenizer& tokenizer) {
    std::string sentence;
    const auto end_sentence = [&] {
      if (sentence.empty()) return;
      const std::size_t tokens = tokenizer.encode(" " + sentence, {.add_special = false}).size();
      sentences_.push_back({std::exchange(sentence, {}), tokens});
    };
    bool space = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (is_space(text[i])) {
        space = true;
        if (text[i] == '\n') end_sentence();
        continue;
      }
      if (space && !sentence.empty()) sentence += ' ';
      space = false;
      sentence += text[i];
      const bool before_space = i + 1 == text.size() || is_space(text[i + 1]);
      if (before_space && (text[i] == '.' || text[i] == '?' || text[i] == '!')) end_sentence();
    }
    end_sentence();
    if (sentences_.empty()) throw Error(ErrorCode::invalid_argument, "the text for the documents has no words");
  }

  [[nodiscard]] std::size_t size() const { return sentences_.size(); }
  /// Sentence `index` of the text over and over.
  [[nodiscard]] const Sentence& sentence(std::size_t index) const { return sentences_[index % sentences_.size()]; }

 private:
  static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

  std::vector<Sentence> sentences_;
};

/// How often `word` stands in `text` without a letter or digit beside it.
[[nodiscard]] inline std::size_t count_word(std::string_view text, std::string_view word) {
  const auto in_word = [&](std::size_t at) {
    const auto c = static_cast<unsigned char>(text[at]);
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c >= 0x80;
  };
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(word, at)) != std::string_view::npos; at += word.size()) {
    const std::size_t end = at + word.size();
    if ((at == 0 || !in_word(at - 1)) && (end == text.size() || !in_word(end))) ++count;
  }
  return count;
}

}  // namespace lazyllm::inline v0
