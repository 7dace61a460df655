// What a session may be told, and what it tells: its options, the selections it makes, and what its steps cost.
// Counters are by layer; a dense prefill computes and finishes every token at every layer, but finishes only one at the
// last.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/row_element.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/revival_budget.hpp>

#include <cstddef>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

namespace lazyllm::inline v0 {

/// One decision, as a step makes it; the spans are valid during the call.
struct Selection {
  std::size_t step;                        ///< 0 is the first prefill
  LayerIndex layer;                        ///< or before_first_layer
  std::span<const TokenIndex> candidates;  ///< who might have gone on, ascending
  std::span<const float> scores;           ///< their importance where the policy tells it (ScoringPolicy), or empty
  std::span<const TokenIndex> kept;        ///< who enters layer + 1, ascending
};

/// Called before each layer of a prefill with (layer, layer_count); returning false stops the step with Cancelled.
using PrefillHook = std::function<bool(LayerIndex, std::size_t)>;

struct SessionOptions {
  std::size_t context_size = 0;  ///< most tokens the session may hold; address space is reserved for them at once
  /// false: decode steps never revive; each layer selects among the tokens that have K and V there.
  bool revive_in_decode = true;
  /// Most tokens that a decode step revives for any one layer, the best-scored ones; the others count as not selected
  /// from that layer on. It bounds what a step may cost beside a dense one.
  RevivalBudget decode_revivals = {};
  /// While the context has fewer tokens, the policy is not asked: short prompts stay dense. What an earlier step parked
  /// is revived, within the two options above.
  std::size_t dense_below = 0;
  /// Most bytes of K, V (of a CountedGraph), Aux Cache and column sums (of a ColumnSumPolicy). Before each step the
  /// most that it can add is counted, as the policy bounds it (BoundedPolicy); a step that might exceed the budget
  /// throws Error, and nothing ran.
  std::size_t memory_budget_bytes = std::numeric_limits<std::size_t>::max();
  /// What the hidden states of waiting tokens are stored as: smaller rows for a rounding of what revived tokens go on
  /// from.
  RowFormat aux_rows = RowFormat::float32;
  /// Called for every selection, in order. The first prefill is step 0.
  std::function<void(const Selection&)> on_select = {};
  PrefillHook on_prefill_layer = {};  ///< for every prefill of the session
};

/// Thrown out of a prefill that a PrefillHook stopped. The session is not usable afterwards.
struct Cancelled : Error {
  Cancelled() : Error(ErrorCode::limit, "the prefill was stopped from outside") {}
};

/// What a step, or all steps of a phase, cost.
struct StepCounters {
  std::vector<std::size_t> rows_computed;  ///< by layer: tokens whose K and V were computed there
  std::vector<std::size_t> rows_finished;  ///< by layer: tokens whose output was computed there
  std::size_t revived = 0;                 ///< tokens taken out of the Aux Cache

  explicit StepCounters(std::size_t layer_count = 0) : rows_computed(layer_count), rows_finished(layer_count) {}
  void add(const StepCounters& step) {
    for (std::size_t layer = 0; layer < rows_computed.size(); ++layer) {
      rows_computed[layer] += step.rows_computed[layer];
      rows_finished[layer] += step.rows_finished[layer];
    }
    revived += step.revived;
  }
  /// Of all layers: rows computed.
  [[nodiscard]] std::size_t total_rows() const {
    return std::accumulate(rows_computed.begin(), rows_computed.end(), std::size_t{0});
  }
};

/// What a session knows of its past beside its tokens.
struct SessionHistory {
  explicit SessionHistory(std::size_t layer_count) : prefill(layer_count), decode(layer_count) {}

  std::size_t steps = 0;
  std::size_t prompt_size = 0;  ///< tokens up to the end of the last prefill
  StepCounters prefill, decode;

  [[nodiscard]] StepCounters& totals(Phase phase) { return phase == Phase::prefill ? prefill : decode; }
  [[nodiscard]] const StepCounters& totals(Phase phase) const { return phase == Phase::prefill ? prefill : decode; }
};

}  // namespace lazyllm::inline v0
