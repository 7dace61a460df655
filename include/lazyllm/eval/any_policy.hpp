// Policies by name, chosen at run time: what an evaluation compares, as text and as one type for the engine.
// AnyPolicy is a PruningPolicy that holds one of the others; a PolicySpec says which, and how decode steps prune.
// Source: the policies of lazyllm/prune and lazyllm/graph/filter_prompt.hpp.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/revival_budget.hpp>
#include <lazyllm/llama/recommended.hpp>
#include <lazyllm/prune/baselines.hpp>
#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/policy.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/scorer.hpp>
#include <lazyllm/prune/top_k_policy.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace lazyllm::inline v0 {

/// Any policy that a PolicySpec names. Costs one branch a selection.
class AnyPolicy {
 public:
  using FastKv = decltype(fast_kv(0, KeepRule::count(1)));
  using Variant = std::variant<KeepAll, TopKPolicy<>, RandomDrop, FirstAndRecent, FastKv>;

  explicit AnyPolicy(Variant policy) : policy_(std::move(policy)) {}

  void prepare(const PruningShape& shape) {
    std::visit(
        [&](auto& policy) {
          if constexpr (requires { policy.prepare(shape); }) policy.prepare(shape);
        },
        policy_);
  }
  [[nodiscard]] std::size_t query_rows(LayerIndex layer, Phase phase) const {
    return std::visit([&](const auto& policy) { return std::size_t{policy.query_rows(layer, phase)}; }, policy_);
  }
  [[nodiscard]] bool needs_value_norms(LayerIndex layer, Phase phase) const {
    return std::visit([&](const auto& policy) { return detail::asks_for_value_norms(policy, layer, phase); }, policy_);
  }
  void select(const PruneContext& context, std::span<bool> keep) {
    std::visit([&](auto& policy) { policy.select(context, keep); }, policy_);
  }
  [[nodiscard]] std::span<const float> importance() const {
    return std::visit(
        [](const auto& policy) -> std::span<const float> {
          if constexpr (requires { policy.importance(); }) return policy.importance();
          return {};
        },
        policy_);
  }

 private:
  Variant policy_;
};
static_assert(ScoringPolicy<AnyPolicy>);

/// One policy of a comparison.
struct PolicySpec {
  std::string text;                   ///< as the user named it
  std::optional<Preset> preset = {};  ///< which one the text names, if one
  AnyPolicy::Variant policy = KeepAll{};
  std::optional<ScheduleEntry> filter = {};  ///< GemFilter: the prompt is filtered by this entry first
  bool revive_in_decode = true;
  RevivalBudget decode_revivals = {};
  AnyEviction eviction = {};
};

/// A policy's text:
///   POLICY  BODY, then any of +cached (decode steps revive nothing), +reviveN (at most N tokens a layer and step; or
///           as parse_revival_budget reads it) and an eviction as +tova:512 (parse_eviction)
///   BODY    none, a SCHEDULE (parse_schedule), safe, auto or fast (the presets; +revive8,16,0 unless told), or
///           random=SCHEDULE       as many random tokens as the schedule keeps
///           random=KEEP           before the model
///           static_pruning=LAYER:KEEP, fast_kv=LAYER:KEEP    implies +cached
///           gem_filter=LAYER:KEEP[/SCORE][,PROTECT]
///           first_and_recent=FIRST,RECENT                    before the model
/// `seed` is of the random draws. Throws Error (invalid_argument) for others.
[[nodiscard]] PolicySpec parse_policy(std::string_view text, const PresetSchedules& presets, std::uint64_t seed = 1);

namespace detail {

inline ScheduleEntry single_entry(std::string_view name, std::string_view text) {
  const StepSchedule schedule = parse_schedule(text);
  if (schedule.entries().size() != 1) {
    throw Error(ErrorCode::invalid_argument,
                "policy " + std::string(name) + ": '" + std::string(text) + "' is not one LAYER:KEEP");
  }
  return schedule.entries()[0];
}

/// A layer and a keep, nothing else.
inline ScheduleEntry plain_entry(std::string_view name, std::string_view text) {
  ScheduleEntry entry = single_entry(name, text);
  if (entry != ScheduleEntry{entry.layer, entry.rule.keep}) {
    throw Error(ErrorCode::invalid_argument,
                "policy " + std::string(name) + " takes LAYER:KEEP alone, not '" + std::string(text) + "'");
  }
  return entry;
}

inline RandomDrop parse_random(std::string_view text, std::uint64_t seed) {
  if (text.find(':') != std::string_view::npos) return {parse_schedule(text), seed};
  return {StepSchedule({{before_first_layer, parse_keep_rule(text)}}), seed};
}

inline FirstAndRecent parse_first_and_recent(std::string_view text) {
  std::string_view first = text, recent;
  FirstAndRecent policy;
  if (!split_at(',', first, recent) || !parse_number(first, policy.first) || !parse_number(recent, policy.recent)) {
    throw Error(ErrorCode::invalid_argument,
                "policy first_and_recent: '" + std::string(text) + "' is not FIRST,RECENT as 4,1020");
  }
  return policy;
}

}  // namespace detail

inline PolicySpec parse_policy(std::string_view text, const PresetSchedules& presets, std::uint64_t seed) {
  PolicySpec spec{.text = std::string(text), .preset = preset_named(text.substr(0, text.find('+')))};
  std::string_view body = text, rest, value;
  if (spec.preset) spec.decode_revivals = recommended_decode_revivals;
  for (bool more = detail::split_at('+', body, rest); more;) {
    std::string_view part = rest;
    more = detail::split_at('+', part, rest);
    if (part == "cached") {
      spec.revive_in_decode = false;
    } else if (part.find(':') != std::string_view::npos) {
      spec.eviction = parse_eviction(part);
    } else if (part.starts_with("revive")) {
      spec.decode_revivals = parse_revival_budget(part.substr(6));
    } else {
      throw Error(ErrorCode::invalid_argument, "policy '" + spec.text + "': '" + std::string(part) +
                                                   "' is neither cached, nor a bound as revive16, nor an eviction as "
                                                   "tova:512");
    }
  }
  if (!detail::split_at('=', body, value)) {
    const StepSchedule schedule = spec.preset ? presets.of(*spec.preset) : parse_schedule(body);
    if (!schedule.entries().empty()) spec.policy = TopKPolicy<>(MeanOverHeads{}, schedule);
  } else if (body == "random") {
    spec.policy = detail::parse_random(value, seed);
  } else if (body == "static_pruning") {
    const ScheduleEntry entry = detail::plain_entry(body, value);
    spec.policy = static_pruning(entry.layer, entry.rule.keep);
    spec.revive_in_decode = false;
  } else if (body == "fast_kv") {
    const ScheduleEntry entry = detail::plain_entry(body, value);
    spec.policy = fast_kv(entry.layer, entry.rule.keep);
    spec.revive_in_decode = false;
  } else if (body == "gem_filter") {
    spec.filter = detail::single_entry(body, value);
  } else if (body == "first_and_recent") {
    spec.policy = detail::parse_first_and_recent(value);
  } else {
    throw Error(ErrorCode::invalid_argument,
                "no policy is named '" + std::string(body) +
                    "'; there are random, static_pruning, fast_kv, gem_filter and first_and_recent");
  }
  return spec;
}

}  // namespace lazyllm::inline v0
