// Finds a model's presets: the schedules of the least work that lose at most so much on given items.
// What an item loses is how far the pruned model's words are from the dense one's (KL), or whether its answer is lost.
// Source: this library's; the search is eval/schedule_search.hpp's.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/any_policy.hpp>
#include <lazyllm/eval/comparison.hpp>
#include <lazyllm/eval/item.hpp>
#include <lazyllm/eval/item_run.hpp>
#include <lazyllm/eval/prefill_work.hpp>
#include <lazyllm/eval/schedule_search.hpp>
#include <lazyllm/llama/recommended.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/top_k_policy.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// What an item loses under a schedule.
enum class CalibrationLoss {
  divergence,    ///< mean KL(dense || pruned) over its scored tokens, in nats
  lost_answers,  ///< 1 where the dense model is right and the pruned one is not, else 0: their share of all items
};

struct CalibrationOptions {
  CalibrationLoss loss = CalibrationLoss::divergence;
  double limit = 0.1;             ///< mean loss an item of `auto`; half of it is that of `safe`, twice that of `fast`
  std::size_t most_trials = 300;  ///< schedules that are tried
  std::size_t probe_items = 6;    ///< items that single entries are tried on
};

struct Calibration {
  std::size_t items = 0;
  PresetSchedules presets;
  std::vector<Trial> trials;  ///< in the order in which they were made
};

/// The mean loss an item that a preset may have.
[[nodiscard]] inline double loss_limit(const CalibrationOptions& options, Preset preset) {
  constexpr std::array<double, 3> factors = {0.5, 1, 2};  // safe, balanced, fast
  return options.limit * factors[static_cast<std::size_t>(preset)];
}

/// Runs schedules on items and says what they lose beside the dense model, which runs once at construction.
template <GraphMaker MakeGraph>
class LossMeter {
 public:
  /// All must outlive the meter. Keeps the dense model's logits of all scored tokens. on_item(done) is called after
  /// each item's dense run and may throw to stop it.
  LossMeter(MakeGraph& make_graph, std::span<const Item> items, CalibrationLoss loss,
            const std::function<void(std::size_t)>& on_item)
      : make_graph_(make_graph), items_(items), loss_(loss), dense_(items.size()) {
    for (std::size_t i = 0; i < items.size(); ++i) {
      dense_right_.push_back(run_dense(make_graph, items[i], dense_[i]).score.right());
      on_item(i + 1);
    }
  }

  /// Of the first `items` items; stops when the sum exceeds `most`.
  [[nodiscard]] ItemsLoss operator()(const StepSchedule& schedule, std::size_t items, double most) const {
    const PolicySpec spec{.text = schedule_text(schedule),
                          .policy = TopKPolicy<>(MeanOverHeads{}, schedule),
                          .decode_revivals = recommended_decode_revivals};
    ItemsLoss lost;
    for (; lost.ran < items && lost.sum <= most; ++lost.ran) lost.sum += item_loss(spec, lost.ran);
    return lost;
  }

  /// Items that the dense model has right.
  [[nodiscard]] std::size_t dense_right() const {
    return static_cast<std::size_t>(std::ranges::count(dense_right_, true));
  }

 private:
  [[nodiscard]] double item_loss(const PolicySpec& spec, std::size_t index) const {
    if (loss_ == CalibrationLoss::lost_answers && !dense_right_[index]) return 0;
    const Record record = compare_with_dense(make_graph_, spec, items_[index], dense_[index]);
    if (loss_ == CalibrationLoss::divergence) return record.continuation->kl_mean;
    return record.result.score.right() ? 0 : 1;
  }

  MakeGraph& make_graph_;
  std::span<const Item> items_;
  CalibrationLoss loss_;
  std::vector<ScoredLogits> dense_;  // by item
  std::vector<bool> dense_right_;
};

/// The presets of a model of `config`: schedules of fractions with a least number of tokens, `none` where nothing stays
/// within the limit.
/// on_trial(trial) false ends the search; the best so far is the result. Throws Error (invalid_argument) for no items,
/// and by lost answers where the dense model has none right.
template <GraphMaker MakeGraph>
[[nodiscard]] Calibration calibrate(
    MakeGraph& make_graph, const LlamaConfig& config, std::span<const Item> items, const CalibrationOptions& options,
    const OnTrial& on_trial, const std::function<void(std::size_t)>& on_dense_item = [](std::size_t) {}) {
  if (items.empty()) throw Error(ErrorCode::invalid_argument, "calibration without items");
  const LossMeter meter(make_graph, items, options.loss, on_dense_item);
  if (options.loss == CalibrationLoss::lost_answers && meter.dense_right() == 0) {
    throw Error(ErrorCode::invalid_argument,
                "calibration by answers: the dense model answers none of " + std::to_string(items.size()) + " items");
  }
  const PrefillWork counted(config);
  const auto all_work = [&](const StepSchedule& schedule) {
    double sum = 0;
    for (const Item& item : items) sum += counted.multiply_adds(schedule, item.turns.at(0).prompt.size());
    return sum;
  };
  const ScheduleMeasure measure{
      .items = items.size(),
      .probe_items = std::min(options.probe_items, items.size()),
      .work = [&, dense = all_work({})](const StepSchedule& schedule) { return all_work(schedule) / dense; },
      .loss = std::cref(meter)};
  std::vector<double> limits;
  std::ranges::transform(preset_names, std::back_inserter(limits),
                         [&](const auto& preset) { return loss_limit(options, preset.first); });
  Calibration result{.items = items.size(), .presets = {}, .trials = {}};
  result.trials =
      search_schedules(SearchSpace::of_model(config.layers), measure, limits, options.most_trials, on_trial);
  for (const auto& [preset, word] : preset_names) {
    result.presets.of(preset) = best_within(result.trials, loss_limit(options, preset), items.size()).schedule;
  }
  return result;
}

}  // namespace lazyllm::inline v0
