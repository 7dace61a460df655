#include "model_file.hpp"

#include <lazyllm/llama/recommended.hpp>

#include <variant>

template class lazyllm::Llama<lazyllm::AsStored>;

namespace program {

using namespace lazyllm;

std::shared_ptr<const Weights> ModelFile::load_weights(ThreadPool& pool, const Progress& progress) const {
  return Weights::load(file, gguf, pool,
                       [&](std::uint64_t done, std::uint64_t total) { progress("loading", done, total); });
}

StepSchedule ModelFile::schedule(const PruneSpec& spec) const {
  const auto* const preset = std::get_if<Preset>(&spec);
  StepSchedule schedule = preset != nullptr ? recommended_schedule(config, *preset) : std::get<StepSchedule>(spec);
  schedule.check(config.layers, config.heads);
  return schedule;
}

}  // namespace program
