// Natural text as sentences, and words in it.
#include <doctest/doctest.h>
#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/source_text.hpp>

#include "support/eval_text.hpp"

#include <cstddef>
#include <string>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

TEST_CASE("sentences end at line ends and after '.', '?' and '!' before white space") {
  const SourceText source("One  two. Three?\n\tFour 1.5 five! six\n\n seven.eight\r\n", byte_tokenizer());
  std::vector<std::string> sentences;
  for (std::size_t i = 0; i < source.size(); ++i) sentences.push_back(source.sentence(i).text);
  CHECK(sentences == std::vector<std::string>{"One two.", "Three?", "Four 1.5 five!", "six", "seven.eight"});
  CHECK(source.sentence(6).text == "Three?");  // over and over
  CHECK(source.sentence(3).tokens == byte_tokenizer().encode(" six").size());
}

TEST_CASE("a text without words is refused") {
  CHECK_THROWS_AS(SourceText("", byte_tokenizer()), Error);
  CHECK_THROWS_AS(SourceText(" \n\t\n", byte_tokenizer()), Error);
}

TEST_CASE("a word is counted only where no letter or digit stands beside it") {
  CHECK(count_word("cat cats concat cat.", "cat") == 2);
  CHECK(count_word("12 112 1,2 12", "12") == 2);
  CHECK(count_word("caf\xC3\xA9", "caf") == 0);
  CHECK(count_word("", "cat") == 0);
}
