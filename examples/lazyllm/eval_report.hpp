// How `lazyllm eval` shows its result: tables for people, CSV for programs.
#pragma once

#include "eval.hpp"

#include <string>

namespace program {

/// Answers by policy and task, then continuations, then times by length, as far as there are any.
std::string eval_markdown(const EvalReport& report);

/// A line for each policy, task and length, and for all tasks and all lengths.
std::string eval_csv(const EvalReport& report);

}  // namespace program
