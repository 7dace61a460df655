// UTF-8 read one character at a time, and the character classes that the pre-tokenizers' regular expressions name.
// A byte that starts no valid sequence is a character of its own, of class `other`: every text can be read to its end.
// Source: the Unicode standard, table 3-7 (well-formed byte sequences).
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/text/unicode_tables.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lazyllm::inline v0 {

/// `number` is \p{N} and `space` is \s of the `tokenizers` package's regular expressions (Unicode 16); `late_number`
/// are the few numbers of Unicode 17 that only its Digits splitter knows.
enum class CharClass : std::uint8_t { other, letter, number, space, late_number };

/// One character of a text: `size_bytes` is 1 to 4; an invalid byte has the code point 0xFFFFFFFF.
struct Utf8Char {
  std::uint32_t code_point;
  std::uint8_t size_bytes;
  CharClass char_class;
};

inline constexpr std::uint32_t invalid_code_point = 0xFFFFFFFFu;

/// The class of any code point; O(log table), O(1) for ASCII.
[[nodiscard]] CharClass classify(std::uint32_t code_point);

/// The character at `position`, which must lie inside the text.
[[nodiscard]] Utf8Char read_utf8(std::string_view text, std::size_t position);

/// How many bytes at the end of the text (0 to 3) are the start of a sequence that further bytes may make valid.
[[nodiscard]] std::size_t incomplete_utf8_suffix(std::string_view text);

namespace detail {

/// Length and first continuation byte's range of a sequence by its lead byte; length 0: not a lead byte.
struct Utf8Lead {
  std::uint8_t length;
  std::uint8_t second_min = 0x80;
  std::uint8_t second_max = 0xBF;
};

constexpr Utf8Lead utf8_lead(unsigned char byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

/// How many of the bytes from `position` on, at most the sequence's length, fit the sequence that starts there.
constexpr std::size_t utf8_fitting_bytes(std::string_view text, std::size_t position, Utf8Lead lead) {
  std::size_t count = 1;
  for (; count < lead.length && position + count < text.size(); ++count) {
    const auto byte = static_cast<unsigned char>(text[position + count]);
    if (byte < (count == 1 ? lead.second_min : 0x80) || byte > (count == 1 ? lead.second_max : 0xBF)) break;
  }
  return count;
}

constexpr CharClass class_by_search(std::uint32_t code_point) {
  // The last run that starts at or before the code point; the class bits below it cannot reach the next code point.
  const std::uint32_t limit = (code_point << 3) | 7u;
  const auto after = std::upper_bound(code_point_classes.begin(), code_point_classes.end(), limit);
  return static_cast<CharClass>(*(after - 1) & 7u);
}

inline constexpr auto ascii_classes = [] {
  std::array<CharClass, 128> classes{};
  for (std::uint32_t c = 0; c < classes.size(); ++c) classes[c] = class_by_search(c);
  return classes;
}();

}  // namespace detail

inline CharClass classify(std::uint32_t code_point) {
  if (code_point < 128) return detail::ascii_classes[code_point];
  return code_point > 0x10FFFF ? CharClass::other : detail::class_by_search(code_point);
}

inline Utf8Char read_utf8(std::string_view text, std::size_t position) {
  LAZYLLM_EXPECTS(position < text.size());
  const auto first = static_cast<unsigned char>(text[position]);
  if (first < 0x80) return {first, 1, detail::ascii_classes[first]};
  const detail::Utf8Lead lead = detail::utf8_lead(first);
  if (lead.length == 0 || detail::utf8_fitting_bytes(text, position, lead) < lead.length) {
    return {invalid_code_point, 1, CharClass::other};
  }
  std::uint32_t code_point = first & (0x7Fu >> lead.length);
  for (std::size_t i = 1; i < lead.length; ++i) {
    code_point = (code_point << 6) | (static_cast<unsigned char>(text[position + i]) & 0x3Fu);
  }
  return {code_point, lead.length, classify(code_point)};
}

inline std::size_t incomplete_utf8_suffix(std::string_view text) {
  for (std::size_t length = 1; length <= 3 && length <= text.size(); ++length) {
    const std::size_t position = text.size() - length;
    const auto byte = static_cast<unsigned char>(text[position]);
    if ((byte & 0xC0u) == 0x80u) continue;  // a continuation byte: its lead byte is further left
    const detail::Utf8Lead lead = detail::utf8_lead(byte);
    return lead.length > length && detail::utf8_fitting_bytes(text, position, lead) == length ? length : 0;
  }
  return 0;
}

}  // namespace lazyllm::inline v0
