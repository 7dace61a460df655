// The generated tasks by name, and the puzzle that each makes for a depth.
// A name is one word; continuation has no puzzle: it scores a stretch of natural text (eval/continuation.hpp).
// Source: eval/number_tasks.hpp and eval/fact_tasks.hpp.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/draw.hpp>
#include <lazyllm/eval/fact_tasks.hpp>
#include <lazyllm/eval/number_tasks.hpp>
#include <lazyllm/eval/puzzle.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace lazyllm::inline v0 {

// | task         | what is hidden                                         | what is asked for                 |
// |--------------|--------------------------------------------------------|-----------------------------------|
// | needle       | a number of four digits with a key of two words        | the number                        |
// | keys         | eight such numbers                                     | one of them                       |
// | values       | three numbers of one key                               | all three, in order               |
// | paraphrase   | a number                                               | the same in other words           |
// | documents    | eight documents, a person's city and job in each       | one person's city                 |
// | facts        | eight persons' cities, jobs or pets, scattered         | one of them                       |
// | pairs        | the document is all lines "key: number"                | one number                        |
// | second       | two numbers                                            | one, then in the same session the |
// |              |                                                        | other, which counts               |
// | continuation | natural text                                           | how it goes on                    |
enum class Task { needle, keys, values, paraphrase, documents, facts, pairs, second, continuation };

inline constexpr std::array<std::pair<Task, std::string_view>, 9> task_names = {{{Task::needle, "needle"},
                                                                                 {Task::keys, "keys"},
                                                                                 {Task::values, "values"},
                                                                                 {Task::paraphrase, "paraphrase"},
                                                                                 {Task::documents, "documents"},
                                                                                 {Task::facts, "facts"},
                                                                                 {Task::pairs, "pairs"},
                                                                                 {Task::second, "second"},
                                                                                 {Task::continuation, "continuation"}}};

[[nodiscard]] inline std::string_view name(Task task) { return task_names[static_cast<std::size_t>(task)].second; }

/// Throws Error (invalid_argument) for a name that is none.
[[nodiscard]] inline Task task_named(std::string_view text) {
  std::string known;
  for (const auto& [task, word] : task_names) {
    if (word == text) return task;
    known += (known.empty() ? "" : ", ") + std::string(word);
  }
  throw Error(ErrorCode::invalid_argument, "no task is named '" + std::string(text) + "'; there are " + known);
}

/// Precondition: not continuation.
[[nodiscard]] inline Puzzle make_puzzle(Task task, Draw& draw, double depth) {
  switch (task) {
    case Task::needle: return needle_puzzle(draw, depth);
    case Task::keys: return needle_puzzle(draw, depth, 7);
    case Task::values: return values_puzzle(draw, depth);
    case Task::paraphrase: return paraphrase_puzzle(draw, depth);
    case Task::documents: return documents_puzzle(draw, depth);
    case Task::facts: return facts_puzzle(draw, depth);
    case Task::pairs: return pairs_puzzle(draw, depth);
    case Task::second: return second_question_puzzle(draw, depth);
    case Task::continuation: break;
  }
  throw Error(ErrorCode::invalid_argument, "the task continuation has no puzzle");
}

}  // namespace lazyllm::inline v0
