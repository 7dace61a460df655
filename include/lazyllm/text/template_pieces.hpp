// Takes a Jinja template apart into literal text, printed values and statements, each in one canonical spelling.
// Spellings that mean the same give equal pieces: {{ 'a' + m['x'] }}, a{{ m.x }} and {{- "a" -}}{{ m["x"] }}.
// Source: Jinja's syntax with trim_blocks and lstrip_blocks, as transformers sets them for chat templates.
#pragma once

#include <lazyllm/core/error.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// Literal text as it is printed; a printed value's path ("message.role") or, when it is more than a sum of paths and
/// strings, its words with one space between them; a statement's words likewise.
struct TemplatePiece {
  enum class Kind { text, value, statement };
  Kind kind;
  std::string body;
  friend bool operator==(const TemplatePiece&, const TemplatePiece&) = default;
};

/// The pieces of a template in order; no two texts side by side, none empty. Throws Error (unsupported) for
/// tags and strings that do not end, escapes other than \n \r \t \\ \' \", and carriage returns.
[[nodiscard]] std::vector<TemplatePiece> template_pieces(std::string_view source);

namespace detail {

[[noreturn]] inline void unknown_template_syntax(std::string_view at) {
  throw Error(ErrorCode::unsupported, "chat template: unknown syntax at \"" + std::string(at.substr(0, 40)) + "\"");
}

inline bool is_template_space(char c) { return c == ' ' || c == '\n' || c == '\t'; }

inline bool is_word_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/// The size of the string literal at the start of `code`, with its quotes.
inline std::size_t string_literal_size(std::string_view code) {
  for (std::size_t i = 1; i < code.size(); ++i) {
    if (code[i] == code[0]) return i + 1;
    if (code[i] == '\\') ++i;
  }
  unknown_template_syntax(code);
}

inline std::string unescaped(std::string_view literal) {
  std::string text;
  for (std::size_t i = 1; i + 1 < literal.size(); ++i) {
    if (literal[i] != '\\') {
      text += literal[i];
      continue;
    }
    constexpr std::string_view letters = "nrt\\'\"";
    constexpr std::string_view meanings = "\n\r\t\\'\"";
    const std::size_t which = letters.find(literal[++i]);
    if (which == std::string_view::npos) unknown_template_syntax(literal.substr(i - 1));
    text += meanings[which];
  }
  return text;
}

/// The words of an expression or statement. A string literal is '=' and its contents, a subscript with a constant
/// string the same words as the attribute: x['y'] and x.y are both "x.y".
inline std::vector<std::string> template_words(std::string_view code) {
  std::vector<std::string> words;
  for (std::size_t size = 1; !code.empty(); code.remove_prefix(size), size = 1) {
    const char c = code[0];
    if (is_template_space(c)) continue;
    if (c == '\'' || c == '"') {
      size = string_literal_size(code);
      words.push_back("'" + unescaped(code.substr(0, size)) + "'");
      continue;
    }
    if (is_word_char(c)) {
      while (size < code.size() && is_word_char(code[size])) ++size;
    } else if ((c == '=' || c == '!') && code.substr(1).starts_with('=')) {
      size = 2;
    }
    words.emplace_back(code.substr(0, size));
    const std::size_t count = words.size();
    if (c == ']' && count >= 4 && words[count - 3] == "[" && is_word_char(words[count - 4][0])) {
      const std::string name = words[count - 2];
      words.resize(count - 3);
      words.back() += name[0] == '\'' ? "." + name.substr(1, name.size() - 2) : "[" + name + "]";
    } else if (is_word_char(c) && count >= 3 && words[count - 2] == ".") {
      const std::string name = words.back();
      words.resize(count - 2);
      words.back() += "." + name;
    }
  }
  return words;
}

class TemplateReader {
 public:
  std::vector<TemplatePiece> read(std::string_view source) {
    if (source.ends_with('\n')) source.remove_suffix(1);  // Jinja drops one newline at the very end
    bool strip_start = false;
    while (!source.empty()) {
      const std::size_t open = next_tag(source);
      std::string_view text = source.substr(0, open);
      const std::string_view tag = source.substr(open, tag_size(source.substr(open)));
      source.remove_prefix(open + tag.size());
      const bool block = !tag.starts_with("{{");
      const bool strip_end = tag.size() > 2 && tag[2] == '-';
      if (strip_start) text.remove_prefix(leading_spaces(text));
      if (strip_end) text = without_trailing(text, " \n\t");
      // lstrip_blocks: indentation in front of a block that begins its line.
      if (block && !tag.empty()) {
        const std::string_view unindented = without_trailing(text, " \t");
        const bool at_start = pieces_.empty() && tags_ == 0;
        if (unindented.empty() ? at_start || after_newline_ : unindented.back() == '\n') text = unindented;
      }
      add_text(text);
      if (tag.empty()) break;
      ++tags_;
      add_tag(tag);
      strip_start = tag[tag.size() - 3] == '-';
      // trim_blocks: the newline right after a block.
      after_newline_ = block && source.starts_with('\n');
      if (after_newline_) source.remove_prefix(1);
    }
    return std::move(pieces_);
  }

