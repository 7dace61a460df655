// What `lazyllm calibrate` does: finds a model's presets and stores them beside it.
#pragma once

#include "model_file.hpp"
#include "options.hpp"
#include "presets_file.hpp"

#include <functional>
#include <string>

namespace program {

/// Searches on generated tasks, writes the presets, then measures them on items that the search has not seen and writes
/// the file again. When interrupted() turns true it ends after the schedule or item in hand, with what was found so
/// far. Throws lazyllm::Error, before any work where the request is wrong, and where it was interrupted before a
/// schedule was tried.
CalibrationReport run_calibrate(const CalibrateCommand& command, const Progress& progress, const Note& on_note,
                                const std::function<bool()>& interrupted);

/// The presets, and how they did on the items that the search has not seen.
std::string calibration_markdown(const CalibrationReport& report);

}  // namespace program
