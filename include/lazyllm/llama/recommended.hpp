// The pruning schedule that this library recommends for a Llama-like model: what `--prune auto` means.
// Two points in the upper half of the layers, where the last token's mean attention is a good signal, with counts
// instead of shares, so that short prompts stay whole. How it was chosen: docs/design.md, "The recommended schedule".
#pragma once

#include <lazyllm/llama/config.hpp>
#include <lazyllm/prune/schedule.hpp>

#include <cstddef>

namespace lazyllm::inline v0 {

/// 1,024 tokens enter the layers above 18/30 of the depth and 256 those above 21/30: measured on a model of 30 layers,
/// placed in proportion for others.
[[nodiscard]] inline StepSchedule recommended_schedule(const LlamaConfig& config) {
  const auto layer_at = [&](std::size_t of_thirty) { return config.layers * of_thirty / 30; };
  if (layer_at(18) == layer_at(21)) return StepSchedule({{layer_at(21), KeepRule::count(256)}});
  return StepSchedule({{layer_at(18), KeepRule::count(1024)}, {layer_at(21), KeepRule::count(256)}});
}

}  // namespace lazyllm::inline v0
