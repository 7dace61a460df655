// Turns a conversation into the text a chat model was trained on: the ChatML format, with the file's own details.
// <|im_start|>role\ncontent<|im_end|>\n for each message, then <|im_start|>assistant\n for the answer to come.
// Source: `tokenizer.chat_template` of the GGUF specification; equal to transformers' apply_chat_template.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/io/gguf.hpp>
#include <lazyllm/text/template_pieces.hpp>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

struct ChatMessage {
  std::string role;
  std::string content;
};

/// A ChatML template that was recognised in a file. The file's template is compared with the known ones after both are
/// brought into one spelling; it is never run, and one that differs in anything that could be printed is refused.
class ChatTemplate {
 public:
  /// Reads `tokenizer.chat_template`. Throws Error (malformed) when the file has none.
  [[nodiscard]] static ChatTemplate from_gguf(const GgufFile& file) {
    return recognise(file.require_string("tokenizer.chat_template"));
  }

  /// Recognises the text of a Jinja template. Throws Error (unsupported) for any but: ChatML for any roles, with or
  /// without a system message for conversations that begin without one (SmolLM2, Qwen2); ChatML with tools, without
  /// using them (Qwen2.5).
  [[nodiscard]] static ChatTemplate recognise(std::string_view source);

  /// The text of a conversation, what transformers prints for it. Control tokens spelled out in the contents are not
  /// masked. Throws Error (invalid_argument) for no messages and (unsupported) for a role that the template treats in
  /// another way (tool, in templates with tools).
  [[nodiscard]] std::string apply(std::span<const ChatMessage> messages, bool add_generation_prompt = true) const;

  /// The system message that is put in front of a conversation without one.
  [[nodiscard]] const std::optional<std::string>& default_system() const { return default_system_; }

 private:
  ChatTemplate() = default;

  std::optional<std::string> default_system_;
  bool usual_roles_only_ = false;  // system, user, assistant
};

namespace detail {

/// Walks over pieces and takes those that it is asked for.
class TemplateMatcher {
 public:
  explicit TemplateMatcher(std::vector<TemplatePiece> pieces) : pieces_(std::move(pieces)) {}

  [[nodiscard]] bool at_end() const { return next_ == pieces_.size(); }
  bool statement(std::string_view body) { return take(TemplatePiece::Kind::statement, body); }
  bool value(std::string_view body) { return take(TemplatePiece::Kind::value, body); }
  bool text(std::string_view body) { return take(TemplatePiece::Kind::text, body); }

  /// A text with this start and end; gives what is between.
  std::optional<std::string> text_between(std::string_view start, std::string_view end) {
    if (at_end() || pieces_[next_].kind != TemplatePiece::Kind::text) return std::nullopt;
    const std::string_view body = pieces_[next_].body;
    if (body.size() < start.size() + end.size() || !body.starts_with(start) || !body.ends_with(end)) {
      return std::nullopt;
    }
    ++next_;
    return std::string(body.substr(start.size(), body.size() - start.size() - end.size()));
  }

  /// Passes over what is left of the branch of an `if` that the walk is in: up to its else, elif or endif.
  void skip_branch() {
    for (std::size_t depth = 0; !at_end(); ++next_) {
      if (pieces_[next_].kind != TemplatePiece::Kind::statement) continue;
      const std::string_view body = pieces_[next_].body;
      if (depth == 0 && (at_branch() || body == "endif")) return;
      if (body.starts_with("if ") || body.starts_with("for ")) ++depth;
      if (body == "endif" || body == "endfor") --depth;
      if (depth > pieces_.size()) return;  // an endfor that closes nothing: cannot match
    }
  }

  /// Passes over the other branches of an `if` whose taken branch has been walked, and takes its endif.
  bool other_branches() {
    while (at_branch()) {
      ++next_;
      skip_branch();
    }
    return statement("endif");
  }

 private:
  [[nodiscard]] bool at_branch() const {
    if (at_end() || pieces_[next_].kind != TemplatePiece::Kind::statement) return false;
    const std::string_view body = pieces_[next_].body;
    return body == "else" || body.starts_with("elif ");
  }

