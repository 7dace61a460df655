#include <doctest/doctest.h>

#include <lazyllm/text/streaming_decoder.hpp>

#include "support/tokenizer_files.hpp"

#include <string>
#include <vector>

namespace {

using lazyllm::StreamingDecoder;
using lazyllm::Tokenizer;

Tokenizer bytes_and_a_control_token() {
  test::VocabularyParts parts;
  for (unsigned byte = 0; byte < 256; ++byte) parts.add(test::stand_in(byte), 1);
  parts.add("<|im_end|>", 3);
  return Tokenizer::from_gguf(test::tokenizer_metadata(parts, "gpt-2").file());
}

/// What each byte of the text, as a token, gives, and last what flush gives.
std::vector<std::string> pieces(const Tokenizer& tokenizer, const std::string& text) {
  StreamingDecoder decoder(tokenizer);
  std::vector<std::string> result;
  for (const char c : text) result.push_back(decoder.push(static_cast<unsigned char>(c)));
  result.push_back(decoder.flush());
  return result;
}

using Pieces = std::vector<std::string>;

TEST_CASE("A character comes out with its last byte") {
  const Tokenizer tokenizer = bytes_and_a_control_token();
  CHECK(pieces(tokenizer, "a\u00E9\u20AC") == Pieces{"a", "", "\u00E9", "", "", "\u20AC", ""});
  CHECK(pieces(tokenizer, "\U0001F600!") == Pieces{"", "", "", "\U0001F600", "!", ""});
}

TEST_CASE("Bytes that can no longer become a character come out at once, an unfinished one at flush") {
  const Tokenizer tokenizer = bytes_and_a_control_token();
  CHECK(pieces(tokenizer, "\xFF") == Pieces{"\xFF", ""});
  CHECK(pieces(tokenizer, "\x80\xC3x") == Pieces{"\x80", "", "\xC3x", ""});
  CHECK(pieces(tokenizer, "\xE2\x82") == Pieces{"", "", "\xE2\x82"});
  CHECK(pieces(tokenizer, "\xED\xA0") == Pieces{"", "\xED\xA0", ""});
  CHECK(pieces(tokenizer, "\xF0\x9F\xC3\xA9") == Pieces{"", "", "\xF0\x9F", "\u00E9", ""});
}

TEST_CASE("A control token gives no text and does not cut a character") {
  const Tokenizer tokenizer = bytes_and_a_control_token();
  StreamingDecoder decoder(tokenizer);
  CHECK(decoder.push(0xC3).empty());
  CHECK(decoder.push(256).empty());
  CHECK(decoder.push(0xA9) == "\u00E9");
  CHECK(decoder.flush().empty());
  CHECK_THROWS_AS(static_cast<void>(decoder.push(257)), lazyllm::Error);
}

TEST_CASE("All pieces together are the decoded text, and each ends with a whole character") {
  const Tokenizer tokenizer =
      Tokenizer::from_gguf(test::tokenizer_metadata(test::synthetic_vocabulary(), "smollm").file());
  for (const std::string& text : test::corpus()) {
    const auto ids = tokenizer.encode(text);
    StreamingDecoder decoder(tokenizer);
    std::string all;
    for (const auto id : ids) {
      const std::string piece = decoder.push(id);
      CHECK(lazyllm::incomplete_utf8_suffix(piece) == 0);
      all += piece;
    }
    CHECK(decoder.flush().empty());
    CHECK(all == tokenizer.decode(ids));
  }
}

}  // namespace
