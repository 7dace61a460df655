// One item of a task in tokens: what is prefilled, what is decoded with the given words, what is scored.
// A session runs an item's turns in order: prefill `prompt`, decode `lead`, then score and decode `answer`.
// The last turn counts. Made for one tokenizer and chat template; the same seed gives the same tokens.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/eval/document.hpp>
#include <lazyllm/eval/draw.hpp>
#include <lazyllm/eval/source_text.hpp>
#include <lazyllm/eval/task.hpp>
#include <lazyllm/text/chat_template.hpp>
#include <lazyllm/text/tokenizer.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

struct Turn {
  std::vector<TokenId> prompt;
  std::vector<TokenId> lead;  ///< decoded without being scored; empty where the lead belongs to the prompt
  std::vector<TokenId> answer;
};

/// Which item of a task: what a seed makes it from.
struct ItemKey {
  Task task = Task::needle;
  std::size_t length = 0;  ///< most tokens of the first turn's prompt
  double depth = 0;        ///< of the fact that is asked for, in the document
  std::size_t index = 0;
  friend bool operator==(const ItemKey&, const ItemKey&) = default;
};

struct Item {
  ItemKey key;
  std::vector<Turn> turns;

  /// All tokens of all turns: the context that a session needs.
  [[nodiscard]] std::size_t context_size() const {
    std::size_t tokens = 0;
    for (const Turn& turn : turns) tokens += turn.prompt.size() + turn.lead.size() + turn.answer.size();
    return tokens;
  }
};

struct ItemOptions {
  std::uint64_t seed = 1;
  /// The lead is generated, as a chat's own first words are, instead of standing at the prompt's end.
  bool own_words = false;
  std::size_t continuation_tokens = 64;  ///< scored tokens of a continuation
};

/// Makes the items of one model and text. Throws Error (invalid_argument) where a length has no room for the task.
class ItemMaker {
 public:
  /// Without a chat template the question follows the text, and "Answer:" the question. All must outlive the maker.
  ItemMaker(const SourceText& source, const Tokenizer& tokenizer, const ChatTemplate* chat, ItemOptions options)
      : source_(source), tokenizer_(tokenizer), chat_(chat), options_(options) {}

  [[nodiscard]] Item make(const ItemKey& key) const {
    Draw draw(options_.seed,
              {static_cast<std::uint64_t>(key.task), key.length, std::bit_cast<std::uint64_t>(key.depth), key.index});
    return key.task == Task::continuation ? continuation(key, draw) : puzzle_item(key, draw);
  }

 private:
  [[nodiscard]] Item puzzle_item(const ItemKey& key, Draw& draw) const;
  [[nodiscard]] Item continuation(const ItemKey& key, Draw& draw) const;
  [[nodiscard]] std::string first_prompt(const std::string& content) const;
  [[nodiscard]] Turn turn(std::string prompt, const Question& question) const;
  [[nodiscard]] std::string between(const std::string& content, const Question& before, const Question& next) const;
  [[nodiscard]] std::vector<TokenId> encode(std::string_view text) const {
    return tokenizer_.encode(text, {.add_special = false});
  }
  [[noreturn]] static void no_room(const ItemKey& key, std::size_t needed) {
    throw Error(ErrorCode::invalid_argument, "task " + std::string(name(key.task)) + ": a prompt of " +
                                                 std::to_string(key.length) + " tokens has no room for its " +
                                                 std::to_string(needed));
  }

  const SourceText& source_;
  const Tokenizer& tokenizer_;
  const ChatTemplate* chat_;
  ItemOptions options_;
};

namespace detail {

inline std::string item_content(const std::string& document, const Question& question) {
  return "Some facts are hidden in the following text. Remember them.\n\n" + document + "\n\n" + question.text;
}

/// What the reply says, as it follows the prompt.
inline std::string reply_lead(const Question& question, bool chat) { return (chat ? "" : " ") + question.lead; }

}  // namespace detail

/// The prompt up to where the reply starts.
inline std::string ItemMaker::first_prompt(const std::string& content) const {
  if (chat_ == nullptr) return content + "\nAnswer:";
  const ChatMessage message{.role = "user", .content = content};
  return chat_->apply({&message, 1});
}

inline Turn ItemMaker::turn(std::string prompt, const Question& question) const {
  const std::string lead = detail::reply_lead(question, chat_ != nullptr);
  Turn turn;
  if (options_.own_words) {
    turn.lead = encode(lead);
  } else {
    prompt += lead;
  }
  turn.prompt = encode(prompt);
  turn.answer = encode(" " + question.answer);
  return turn;
}

/// What stands between the answer to a question and the reply to the next.
inline std::string ItemMaker::between(const std::string& content, const Question& before, const Question& next) const {
  if (chat_ == nullptr) return "\n\n" + next.text + "\nAnswer:";
  const std::string reply = before.lead + " " + before.answer;
  const std::vector<ChatMessage> messages = {{"user", content}, {"assistant", reply}, {"user", next.text}};
  const std::string all = chat_->apply(messages);
  return all.substr(first_prompt(content).size() + reply.size());
}

inline Item ItemMaker::puzzle_item(const ItemKey& key, Draw& draw) const {
  Puzzle puzzle = make_puzzle(key.task, draw, key.depth);
  const std::vector<Question> questions = puzzle.questions;
  const auto prompt_of = [&](const std::string& document) {
    return first_prompt(detail::item_content(document, questions[0]));
  };
  const auto size_of = [&](const std::string& document) {
    return turn(prompt_of(document), questions[0]).prompt.size();
  };

  std::string facts;
  for (const Fact& fact : puzzle.facts) facts += " " + fact.text;
  const std::size_t around = size_of(facts);
  if (around >= key.length) no_room(key, around);
  const Document document(std::move(puzzle), key.length - around, source_, tokenizer_, draw);
  std::size_t pieces = document.pieces();  // their tokens may come out one more than they were counted apart
  while (pieces > 0 && size_of(document.text(pieces)) > key.length) --pieces;
  if (pieces == 0) no_room(key, around);

  const std::string content = detail::item_content(document.text(pieces), questions[0]);
  Item item{key, {turn(first_prompt(content), questions[0])}};
  for (std::size_t q = 1; q < questions.size(); ++q) {
    item.turns.push_back(turn(between(content, questions[q - 1], questions[q]), questions[q]));
  }
  return item;
}

/// A stretch of the text: `length` tokens are the prompt, the next ones are scored.
inline Item ItemMaker::continuation(const ItemKey& key, Draw& draw) const {
  if (key.length == 0) no_room(key, 1);
  const std::size_t start = draw.below(source_.size());
  const std::size_t wanted = key.length + options_.continuation_tokens;
  std::string text;
  std::size_t tokens = 0;
  for (std::size_t i = start; tokens < wanted + 8; ++i) {
    text += (text.empty() ? "" : " ") + source_.sentence(i).text;
    tokens += source_.sentence(i).tokens;
  }
  std::vector<TokenId> ids = encode(text);
  if (ids.size() < wanted) no_room(key, wanted);
  const auto split = ids.begin() + static_cast<std::ptrdiff_t>(key.length);
  return {key,
          {{{ids.begin(), split}, {}, {split, split + static_cast<std::ptrdiff_t>(options_.continuation_tokens)}}}};
}

}  // namespace lazyllm::inline v0
