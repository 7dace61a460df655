// The pruning schedules that this library recommends: what `--prune safe`, `auto` and `fast` mean.
// Measured on one model, SmolLM2-135M-Instruct; any other gets the safe rule, in proportion to its depth. How they were
// chosen, and what they cost in answers: docs/design.md, "The recommended schedules".
#pragma once

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
  safe,      ///< late points and counts, so that short prompts stay whole
  balanced,  ///< `auto`
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

/// What goes with a preset in SessionOptions: a decode step revives at most this many tokens for one layer, as many
/// rows as share one read of the weights; and contexts of fewer tokens than that stay dense.
inline constexpr std::size_t recommended_decode_revivals = 8;
inline constexpr std::size_t recommended_dense_below = 256;

/// Safe: 1,024 tokens enter the layers above 18/30 of the depth and 256 those above 21/30.
[[nodiscard]] inline StepSchedule recommended_schedule(const LlamaConfig& config, Preset preset = Preset::balanced) {
  if (has_measured_presets(config) && preset == Preset::balanced) {
    return parse_schedule("7:0.5/max~15,18:0.25,21:0.1,first4,last32");
  }
  if (has_measured_presets(config) && preset == Preset::fast) {
    return parse_schedule("7:0.4/max~15,14:0.2,20:0.1,first4,last32");
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
