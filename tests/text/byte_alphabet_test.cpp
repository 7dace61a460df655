#include <doctest/doctest.h>

#include <lazyllm/text/byte_alphabet.hpp>

#include "support/tokenizer_files.hpp"

#include <string>

namespace {

using lazyllm::append_bytes_from_alphabet;

TEST_CASE("Each of the 256 stand-ins gives its byte") {
  std::string expected;
  for (unsigned byte = 0; byte < 256; ++byte) expected += static_cast<char>(byte);
  std::string bytes;
  CHECK(append_bytes_from_alphabet(test::in_alphabet(expected), bytes));
  CHECK(bytes == expected);
}

TEST_CASE("The stand-ins that everybody knows give a space and a newline") {
  std::string bytes = ">";
  CHECK(append_bytes_from_alphabet("\u0120a\u010A", bytes));
  CHECK(bytes == "> a\n");
}

TEST_CASE("A character outside the alphabet leaves the bytes as they were") {
  for (const std::string text : {"ab c", "a\tb", "a\u0144", "a\u00A0", "a\u00AD", "a\u4E2D", "a\xFF", "a\x7F"}) {
    CAPTURE(text);
    std::string bytes = "before";
    CHECK_FALSE(append_bytes_from_alphabet(text, bytes));
    CHECK(bytes == "before");
  }
}

}  // namespace
