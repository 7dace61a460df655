// Tasks about people: where each lives, works, and which pet each has, scattered in one text or told in documents.
// Eight people each, one of whom is asked about; the others are distractors of the same form.
// Source: multi-document questions: RULER, arXiv 2404.06654, section 3; scattered facts: this library's.
#pragma once

#include <lazyllm/eval/draw.hpp>
#include <lazyllm/eval/puzzle.hpp>
#include <lazyllm/eval/words.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

namespace detail {

inline constexpr std::size_t people = 8;

/// A thing that a sentence tells of a person: the words between the name and the answer, and the question.
struct Relation {
  std::string_view verb;
  std::string_view question;  // before the name
  std::string_view rest;      // after the name
  std::span<const std::string_view> answers;
};

inline constexpr std::array<Relation, 3> relations = {{
    {" lives in the city of", "In which city does ", " live?", words::cities},
    {" works as a", "What is the job of ", "?", words::jobs},
    {" has a pet called a", "Which pet does ", " have?", words::pets},
}};

}  // namespace detail

/// One relation of eight people, scattered; the one at `depth` is asked for.
[[nodiscard]] inline Puzzle facts_puzzle(Draw& draw, double depth) {
  const detail::Relation& relation = detail::relations[draw.below(detail::relations.size())];
  const std::vector<std::string> names = draw.pick(words::names, detail::people);
  const std::vector<std::string> answers = draw.pick(relation.answers, detail::people);
  Puzzle puzzle;
  for (std::size_t i = 0; i < names.size(); ++i) {
    puzzle.facts.push_back(
        {names[i] + std::string(relation.verb) + " " + answers[i] + ".", i == 0 ? depth : draw.unit()});
  }
  puzzle.questions = {{std::string(relation.question) + names[0] + std::string(relation.rest),
                       names[0] + std::string(relation.verb), answers[0]}};
  puzzle.secrets = {answers[0]};
  return puzzle;
}

/// Eight documents, each with one person's job and city in its middle; the city of the one at `depth` is asked for.
[[nodiscard]] inline Puzzle documents_puzzle(Draw& draw, double depth) {
  const std::vector<std::string> names = draw.pick(words::names, detail::people);
  const std::vector<std::string> jobs = draw.pick(words::jobs, detail::people);
  const std::vector<std::string> cities = draw.pick(words::cities, detail::people);
  constexpr auto count = static_cast<double>(detail::people);
  const std::size_t asked = std::min(detail::people - 1, static_cast<std::size_t>(depth * count));
  Puzzle puzzle;
  for (std::size_t i = 0; i < detail::people; ++i) {
    puzzle.facts.push_back({"\n\nDocument " + std::to_string(i + 1) + ":\n", static_cast<double>(i) / count});
    puzzle.facts.push_back({names[i] + " went to " + cities[i] + " and found work there as a " + jobs[i] + ".",
                            (static_cast<double>(i) + 0.5) / count});
  }
  puzzle.questions = {{"To which city did the " + jobs[asked] + " " + names[asked] + " go, according to the documents?",
                       "According to the documents, the " + jobs[asked] + " " + names[asked] + " went to",
                       cities[asked]}};
  puzzle.secrets = {cities[asked]};
  return puzzle;
}

}  // namespace lazyllm::inline v0
