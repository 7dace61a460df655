// What a pruning policy is: after each layer it says which tokens enter the next one.
// A policy is a small type with two functions; the session calls it before the first layer and after each, every step.
// Source: LazyLLM, arXiv 2407.14057, section 3.
#pragma once

#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>

#include <concepts>
#include <cstddef>
#include <span>

namespace lazyllm::inline v0 {

/// Everything a policy may look at when it selects after `layer`.
struct PruneContext {
  Phase phase;
  LayerIndex layer;                    ///< or before_first_layer: then there are no scores
  std::size_t context_size;            ///< all tokens so far, prompt and generated
  std::span<const TokenIndex> tokens;  ///< the candidates, ascending; the last one is the last token of the context
  ConstScoreView probs;  ///< [query_rows, heads, tokens]: attention of the last rows; empty where none was asked for
  std::size_t prompt_size = 0;      ///< tokens up to the end of the last prefill; those after it were generated
  ConstScoreView value_norms = {};  ///< [1, heads, tokens]: of a ValueNormPolicy; 0 for tokens that are no keys
  ConstScoreView column_sums = {};  ///< [1, heads, tokens]: of a ColumnSumPolicy: attention of all rows so far
};

/// The model and the session that a policy is to work with.
struct PruningShape {
  std::size_t layer_count;
  std::size_t head_count;        ///< query heads
  std::size_t context_capacity;  ///< most tokens
};

/// Two functions make a policy:
/// query_rows(layer, phase): how many trailing rows' probabilities select wants after this layer; 0: none.
/// select(context, keep): who enters layer + 1, and once before layer 0. `keep` [tokens] arrives all true; the session
/// always keeps the last.
/// A policy may have prepare(shape) too: called once by the session, before any work, to check the policy against the
/// model (throwing Error) and to reserve memory; and importance(), as a ScoringPolicy.
template <class P>
concept PruningPolicy = requires(P& p, const PruneContext& context, LayerIndex layer, Phase phase,
                                 std::span<bool> keep) {
  { p.query_rows(layer, phase) } -> std::convertible_to<std::size_t>;
  p.select(context, keep);
};

/// A policy that tells how it ranked: importance() [tokens] of the last select, higher stays first; empty where it
/// ranked nothing. The session reports it (on_select) and bounds revivals by it.
template <class P>
concept ScoringPolicy = PruningPolicy<P> && requires(const P& p) {
  { p.importance() } -> std::convertible_to<std::span<const float>>;
};

/// A policy that weighs by values: where needs_value_norms(layer, phase), the session has the graph, a ValueNormGraph,
/// tell their norms, for select and, of an EvictionPolicy, for evict. The answer never changes.
template <class P>
concept ValueNormPolicy = requires(const P& p, LayerIndex layer, Phase phase) {
  { p.needs_value_norms(layer, phase) } -> std::convertible_to<bool>;
};

namespace detail {
/// Whether the policy, of whatever kind, weighs by values there.
template <class P>
[[nodiscard]] bool asks_for_value_norms(const P& policy, LayerIndex layer, Phase phase) {
  if constexpr (ValueNormPolicy<P>) return policy.needs_value_norms(layer, phase);
  return false;
}
}  // namespace detail

/// How many tokens go on, before the scores are known.
struct KeptBounds {
  std::size_t least;
  std::size_t most;
  friend bool operator==(const KeptBounds&, const KeptBounds&) = default;
};

/// A policy that tells beforehand how many it keeps: kept_bounds(layer, phase, entering, context_size) of `entering`
/// >= 1 candidates after `layer`; both rise with `entering`. A session's byte budget counts with it, without it with
/// all.
template <class P>
concept BoundedPolicy = PruningPolicy<P> && requires(const P& p, LayerIndex layer, Phase phase, std::size_t count) {
  { p.kept_bounds(layer, phase, count, count) } -> std::same_as<KeptBounds>;
};

/// The dense model: every token enters every layer.
struct KeepAll {
  [[nodiscard]] static constexpr KeptBounds kept_bounds(LayerIndex, Phase, std::size_t entering, std::size_t) {
    return {entering, entering};
  }
  [[nodiscard]] static constexpr std::size_t query_rows(LayerIndex, Phase) { return 0; }
  static constexpr void select(const PruneContext&, std::span<bool>) {}
};
static_assert(BoundedPolicy<KeepAll>);

}  // namespace lazyllm::inline v0
