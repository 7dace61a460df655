#include "presets_file.hpp"

#include "formatted.hpp"
#include "input.hpp"

#include <lazyllm/core/error.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/simd/isa.hpp>

#include <nlohmann/json.hpp>

namespace program {
namespace {

using namespace lazyllm;
using Json = nlohmann::ordered_json;

constexpr const char* format_name = "lazyllm presets 1";

Json json_of(const Trial& trial) {
  return {
      {"schedule", schedule_text(trial.schedule)}, {"work", trial.work}, {"loss", trial.loss}, {"items", trial.items}};
}

Json json_of(const SummaryRow& row) {
  Json object = {{"policy", row.policy},
                 {"task", row.task ? std::string(name(*row.task)) : "all"},
                 {"items", row.items()},
                 {"right", row.right()},
                 {"dense_right", row.dense_right()},
                 {"both_right", row.counts.both},
                 {"speed_up", row.speed_up},
                 {"rows_share", row.rows_share}};
  if (row.continuation) object["kl_mean"] = row.continuation->kl_mean;
  return object;
}

}  // namespace

std::filesystem::path presets_path(const std::filesystem::path& model) {
  return std::filesystem::path(model) += ".lazyllm.json";
}

PresetSchedules read_presets(const std::filesystem::path& path, std::uint64_t fingerprint) {
  const std::string text = read_text(path);
  PresetSchedules presets;
  try {
    const Json object = Json::parse(text);
    if (object.at("format") != format_name) {
      throw Error(ErrorCode::malformed,
                  path.string() + " is " + object["format"].dump() + ", not \"" + std::string(format_name) + "\"");
    }
    if (object.at("fingerprint") != hexadecimal(fingerprint)) {
      throw Error(ErrorCode::invalid_argument, path.string() + " is of another model: its fingerprint is " +
                                                   object["fingerprint"].dump() + ", the model's \"" +
                                                   hexadecimal(fingerprint) + "\"; run lazyllm calibrate again");
    }
    for (const auto& [preset, word] : preset_names) {
      presets.of(preset) = parse_schedule(object.at("presets").at(std::string(word)).get<std::string>());
    }
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::malformed, path.string() + " is no file of presets: " + error.what());
  }
  return presets;
}

std::string presets_json(const CalibrationReport& report) {
  const CalibrationOptions& options = report.options;
  const Calibration& calibration = report.calibration;
  Json object = {{"format", format_name},
                 {"model", report.model},
                 {"fingerprint", hexadecimal(report.fingerprint)},
                 {"presets", Json::object()},
                 {"loss", options.loss == CalibrationLoss::divergence ? "kl" : "lost answers"},
                 {"limits", Json::object()},
                 {"tasks", Json::array()},
                 {"lengths", report.lengths},
                 {"items", calibration.items},
                 {"seed", report.seed},
                 {"isa", name(active_isa())},
                 {"threads", report.threads},
                 {"finished", report.finished},
                 {"held_out", Json::array()},
                 {"front", Json::array()},
                 {"trials", Json::array()}};
  for (const auto& [preset, word] : preset_names) {
    object["presets"][std::string(word)] = schedule_text(calibration.presets.of(preset));
    object["limits"][std::string(word)] = loss_limit(options, preset);
  }
  for (const Task task : report.tasks) object["tasks"].push_back(name(task));
  for (const SummaryRow& row : report.held_out) object["held_out"].push_back(json_of(row));
  for (const Trial& trial : pareto_front(calibration.trials, calibration.items)) {
    object["front"].push_back(json_of(trial));
  }
  for (const Trial& trial : calibration.trials) object["trials"].push_back(json_of(trial));
  return object.dump(1) + "\n";
}

}  // namespace program
