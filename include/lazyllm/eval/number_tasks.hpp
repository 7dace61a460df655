// Tasks about hidden numbers of four digits: one needle, several keys, several values of a key, other words in the
// question than in the document, key-value lines, and two questions one after the other.
// Source: RULER, arXiv 2404.06654, section 3; the wording and the last two are this library's.
#pragma once

#include <lazyllm/eval/draw.hpp>
#include <lazyllm/eval/puzzle.hpp>
#include <lazyllm/eval/words.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

namespace detail {

inline std::string magic_sentence(const std::string& key, const std::string& number) {
  return "The special magic number for " + key + " is " + number + ".";
}

inline Question magic_question(const std::string& key, const std::string& number) {
  return {"What is the special magic number for " + key + "?", "The special magic number for " + key + " is", number};
}

inline std::string magic_key(std::string_view adjective, std::string_view noun) {
  return std::string(adjective).append(" ").append(noun);
}

/// A line of a document of pairs.
inline std::string pair_line(const std::string& key, const std::string& number) {
  return std::string("the ").append(key).append(": ").append(number).append("\n");
}

/// Different keys of two words, no word in two of them.
inline std::vector<std::string> magic_keys(Draw& draw, std::size_t count) {
  std::vector<std::string> keys = draw.pick(words::adjectives, count);
  const std::vector<std::string> nouns = draw.pick(words::nouns, count);
  for (std::size_t i = 0; i < count; ++i) keys[i] = magic_key(keys[i], nouns[i]);
  return keys;
}

/// `text` with each "{}" replaced by `inserted`.
inline std::string filled(std::string_view text, std::string_view mark, std::string_view inserted) {
  std::string result(text);
  for (std::size_t at = 0; (at = result.find(mark, at)) != std::string::npos; at += inserted.size()) {
    result.replace(at, mark.size(), inserted);
  }
  return result;
}

/// A hidden number, told and asked for in different words.
struct Paraphrase {
  std::string_view fact;
  std::string_view question;
  std::string_view lead;
};

inline constexpr std::array<Paraphrase, 6> paraphrases = {{
    {"Anyone who wants to enter the {place} has to type {number} at the gate.", "Which code opens the {place}?",
     "The code that opens the {place} is"},
    {"In the {place} they keep exactly {number} barrels of oil.", "How many casks are stored in the {place}?",
     "The number of casks stored in the {place} is"},
    {"{name} sleeps in room {number}.", "What is the number of {name}'s bedroom?", "The number of {name}'s bedroom is"},
    {"To reach {name} by telephone, dial {number}.", "What is the phone number of {name}?",
     "The phone number of {name} is"},
    {"{name} had to give {number} coins to get the ship.", "What price did {name} pay for the boat?",
     "The price that {name} paid for the boat is"},
    {"Back in {number}, little {name} first saw the light of day.", "What is the birth year of {name}?",
     "The birth year of {name} is"},
}};

}  // namespace detail

/// One number, among `other_keys` more with keys of their own.
[[nodiscard]] inline Puzzle needle_puzzle(Draw& draw, double depth, std::size_t other_keys = 0) {
  const std::vector<std::string> keys = detail::magic_keys(draw, 1 + other_keys);
  const std::vector<std::string> numbers = draw.numbers(keys.size());
  Puzzle puzzle;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    puzzle.facts.push_back({detail::magic_sentence(keys[i], numbers[i]), i == 0 ? depth : draw.unit()});
  }
  puzzle.questions = {detail::magic_question(keys[0], numbers[0])};
  puzzle.secrets = {numbers[0]};
  return puzzle;
}

/// Three numbers of one key, the first at `depth`, the others anywhere; all are asked for, in the document's order.
[[nodiscard]] inline Puzzle values_puzzle(Draw& draw, double depth) {
  const std::string key = detail::magic_keys(draw, 1)[0];
  const std::vector<std::string> numbers = draw.numbers(3);
  Puzzle puzzle;
  std::array<double, 3> depths = {depth, draw.unit(), draw.unit()};
  std::ranges::sort(depths);
  for (std::size_t i = 0; i < 3; ++i) {
    puzzle.facts.push_back({"One special magic number for " + key + " is " + numbers[i] + ".", depths[i]});
  }
  puzzle.questions = {{"What are the three special magic numbers for " + key + ", in the order of the text?",
                       "The three special magic numbers for " + key + " are",
                       numbers[0] + ", " + numbers[1] + " and " + numbers[2]}};
  puzzle.secrets = numbers;
  return puzzle;
}

/// One number that the question names in other words than the document.
[[nodiscard]] inline Puzzle paraphrase_puzzle(Draw& draw, double depth) {
  const detail::Paraphrase& form = detail::paraphrases[draw.below(detail::paraphrases.size())];
  const std::string number = draw.numbers(1)[0];
  const std::string name = draw.pick(words::names);
  const std::string place = draw.pick(words::nouns);
  const auto text = [&](std::string_view pattern) {
    return detail::filled(detail::filled(detail::filled(pattern, "{number}", number), "{name}", name), "{place}",
                          place);
  };
  return {{{text(form.fact), depth}}, {{text(form.question), text(form.lead), number}}, {number}};
}

/// One of many lines "key: number".
[[nodiscard]] inline Puzzle pairs_puzzle(Draw& draw, double depth) {
  const std::string key = detail::magic_keys(draw, 1)[0];
  const std::string number = draw.numbers(1)[0];
  return {{{detail::pair_line(key, number), depth}},
          {{"What is the number of the " + key + "?", "The number of the " + key + " is", number}},
          {number},
          Filler::pairs};
}

/// Two numbers; first the one anywhere is asked for, then, in the same session, the one at `depth`.
[[nodiscard]] inline Puzzle second_question_puzzle(Draw& draw, double depth) {
  const std::vector<std::string> keys = detail::magic_keys(draw, 2);
  const std::vector<std::string> numbers = draw.numbers(2);
  return {{{detail::magic_sentence(keys[0], numbers[0]), draw.unit()},
           {detail::magic_sentence(keys[1], numbers[1]), depth}},
          {detail::magic_question(keys[0], numbers[0]), detail::magic_question(keys[1], numbers[1])},
          {numbers[1]}};
}

}  // namespace lazyllm::inline v0
