// The file beside a model that holds what `lazyllm calibrate` found: MODEL.lazyllm.json.
#pragma once

#include <lazyllm/eval/calibration.hpp>
#include <lazyllm/eval/schedule_search.hpp>
#include <lazyllm/eval/summary.hpp>
#include <lazyllm/llama/recommended.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace program {

/// Where the presets of this model file are looked for.
std::filesystem::path presets_path(const std::filesystem::path& model);

/// The presets in a file. Throws lazyllm::Error for a file that is none, or is of a model of another fingerprint.
lazyllm::PresetSchedules read_presets(const std::filesystem::path& path, std::uint64_t fingerprint);

/// What a calibration found, and how it was made.
struct CalibrationReport {
  std::string model;
  std::uint64_t fingerprint = 0;
  lazyllm::CalibrationOptions options;
  std::vector<lazyllm::Task> tasks;
  std::vector<std::size_t> lengths;
  std::uint64_t seed = 0;
  std::size_t threads = 0;
  bool finished = false;  // not interrupted
  lazyllm::Calibration calibration;
  std::vector<lazyllm::SummaryRow> held_out;  // of the dense model and the presets by name; empty: not measured
};

/// The file's text.
std::string presets_json(const CalibrationReport& report);

}  // namespace program