 private:
  static std::size_t next_tag(std::string_view source) {
    for (std::size_t i = 0; i + 1 < source.size(); ++i) {
      if (source[i] == '{' && (source[i + 1] == '{' || source[i + 1] == '%' || source[i + 1] == '#')) return i;
    }
    return source.size();
  }

  /// The size of the tag that starts here, with its braces; 0 at the end of the source.
  static std::size_t tag_size(std::string_view source) {
    if (source.empty()) return 0;
    const char inner = source[1] == '{' ? '}' : source[1];
    for (std::size_t i = 2; i + 1 < source.size(); ++i) {
      if (source[i] == inner && source[i + 1] == '}') return i + 2 < 5 ? bad(source) : i + 2;
      if (inner != '#' && (source[i] == '\'' || source[i] == '"')) i += string_literal_size(source.substr(i)) - 1;
    }
    return bad(source);
  }
  static std::size_t bad(std::string_view source) { unknown_template_syntax(source); }

  static std::size_t leading_spaces(std::string_view text) {
    std::size_t count = 0;
    while (count < text.size() && is_template_space(text[count])) ++count;
    return count;
  }

  static std::string_view without_trailing(std::string_view text, std::string_view spaces) {
    const std::size_t last = text.find_last_not_of(spaces);
    return text.substr(0, last == std::string_view::npos ? 0 : last + 1);
  }

  void add_text(std::string_view text) {
    if (text.empty()) return;
    if (pieces_.empty() || pieces_.back().kind != TemplatePiece::Kind::text) {
      pieces_.push_back({TemplatePiece::Kind::text, {}});
    }
    pieces_.back().body += text;
  }

  void add_tag(std::string_view tag) {
    if (tag.starts_with("{#")) return;
    std::string_view code = tag.substr(2, tag.size() - 4);
    if (code.starts_with('-')) code.remove_prefix(1);
    if (code.ends_with('-')) code.remove_suffix(1);
    const std::vector<std::string> words = template_words(code);
    if (tag.starts_with("{%")) {
      pieces_.push_back({TemplatePiece::Kind::statement, joined(words)});
    } else if (!is_plain_sum(words)) {
      pieces_.push_back({TemplatePiece::Kind::value, joined(words)});
    } else {
      for (std::size_t i = 0; i < words.size(); i += 2) {
        if (words[i][0] == '\'') {
          add_text(std::string_view(words[i]).substr(1, words[i].size() - 2));
        } else {
          pieces_.push_back({TemplatePiece::Kind::value, words[i]});
        }
      }
    }
  }

  static std::string joined(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
    return text;
  }

  /// Strings and paths with a plus between each two.
  static bool is_plain_sum(const std::vector<std::string>& words) {
    for (std::size_t i = 0; i < words.size(); ++i) {
      const bool operand = words[i][0] == '\'' || is_word_char(words[i][0]);
      if (i % 2 == 0 ? !operand : words[i] != "+") return false;
    }
    return words.size() % 2 == 1;
  }

  std::vector<TemplatePiece> pieces_;
  std::size_t tags_ = 0;
  bool after_newline_ = false;  // the text that follows begins a line, its newline went with the block before it
};

}  // namespace detail

inline std::vector<TemplatePiece> template_pieces(std::string_view source) {
  // Jinja rewrites other newlines; known templates have none.
  const std::size_t carriage_return = source.find('\r');
  if (carriage_return != std::string_view::npos) detail::unknown_template_syntax(source.substr(carriage_return));
  return detail::TemplateReader().read(source);
}

}  // namespace lazyllm::inline v0
