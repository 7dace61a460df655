// What the program says about a run: one JSON object, or lines for people.
#pragma once

#include "run.hpp"

#include <string>

namespace program {

/// One JSON object on one line; `kept` has indices when the report has them.
std::string json_report(const Report& report, bool with_indices);

/// Timings, rows and memory in a few lines.
std::string text_report(const Report& report);

/// One line for each selection: step, layer and the kept tokens as ranges.
std::string text_trace(const Report& report);

}  // namespace program
