// What a pruned prefill computes, counted: the multiply-adds of all layers, from a schedule and a prompt's length.
// A layer's rows are who entered it; where the schedule selects, only who goes on finishes it (docs/design.md, "Prune
// before the work"). Norms, RoPE, scores and selecting are not counted. Source: this library's.
#pragma once

#include <lazyllm/llama/config.hpp>
#include <lazyllm/prune/schedule.hpp>

#include <algorithm>
#include <cstddef>

namespace lazyllm::inline v0 {

struct PrefillWork {
  std::size_t layers = 0;
  double key_value = 0;  ///< multiply-adds of K and V, a row and layer
  double finish = 0;     ///< of Q, the output projection and the FFN, a row and layer
  double pair = 0;       ///< of attention, a row, key and layer

  PrefillWork() = default;
  explicit PrefillWork(const LlamaConfig& config)
      : layers(config.layers),
        key_value(2.0 * static_cast<double>(config.hidden_dim * config.kv_heads * config.head_dim)),
        finish(static_cast<double>(config.hidden_dim) *
               static_cast<double>(2 * config.heads * config.head_dim + 3 * config.ffn_dim)),
        pair(2.0 * static_cast<double>(config.heads * config.head_dim)) {}

  /// Of a prompt of `tokens` >= 1 in a fresh session. An attention mass counts as if it kept all.
  [[nodiscard]] double multiply_adds(const StepSchedule& schedule, std::size_t tokens) const {
    std::size_t entering = tokens;
    double sum = 0;
    for (LayerIndex layer = 0; layer < layers; ++layer) {
      const ScheduleEntry* const entry = schedule.entry_after(layer);
      const std::size_t kept = entry == nullptr ? entering : entry->rule.kept_bounds(entering, tokens).most;
      const std::size_t finished = layer + 1 == layers ? 1 : kept;
      const auto keys = static_cast<double>(entering);
      sum += keys * key_value + static_cast<double>(finished) * (finish + pair * (keys + 1) / 2);
      entering = kept;
    }
    return sum;
  }
};

}  // namespace lazyllm::inline v0