  bool take(TemplatePiece::Kind kind, std::string_view body) {
    if (at_end() || pieces_[next_].kind != kind || pieces_[next_].body != body) return false;
    ++next_;
    return true;
  }

  std::vector<TemplatePiece> pieces_;
  std::size_t next_ = 0;
};

inline constexpr std::string_view chatml_system_start = "<|im_start|>system\n";
inline constexpr std::string_view chatml_end = "<|im_end|>\n";

inline bool match_chatml_message(TemplateMatcher& m) {
  return m.text("<|im_start|>") && m.value("message.role") && m.text("\n") && m.value("message.content") &&
         m.text(chatml_end);
}

inline bool match_generation_prompt(TemplateMatcher& m) {
  return m.statement("if add_generation_prompt") && m.text("<|im_start|>assistant\n") && m.statement("endif");
}

/// Any roles; a default system message inside the loop, or none.
inline bool match_plain_chatml(TemplateMatcher m, std::optional<std::string>& default_system) {
  if (m.statement("if not add_generation_prompt is defined") &&
      !(m.statement("set add_generation_prompt = false") && m.statement("endif"))) {
    return false;
  }
  if (!m.statement("for message in messages")) return false;
  if (m.statement("if loop.first and messages[0].role != 'system'")) {
    default_system = m.text_between(chatml_system_start, chatml_end);
    if (!default_system || !m.statement("endif")) return false;
  }
  return match_chatml_message(m) && m.statement("endfor") && match_generation_prompt(m) && m.at_end();
}

/// With branches for tools, which are never taken here; the system message, given or default, before the loop.
inline bool match_chatml_with_tools(TemplateMatcher m, std::optional<std::string>& default_system) {
  if (!m.statement("if tools")) return false;
  m.skip_branch();
  if (!m.statement("else") || !m.statement("if messages[0].role == 'system'") || !m.text(chatml_system_start) ||
      !m.value("messages[0].content") || !m.text(chatml_end) || !m.statement("else")) {
    return false;
  }
  default_system = m.text_between(chatml_system_start, chatml_end);
  return default_system && m.statement("endif") && m.statement("endif") && m.statement("for message in messages") &&
         m.statement(
             "if ( message.role == 'user' ) or ( message.role == 'system' and not loop.first ) or "
             "( message.role == 'assistant' and not message.tool_calls )") &&
         match_chatml_message(m) && m.other_branches() && m.statement("endfor") && match_generation_prompt(m) &&
         m.at_end();
}

}  // namespace detail

inline ChatTemplate ChatTemplate::recognise(std::string_view source) {
  const detail::TemplateMatcher matcher(template_pieces(source));
  ChatTemplate result;
  if (detail::match_plain_chatml(matcher, result.default_system_)) return result;
  if (detail::match_chatml_with_tools(matcher, result.default_system_)) {
    result.usual_roles_only_ = true;
    return result;
  }
  throw Error(ErrorCode::unsupported, "tokenizer.chat_template is none that is known (it begins \"" +
                                          std::string(source.substr(0, 60)) +
                                          "\"); supported is ChatML as in SmolLM2, Qwen2 and Qwen2.5");
}

inline std::string ChatTemplate::apply(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  if (messages.empty()) throw Error(ErrorCode::invalid_argument, "chat template: a conversation of 0 messages");
  std::string text;
  const auto add = [&text](std::string_view role, std::string_view content) {
    text.append("<|im_start|>").append(role).append("\n").append(content).append(detail::chatml_end);
  };
  if (default_system_ && messages.front().role != "system") add("system", *default_system_);
  for (const ChatMessage& message : messages) {
    const std::string_view role = message.role;
    if (usual_roles_only_ && role != "system" && role != "user" && role != "assistant") {
      throw Error(ErrorCode::unsupported,
                  "chat template: role \"" + message.role.substr(0, 40) + "\"; supported are system, user, assistant");
    }
    add(role, message.content);
  }
  if (add_generation_prompt) text += "<|im_start|>assistant\n";
  return text;
}

}  // namespace lazyllm::inline v0
