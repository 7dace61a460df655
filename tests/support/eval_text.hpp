// What the tests of generated tasks share: a tokenizer of bytes and a few merges, natural text, the place of words.
#pragma once

#include <lazyllm/core/types.hpp>
#include <lazyllm/text/tokenizer.hpp>

#include "support/tokenizer_files.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace lazyllm::test {

inline const Tokenizer& byte_tokenizer() {
  static const Tokenizer tokenizer =
      Tokenizer::from_gguf(::test::tokenizer_metadata(::test::synthetic_vocabulary(), "gpt-2").file());
  return tokenizer;
}

/// A stretch of Genesis, with a number and a city that tasks may ask for.
inline constexpr std::string_view natural_text =
    "In the beginning God created the heaven and the earth. And the earth was without form, and void;\n"
    "and darkness was upon the face of the deep. And God said, Let there be light: and there was light!\n"
    "And God saw the light, that it was good? And God divided the light from the darkness.\n\n"
    "And God called the light Day, and the darkness he called Night. In 1611 it was told in Lisbon.\n"
    "And the evening and the morning were the first day. And God made the firmament.";

/// The first of the tokens that hold `word` in the text of `ids`, and the one after the last of them.
struct TokenSpan {
  TokenIndex begin = 0;
  TokenIndex end = 0;
};
inline TokenSpan find_tokens(const Tokenizer& tokenizer, std::span<const TokenId> ids, std::string_view word) {
  const std::size_t begin = tokenizer.decode(ids, true).find(word);
  const std::size_t end = begin + word.size();
  TokenSpan span{static_cast<TokenIndex>(ids.size()), 0};
  std::size_t at = 0;
  for (TokenIndex i = 0; i < ids.size(); ++i) {
    const std::size_t after = at + tokenizer.piece(ids[i]).size();
    if (after > begin && at < end) span = {std::min(span.begin, i), i + 1};
    at = after;
  }
  return span;
}

}  // namespace lazyllm::test
