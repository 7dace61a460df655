// What a generated task hides in a document and asks about it: facts with their places, and questions in their order.
// A fact is a sentence and a place from 0 (the document's start) to 1 (its end).
// Source: the tasks of RULER, arXiv 2404.06654, and this library's.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

struct Fact {
  std::string text;
  double depth;
};

/// The expected reply is `lead` (words of the question again, which are given), a space, and `answer`.
struct Question {
  std::string text;
  std::string lead;
  std::string answer;
};

/// What the facts stand among: natural text, or lines of other keys and values.
enum class Filler { text, pairs };

struct Puzzle {
  std::vector<Fact> facts;
  std::vector<Question> questions;   ///< the last one counts; those before it are asked in the same session
  std::vector<std::string> secrets;  ///< what the answers consist of: each stands in the document once
  Filler filler = Filler::text;
};

}  // namespace lazyllm::inline v0
