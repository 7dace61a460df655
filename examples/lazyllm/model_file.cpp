#include "model_file.hpp"

#include "presets_file.hpp"

#include <lazyllm/prune/schedule.hpp>

#include <filesystem>
#include <variant>

template class lazyllm::Llama<lazyllm::AsStored>;

namespace program {

using namespace lazyllm;

std::shared_ptr<const Weights> ModelFile::load_weights(ThreadPool& pool, const Progress& progress) const {
  return Weights::load(file, gguf, pool,
                       [&](std::uint64_t done, std::uint64_t total) { progress("loading", done, total); });
}

ModelPresets ModelFile::presets() const {
  if (const std::filesystem::path beside = presets_path(path); std::filesystem::exists(beside)) {
    ModelPresets presets{read_presets(beside, fingerprint()), "calibrated: " + beside.string()};
    for (const StepSchedule& schedule : presets.schedules.schedules) schedule.check(config.layers, config.heads);
    return presets;
  }
  return {recommended_schedules(config), has_measured_presets(config)
                                             ? "measured on this model"
                                             : "the safe rule: nothing was measured on this model"};
}

StepSchedule ModelFile::schedule(const PruneSpec& spec, const Note& on_note) const {
  if (const auto* const preset = std::get_if<Preset>(&spec)) {
    const ModelPresets all = presets();
    on_note("pruning by " + schedule_text(all.schedules.of(*preset)) + ", " + all.source);
    return all.schedules.of(*preset);
  }
  const StepSchedule& schedule = std::get<StepSchedule>(spec);
  schedule.check(config.layers, config.heads);
  return schedule;
}

}  // namespace program
