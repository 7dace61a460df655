// Cuts a text into the pre-tokens inside which byte pairs are merged: the regular expressions of four model families.
// The pre-tokens are consecutive, not empty, and cover the text; invalid UTF-8 counts as neither letter, number nor
// space. Source: the expressions in the `tokenizer.json` of SmolLM2, GPT-2, Llama 3 and Qwen2, scanned by hand in
// linear time.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/text/utf8.hpp>

#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>

namespace lazyllm::inline v0 {

/// How a model family cuts text (`tokenizer.ggml.pre` in a GGUF file):
/// gpt-2      's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
/// smollm     each number character alone, gpt-2 on the text between them
/// llama-bpe  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
///            \s+(?!\S)|\s+
/// qwen2      as llama-bpe, but \p{N} one by one
enum class PreTokenizer { smollm, gpt2, llama_bpe, qwen2 };

/// The pre-tokenizer of that name in GGUF files; Error (unsupported) lists the known names.
[[nodiscard]] PreTokenizer pre_tokenizer_named(std::string_view name);

/// Calls visit(pre_token) for each pre-token from left to right; the views point into `text`. O(bytes), no allocation.
template <std::invocable<std::string_view> Visit>
void for_each_pre_token(PreTokenizer kind, std::string_view text, Visit&& visit);

namespace detail {

inline bool is_newline(std::uint32_t code_point) { return code_point == '\r' || code_point == '\n'; }

/// Late numbers are unknown to the regular expressions.
inline CharClass regex_class(Utf8Char c) {
  return c.char_class == CharClass::late_number ? CharClass::other : c.char_class;
}

/// The end of the run of characters of one class that starts at `position`, at most `most` characters.
inline std::size_t end_of_run(std::string_view text, std::size_t position, CharClass wanted,
                              std::size_t most = std::string_view::npos) {
  for (; position < text.size() && most > 0; --most) {
    const Utf8Char c = read_utf8(text, position);
    if (regex_class(c) != wanted) break;
    position += c.size_bytes;
  }
  return position;
}

/// \s+(?!\S)|\s+ : the last space of a run is left to the word that follows, unless it is the only one.
inline std::size_t end_of_spaces(std::string_view text, std::size_t begin) {
  std::size_t last = begin;
  std::size_t end = begin;
  while (end < text.size()) {
    const Utf8Char c = read_utf8(text, end);
    if (c.char_class != CharClass::space) break;
    last = end;
    end += c.size_bytes;
  }
  return end == text.size() || last == begin ? end : last;
}

/// The size in bytes of 's 't 're 've 'm 'll 'd at `position`, 0 when none is there. Case folding as the regular
/// expressions do it: the long s (U+017F, two bytes) is an s.
inline std::size_t contraction_size(std::string_view text, std::size_t position, bool any_case) {
  if (text[position] != '\'') return 0;
  const std::string_view rest = text.substr(position + 1, 2);
  const auto letter = [&](std::size_t i) {
    const char c = i < rest.size() ? rest[i] : '\0';
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char first = letter(0);
  const char second = letter(1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l')) return 3;
  return any_case && rest == "\u017F" ? 3 : 0;
}

inline std::size_t gpt2_pre_token_end(std::string_view text, std::size_t begin) {
  if (const std::size_t size = contraction_size(text, begin, false)) return begin + size;
  std::size_t word = begin;
  if (text[begin] == ' ' && begin + 1 < text.size()) ++word;
  const CharClass kind = regex_class(read_utf8(text, word));
  return kind == CharClass::space ? end_of_spaces(text, begin) : end_of_run(text, word, kind);
}

inline std::size_t llama_pre_token_end(std::string_view text, std::size_t begin, std::size_t most_digits) {
  if (const std::size_t size = contraction_size(text, begin, true)) return begin + size;
  const Utf8Char first = read_utf8(text, begin);
  const CharClass first_kind = regex_class(first);
  const std::size_t second = begin + first.size_bytes;
  const CharClass second_kind = second < text.size() ? regex_class(read_utf8(text, second)) : CharClass::space;
  if (first_kind == CharClass::number) return end_of_run(text, begin, CharClass::number, most_digits);
  if (first_kind == CharClass::letter || (second_kind == CharClass::letter && !is_newline(first.code_point))) {
    return end_of_run(text, second, CharClass::letter);
  }
  if (first_kind == CharClass::other || (first.code_point == ' ' && second_kind == CharClass::other)) {
    std::size_t end = end_of_run(text, second, CharClass::other);
    while (end < text.size() && is_newline(static_cast<unsigned char>(text[end]))) ++end;
    return end;
  }
  // \s*[\r\n]+ : up to the last newline of the run of spaces.
  const std::size_t end = end_of_run(text, begin, CharClass::space);
  const std::size_t newline = text.substr(begin, end - begin).find_last_of("\r\n");
  return newline != std::string_view::npos ? begin + newline + 1 : end_of_spaces(text, begin);
}

template <class End, class Visit>
void visit_pre_tokens(std::string_view text, End&& end_of, Visit&& visit) {
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = end_of(text, begin);
    visit(text.substr(begin, end - begin));
    begin = end;
  }
}

/// Splits off every number character; what lies between is cut on its own, so a space before a number stands alone.
template <class Visit>
void visit_between_digits(std::string_view text, Visit&& visit) {
  std::size_t begin = 0;
  for (std::size_t position = 0; position < text.size();) {
    const Utf8Char c = read_utf8(text, position);
    const std::size_t after = position + c.size_bytes;
    if (c.char_class == CharClass::number || c.char_class == CharClass::late_number) {
      visit_pre_tokens(text.substr(begin, position - begin), gpt2_pre_token_end, visit);
      visit(text.substr(position, c.size_bytes));
      begin = after;
    }
    position = after;
  }
  visit_pre_tokens(text.substr(begin), gpt2_pre_token_end, visit);
}

}  // namespace detail

inline PreTokenizer pre_tokenizer_named(std::string_view name) {
  if (name == "smollm") return PreTokenizer::smollm;
  if (name == "gpt-2") return PreTokenizer::gpt2;
  if (name == "llama-bpe") return PreTokenizer::llama_bpe;
  if (name == "qwen2") return PreTokenizer::qwen2;
  throw Error(ErrorCode::unsupported, "tokenizer.ggml.pre is \"" + std::string(name.substr(0, 64)) +
                                          "\"; supported are smollm, gpt-2, llama-bpe, qwen2");
}

template <std::invocable<std::string_view> Visit>
void for_each_pre_token(PreTokenizer kind, std::string_view text, Visit&& visit) {
  const auto llama = [](std::size_t most_digits) {
    return [most_digits](std::string_view t, std::size_t begin) {
      return detail::llama_pre_token_end(t, begin, most_digits);
    };
  };
  switch (kind) {
    case PreTokenizer::smollm: return detail::visit_between_digits(text, visit);
    case PreTokenizer::gpt2: return detail::visit_pre_tokens(text, detail::gpt2_pre_token_end, visit);
    case PreTokenizer::llama_bpe: return detail::visit_pre_tokens(text, llama(3), visit);
    case PreTokenizer::qwen2: return detail::visit_pre_tokens(text, llama(1), visit);
  }
}

}  // namespace lazyllm::inline v0
