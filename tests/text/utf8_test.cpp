#include <doctest/doctest.h>

#include <lazyllm/text/utf8.hpp>

#include "support/tokenizer_files.hpp"

#include <string>

namespace {

using lazyllm::CharClass;
using lazyllm::read_utf8;

std::string encoded(std::uint32_t c) {
  const auto byte = [](std::uint32_t value) { return static_cast<char>(value); };
  if (c < 0x80) return {byte(c)};
  if (c < 0x800) return {byte(0xC0 | (c >> 6)), byte(0x80 | (c & 63))};
  if (c < 0x10000) return {byte(0xE0 | (c >> 12)), byte(0x80 | ((c >> 6) & 63)), byte(0x80 | (c & 63))};
  return {byte(0xF0 | (c >> 18)), byte(0x80 | ((c >> 12) & 63)), byte(0x80 | ((c >> 6) & 63)), byte(0x80 | (c & 63))};
}

TEST_CASE("Every code point has the class that the tokenizers package gives it") {
  test::Fnv hash;
  for (std::uint32_t c = 0; c < 0x110000; ++c) hash.add(static_cast<std::uint32_t>(lazyllm::classify(c)));
  CHECK(hash.value() == test::tokenizer_golden()["classes"].get<std::uint32_t>());
  CHECK(lazyllm::classify(0x110000) == CharClass::other);
  CHECK(lazyllm::classify(lazyllm::invalid_code_point) == CharClass::other);
}

TEST_CASE("Numbers that are new in Unicode 17 are late numbers") {
  CHECK(lazyllm::classify(0x11DE0) == CharClass::late_number);
  CHECK(lazyllm::classify(0x16FF6) == CharClass::late_number);
  CHECK(lazyllm::classify(0x116D0) == CharClass::number);  // Unicode 16
}

TEST_CASE("Every code point but the surrogates is read back from its UTF-8 form") {
  for (std::uint32_t c = 0; c < 0x110000; ++c) {
    const std::string text = encoded(c) + "x";
    const auto read = read_utf8(text, 0);
    const bool surrogate = c >= 0xD800 && c < 0xE000;
    const bool right = surrogate ? read.code_point == lazyllm::invalid_code_point && read.size_bytes == 1
                                 : read.code_point == c && read.size_bytes == text.size() - 1;
    if (!right) FAIL_CHECK("code point " << c);
  }
}

TEST_CASE("A byte that starts no valid sequence is one character of its own") {
  for (const std::string text :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\x80", "\xED\xA0\x80", "\xF0\x8F\x80\x80", "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80", "\xFF", "\xC3", "\xE2\x82", "\xF0\x9F\x98", "\xE2\x28\xA1", "\xC3\x41"}) {
    CAPTURE(text);
    const auto read = read_utf8(text, 0);
    CHECK(read.code_point == lazyllm::invalid_code_point);
    CHECK(read.size_bytes == 1);
    CHECK(read.char_class == CharClass::other);
  }
}

TEST_CASE("An incomplete suffix is what further bytes may complete, and nothing else") {
  using lazyllm::incomplete_utf8_suffix;
  CHECK(incomplete_utf8_suffix("") == 0);
  CHECK(incomplete_utf8_suffix("abc") == 0);
  CHECK(incomplete_utf8_suffix("\xC3") == 1);
  CHECK(incomplete_utf8_suffix("a\xE2") == 1);
  CHECK(incomplete_utf8_suffix("a\xE2\x82") == 2);
  CHECK(incomplete_utf8_suffix("a\xE2\x82\xAC") == 0);
  CHECK(incomplete_utf8_suffix("\xF0\x9F\x98") == 3);
  CHECK(incomplete_utf8_suffix("\xF0\x9F\x98\x80") == 0);
  CHECK(incomplete_utf8_suffix("\x80\x80\x80\x80") == 0);
  CHECK(incomplete_utf8_suffix("\xC0") == 0);          // never a lead byte
  CHECK(incomplete_utf8_suffix("\xF5") == 0);          // beyond the last code point
  CHECK(incomplete_utf8_suffix("\xE0\x80") == 0);      // overlong
  CHECK(incomplete_utf8_suffix("\xED\xA0") == 0);      // a surrogate
  CHECK(incomplete_utf8_suffix("\xF4\x90") == 0);      // beyond the last code point
  CHECK(incomplete_utf8_suffix("\xC3\xA9\x80") == 0);  // a complete character, then a stray byte
}

}  // namespace
