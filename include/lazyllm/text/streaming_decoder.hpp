// Turns generated tokens into text piece by piece, so that every piece ends with a whole UTF-8 character.
// At most three bytes are held back, and only while further bytes may complete them.
// Source: the byte-level tokens of text/tokenizer.hpp, which may end inside a character.
#pragma once

#include <lazyllm/core/types.hpp>
#include <lazyllm/text/tokenizer.hpp>
#include <lazyllm/text/utf8.hpp>

#include <cstddef>
#include <string>
#include <utility>

namespace lazyllm::inline v0 {

/// All pieces together are exactly `tokenizer.decode(ids)`; bytes that are no UTF-8 come out as they are.
/// Refers to the tokenizer, which must outlive it.
class StreamingDecoder {
 public:
  explicit StreamingDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  /// The text that this token completes, often empty. Control tokens give nothing. Throws Error (invalid_argument) for
  /// an id outside the vocabulary.
  [[nodiscard]] std::string push(TokenId id) {
    if (tokenizer_->is_control(id)) return {};
    held_ += tokenizer_->piece(id);
    const std::size_t complete = held_.size() - incomplete_utf8_suffix(held_);
    std::string text = held_.substr(0, complete);
    held_.erase(0, complete);
    return text;
  }

  /// What was held back; the decoder is then as new.
  [[nodiscard]] std::string flush() { return std::exchange(held_, {}); }

 private:
  const Tokenizer* tokenizer_;
  std::string held_;
};

}  // namespace lazyllm::inline v0
