// What `lazyllm eval` measures: policies on generated tasks, beside the dense model.
#pragma once

#include "model_file.hpp"
#include "options.hpp"

#include <lazyllm/eval/summary.hpp>
#include <lazyllm/simd/isa.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace program {

struct EvalReport {
  std::string model;
  std::size_t threads = 0;
  lazyllm::Isa isa = lazyllm::Isa::portable;
  std::vector<lazyllm::SummaryRow> rows;       // by policy and task, over all lengths; all tasks last
  std::vector<lazyllm::SummaryRow> by_length;  // the same by length
};

/// Runs every item under the dense model, then under each policy, and appends a line of JSON for each to
/// DIRECTORY/records.jsonl; what stands there already is not run again. Throws lazyllm::Error, before any work where
/// the request is wrong.
EvalReport run_eval(const EvalCommand& command, const Progress& progress, const Note& on_note);

}  // namespace program
