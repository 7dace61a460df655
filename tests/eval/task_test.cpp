// The generated puzzles: what every task promises, and the words that they are made of.
#include <doctest/doctest.h>
#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/source_text.hpp>
#include <lazyllm/eval/task.hpp>
#include <lazyllm/eval/words.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

using namespace lazyllm;

namespace {

std::string all_facts(const Puzzle& puzzle) {
  std::string text;
  for (const Fact& fact : puzzle.facts) text += fact.text + " ";
  return text;
}

}  // namespace

TEST_CASE("a task's name leads back to it, and others are refused by name") {
  for (const auto& [task, word] : task_names) {
    CHECK(task_named(word) == task);
    CHECK(name(task) == word);
  }
  CHECK_THROWS_WITH_AS(task_named("noodle"), doctest::Contains("noodle"), Error);
  Draw draw(1);
  CHECK_THROWS_AS(make_puzzle(Task::continuation, draw, 0), Error);
}

TEST_CASE("every puzzle hides each secret once, at the asked depth, and gives none away in its questions") {
  for (const auto& named : task_names) {
    const Task task = named.first;
    if (task == Task::continuation) continue;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      CAPTURE(name(task));
      CAPTURE(seed);
      Draw draw(seed);
      const double depth = 0.4;
      const Puzzle puzzle = make_puzzle(task, draw, depth);
      REQUIRE_FALSE(puzzle.questions.empty());
      const std::string facts = all_facts(puzzle);
      for (const std::string& secret : puzzle.secrets) {
        REQUIRE(count_word(facts, secret) == 1);
        for (const Question& question : puzzle.questions) {
          REQUIRE(count_word(question.text + " " + question.lead, secret) == 0);
        }
        REQUIRE(count_word(puzzle.questions.back().answer, secret) == 1);
      }
      const bool at_depth = std::ranges::any_of(puzzle.facts, [&](const Fact& fact) {
        const double slack = task == Task::documents ? 0.0626 : 0;  // in the middle of its document of an eighth
        return std::abs(fact.depth - depth) <= slack && count_word(fact.text, puzzle.secrets[0]) == 1;
      });
      REQUIRE((at_depth || task == Task::values));  // of several values one is there, not always the first
    }
  }
}

TEST_CASE("puzzles are those of the seed") {
  for (const auto& [task, word] : task_names) {
    if (task == Task::continuation) continue;
    Draw one(7, {1, 2}), same(7, {1, 2}), other(7, {2, 1});
    const Puzzle puzzle = make_puzzle(task, one, 0.5);
    CHECK(all_facts(puzzle) == all_facts(make_puzzle(task, same, 0.5)));
    CHECK(all_facts(puzzle) != all_facts(make_puzzle(task, other, 0.5)));
  }
}

TEST_CASE("draws are these numbers on every platform") {
  Draw draw(1);
  const std::vector<std::size_t> drawn = {draw.below(1000), draw.below(1000), draw.below(1000)};
  // SplitMix64 with the seed 1: 10451216379200822465, 13757245211066428519, 17911839290282890590.
  CHECK(drawn == std::vector<std::size_t>{465, 519, 590});
  const std::vector<std::string> numbers = draw.numbers(50);
  CHECK(std::ranges::all_of(numbers, [](const std::string& n) { return n.size() == 4; }));
  std::vector<std::string> sorted = numbers;
  std::ranges::sort(sorted);
  CHECK(std::ranges::adjacent_find(sorted) == sorted.end());
}

TEST_CASE("no word is a part of another of its list") {
  for (const std::span<const std::string_view> list :
       {std::span<const std::string_view>(words::names), std::span<const std::string_view>(words::cities),
        std::span<const std::string_view>(words::jobs), std::span<const std::string_view>(words::pets),
        std::span<const std::string_view>(words::adjectives), std::span<const std::string_view>(words::nouns)}) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      for (std::size_t j = 0; j < list.size(); ++j) {
        CAPTURE(list[i]);
        CHECK((i == j || list[i].find(list[j]) == std::string_view::npos));
      }
    }
  }
}
