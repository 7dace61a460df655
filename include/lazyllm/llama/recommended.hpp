// The pruning schedules that this library recommends: what `--prune safe`, `auto` and `fast` mean.
// Measured on one model, SmolLM2-135M-Instruct; any other gets the safe rule, in proportion to its depth. How they were
// chosen, and what they cost in answers: docs/comparison.md.
#pragma once

#include <lazyllm/graph/revival_budget.hpp>
#include <lazyllm/llama/config.hpp>
#include <lazyllm/prune/schedule.hpp>

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>

namespace lazyllm::inline v0 {

/// How much a schedule dares.
enum class Preset {
  safe,      ///< answers and wording stay
  balanced,  ///< `auto`: answers stay
  fast,
};
inline constexpr std::array<std::pair<Preset, std::string_view>, 3> preset_names = {
    {{Preset::safe, "safe"}, {Preset::balanced, "auto"}, {Preset::fast, "fast"}}};

[[nodiscard]] inline std::string_view name(Preset preset) {
  return preset_names[static_cast<std::size_t>(preset)].second;
}
/// The preset of this name, or nothing.
[[nodiscard]] inline std::optional<Preset> preset_named(std::string_view text) {
  for (const auto& [preset, word] : preset_names) {
    if (word == text) return preset;
  }
  return std::nullopt;
}

/// A schedule for each preset.
struct PresetSchedules {
  std::array<StepSchedule, preset_names.size()> schedules = {};

  [[nodiscard]] const StepSchedule& of(Preset preset) const { return schedules[static_cast<std::size_t>(preset)]; }
  [[nodiscard]] StepSchedule& of(Preset preset) { return schedules[static_cast<std::size_t>(preset)]; }
  friend bool operator==(const PresetSchedules&, const PresetSchedules&) = default;
};

/// Whether the presets were measured on a model of these sizes; for others all are the safe rule.
[[nodiscard]] inline bool has_measured_presets(const LlamaConfig& config) {
  return config.layers == 30 && config.hidden_dim == 576 && config.heads == 9 && config.kv_heads == 3;
}

/// What goes with a preset in SessionOptions: how many tokens a decode step revives for one layer (an answer's first
/// words need most; after them none, so that no step is slower than a dense one), and of how many tokens on a context
/// is pruned.
inline constexpr RevivalBudget recommended_decode_revivals = {.early = 8, .early_tokens = 16, .later = 0};
inline constexpr std::size_t recommended_dense_below = 384;

/// Of a measured model its own; of another one the safe rule: 1,024 tokens enter the layers above 18/30 of the depth,
/// 256 those above 21/30.
[[nodiscard]] inline StepSchedule recommended_schedule(const LlamaConfig& config, Preset preset = Preset::balanced) {
  if (has_measured_presets(config)) {
    switch (preset) {
      case Preset::safe: return parse_schedule("7:0.7min384/max^24max~15,17:0.4min320,21:0.25min256,first4,last32");
      case Preset::balanced:
        return parse_schedule("7:0.3min256/max^24max~15,17:0.25min160,21:0.15min128,first4,last32");
      case Preset::fast: return parse_schedule("7:0.2min192/max^24max~15,17:0.15min128,21:0.1min96,first4,last32");
    }
  }
  const auto layer_at = [&](std::size_t of_thirty) { return config.layers * of_thirty / 30; };
  if (layer_at(18) == layer_at(21)) return StepSchedule({{layer_at(21), KeepRule::count(256)}});
  return StepSchedule({{layer_at(18), KeepRule::count(1024)}, {layer_at(21), KeepRule::count(256)}});
}

/// All three of them.
[[nodiscard]] inline PresetSchedules recommended_schedules(const LlamaConfig& config) {
  PresetSchedules presets;
  for (const auto& [preset, word] : preset_names) presets.of(preset) = recommended_schedule(config, preset);
  return presets;
}

}  // namespace lazyllm::inline v0
