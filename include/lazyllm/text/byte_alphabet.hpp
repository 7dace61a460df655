// The printable stand-ins for bytes in which byte-level vocabularies are written: one character for each byte.
// Bytes that are printable in Latin-1 stand for themselves; the other 68, in ascending order, are U+0100 to U+0143.
// Source: the GPT-2 tokenizer.
#pragma once

#include <lazyllm/text/utf8.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lazyllm::inline v0 {

/// Appends the bytes that the text stands for and returns true; when a character is no stand-in for a byte, appends
/// nothing and returns false.
[[nodiscard]] bool append_bytes_from_alphabet(std::string_view text, std::string& bytes);

namespace detail {

inline constexpr std::size_t byte_alphabet_end = 0x144;

/// The byte of each character below `byte_alphabet_end`, -1 for those outside the alphabet.
inline constexpr auto byte_of_character = [] {
  std::array<std::int16_t, byte_alphabet_end> table{};
  table.fill(-1);
  std::size_t next_stand_in = 0x100;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    table[printable ? byte : next_stand_in++] = static_cast<std::int16_t>(byte);
  }
  return table;
}();
static_assert(byte_of_character.back() == 0xAD);

}  // namespace detail

inline bool append_bytes_from_alphabet(std::string_view text, std::string& bytes) {
  const std::size_t size_before = bytes.size();
  for (std::size_t position = 0; position < text.size();) {
    const Utf8Char c = read_utf8(text, position);
    const int byte = c.code_point < detail::byte_alphabet_end ? detail::byte_of_character[c.code_point] : -1;
    if (byte < 0) {
      bytes.resize(size_before);
      return false;
    }
    bytes.push_back(static_cast<char>(byte));
    position += c.size_bytes;
  }
  return true;
}

}  // namespace lazyllm::inline v0
