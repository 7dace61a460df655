#include <doctest/doctest.h>

#include <lazyllm/text/vocabulary.hpp>

#include <string>

namespace {

using lazyllm::TokenIndexByBytes;
using lazyllm::TokenKind;
using lazyllm::Vocabulary;

TEST_CASE("A vocabulary gives back each token's bytes and kind") {
  Vocabulary vocabulary;
  vocabulary.reserve(3, 10);
  vocabulary.add("ab", TokenKind::normal);
  vocabulary.add("", TokenKind::unused);
  vocabulary.add(std::string_view("\0\xFF", 2), TokenKind::control);
  CHECK(vocabulary.size() == 3);
  CHECK(vocabulary.bytes(0) == "ab");
  CHECK(vocabulary.bytes(1).empty());
  CHECK(vocabulary.bytes(2) == std::string_view("\0\xFF", 2));
  CHECK(vocabulary.kind(2) == TokenKind::control);
}

TEST_CASE("An id outside the vocabulary is an error that names both numbers") {
  Vocabulary vocabulary;
  vocabulary.add("a", TokenKind::normal);
  CHECK_THROWS_WITH_AS(static_cast<void>(vocabulary.bytes(1)), "token id 1 is outside the vocabulary of 1 tokens",
                       lazyllm::Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(vocabulary.kind(-1)), "token id -1 is outside the vocabulary of 1 tokens",
                       lazyllm::Error);
}

TEST_CASE("The index finds every token by its bytes and keeps the first of twins") {
  Vocabulary vocabulary;
  TokenIndexByBytes index(1000);
  for (int i = 0; i < 1000; ++i) {
    vocabulary.add("t" + std::to_string(i % 999), TokenKind::normal);
    const auto twin = index.add(vocabulary, i);
    CHECK(twin == (i < 999 ? std::nullopt : std::optional<lazyllm::TokenId>(0)));
  }
  for (int i = 0; i < 999; ++i) CHECK(index.find(vocabulary, "t" + std::to_string(i)) == i);
  CHECK_FALSE(index.find(vocabulary, "t999").has_value());
  CHECK_FALSE(TokenIndexByBytes().find(vocabulary, "t1").has_value());
}

}  // namespace
