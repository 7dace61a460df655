// What `lazyllm generate` says about a run: one JSON object, or lines for people.
#pragma once

#include "generate.hpp"

#include <string>

namespace program {

/// One JSON object on one line; `kept` has indices when the report has them.
std::string json_report(const GenerateReport& report, bool with_indices);

/// Timings, rows and memory in a few lines.
std::string text_report(const GenerateReport& report);

/// One line for each selection: step, layer and the kept tokens as ranges.
std::string text_trace(const GenerateReport& report);

}  // namespace program
