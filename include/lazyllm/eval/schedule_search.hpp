// Looks for the schedule of the least work whose loss stays within a limit, by trying schedules on items.
// First every layer alone: which score is best there, and what each keep loses. Then combinations, the least work
// first, as far as the losses of their entries together promise to stay within the limit. Source: this library's.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/prune/keep_rule.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/scorer.hpp>
#include <lazyllm/prune/selection.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// A schedule that was tried.
struct Trial {
  StepSchedule schedule;
  double work = 1;        ///< of the dense model's
  double loss = 0;        ///< mean over the items that it was to run; those after it was given up count as 0
  std::size_t items = 0;  ///< that ran
};

/// What schedules are made of.
struct SearchSpace {
  std::vector<LayerIndex> layers;                                  ///< where entries may be, rising
  std::vector<double> keeps = {0.5, 0.35, 0.25, 0.15, 0.1, 0.05};  ///< shares of the context, falling
  std::size_t least_tokens = 128;                                  ///< kept whatever the share: short prompts
  std::vector<ScoreRule> scores = {
      {.pool_width = 7, .pooling = Reduction::mean},
      {.over_heads = Reduction::maximum, .rows = 24, .over_rows = Reduction::maximum, .pool_width = 15},
      {}};
  ProtectedTokens protect = {.first = 4, .last = 32};
  std::size_t most_entries = 3;  ///< of a schedule

  /// Of a model of `layer_count` layers: at most 32 places, evenly spread.
  static SearchSpace of_model(std::size_t layer_count) {
    SearchSpace space;
    const std::size_t stride = (layer_count + 31) / 32;
    for (LayerIndex layer = 0; layer + 1 < layer_count; layer += stride) space.layers.push_back(layer);
    return space;
  }
};

/// What running some items lost.
struct ItemsLoss {
  double sum = 0;
  std::size_t ran = 0;
};

/// How a schedule is measured.
struct ScheduleMeasure {
  std::size_t items = 1;                            ///< of a whole trial
  std::size_t probe_items = 1;                      ///< of one that looks at a single entry
  std::function<double(const StepSchedule&)> work;  ///< of the dense model's
  /// Runs the first `items` items; it may stop when the sum exceeds `most`.
  std::function<ItemsLoss(const StepSchedule&, std::size_t items, double most)> loss;
};

/// Called after each trial; false ends the search.
using OnTrial = std::function<bool(const Trial&)>;

/// The trials of a search for the least work within each of `limits` (mean losses), at most `most_trials`.
/// O(trials * items) runs; the combinations of three entries are listed first, up to some 100,000.
[[nodiscard]] std::vector<Trial> search_schedules(const SearchSpace& space, const ScheduleMeasure& measure,
                                                  std::vector<double> limits, std::size_t most_trials,
                                                  const OnTrial& on_trial);

/// The least work among the trials of all `items` items whose loss is within the limit; the dense model where there is
/// none.
[[nodiscard]] inline Trial best_within(std::span<const Trial> trials, double limit, std::size_t items) {
  Trial best{.schedule = {}, .items = items};
  for (const Trial& trial : trials) {
    if (trial.items == items && trial.loss <= limit && trial.work < best.work) best = trial;
  }
  return best;
}

/// The trials of all `items` items that no other one beats in both work and loss, by rising work.
[[nodiscard]] inline std::vector<Trial> pareto_front(std::span<const Trial> trials, std::size_t items) {
  std::vector<Trial> front;
  for (const Trial& trial : trials) {
    if (trial.items == items) front.push_back(trial);
  }
  std::ranges::stable_sort(
      front, [](const Trial& a, const Trial& b) { return a.work != b.work ? a.work < b.work : a.loss < b.loss; });
  double least = std::numeric_limits<double>::infinity();
  std::erase_if(front, [&least](const Trial& trial) {
    const bool beaten = trial.loss >= least;
    least = std::min(least, trial.loss);
    return beaten;
  });
  return front;
}

namespace detail {

class ScheduleSearch {
 public:
  ScheduleSearch(const SearchSpace& space, const ScheduleMeasure& measure, std::size_t most_trials,
                 const OnTrial& on_trial)
      : space_(space), measure_(measure), most_trials_(most_trials), on_trial_(on_trial) {}

  /// Single entries: at each layer the best score, and with it the keeps that lose at most `most`. Late layers first,
  /// which lose least: a search that is ended early has found something.
  void probe(double most) {
    for (auto layer = space_.layers.rbegin(); layer != space_.layers.rend() && !done_; ++layer) {
      std::optional<Single> best;
      const std::size_t middle = space_.keeps.size() / 2;
      for (const ScoreRule& score : space_.scores) {
        const Single single = probe({*layer, space_.keeps[middle], score}, best ? std::min(most, best->loss) : most);
        if (!best || single.loss < best->loss) best = single;
        if (done_) break;
      }
      add(*best, most);
      const auto probe_keep = [&](std::size_t i) {
        return add(probe({*layer, space_.keeps[i], best->score}, most), most);
      };
      for (std::size_t i = middle; i-- > 0 && !done_;) probe_keep(i);
      for (std::size_t i = middle + 1; i < space_.keeps.size() && !done_ && best->loss <= most && probe_keep(i);) ++i;
    }
  }

  /// All combinations of entries whose losses add up to at most `most`.
  void combine(double most) {
    Combination chain;
    extend(chain, most);
    std::ranges::stable_sort(combinations_, {}, &Combination::work);
  }

  /// Tries combinations by rising work until one is within the limit.
  void walk(double limit) {
    double least_work = 0;
    for (const Combination& next : combinations_) {
      if (done_) return;
      if (next.work < least_work || next.loss * excess() > limit) continue;
      const Trial trial = run(schedule_of(next), measure_.items, limit);
      if (trial.loss <= limit) return;
      if (next.loss > 0) excesses_.push_back(trial.loss / next.loss);
      least_work = next.work * work_step;
    }
  }

  [[nodiscard]] std::vector<Trial> take_trials() { return std::move(trials_); }

 private:
  /// One entry, and what it loses alone.
  struct Single {
    LayerIndex layer;
    double keep;
    ScoreRule score;
    double loss = 0;
  };
  struct Combination {
    std::vector<const Single*> singles;  // by rising layers and falling keeps
    double loss = 0;                     // the sum of theirs
    double work = 0;
  };
  static constexpr double work_step = 1.01;  // from one that loses too much to the next that is tried

  Single probe(Single single, double most) {
    single.loss = run(schedule_of({.singles = {&single}}), measure_.probe_items, most).loss;
    return single;
  }
  /// Whether it is within `most`.
  bool add(const Single& single, double most) {
    if (done_ || single.loss > most) return false;  // the last one may be cut short
    singles_.push_back(single);
    return true;
  }

  [[nodiscard]] StepSchedule schedule_of(const Combination& combination) const {
    std::vector<ScheduleEntry> entries;
    for (const Single* single : combination.singles) {
      entries.push_back({single->layer,
                         {KeepRule::fraction(single->keep).at_least(space_.least_tokens), 1, space_.protect},
                         single->score});
    }
    return StepSchedule(std::move(entries));
  }

  /// On the first `items` items; what ran already is not run again.
  Trial run(const StepSchedule& schedule, std::size_t items, double limit) {
    for (const Trial& trial : trials_) {
      if (trial.schedule == schedule && (trial.items == items || trial.loss > limit)) return trial;
    }
    const auto count = static_cast<double>(items);
    const ItemsLoss lost = measure_.loss(schedule, items, limit * count);
    trials_.push_back({schedule, measure_.work(schedule), lost.sum / count, lost.ran});
    done_ = !on_trial_(trials_.back()) || trials_.size() >= most_trials_;
    return trials_.back();
  }

  void extend(Combination& chain, double most) {
    for (const Single& single : singles_) {
      const Single* const last = chain.singles.empty() ? nullptr : chain.singles.back();
      if (chain.loss + single.loss > most) continue;
      if (last != nullptr && (single.layer <= last->layer || single.keep >= last->keep)) continue;
      Combination longer{chain.singles, chain.loss + single.loss};
      longer.singles.push_back(&single);
      longer.work = measure_.work(schedule_of(longer));
      combinations_.push_back(longer);
      if (longer.singles.size() < space_.most_entries) extend(longer, most);
    }
  }

  /// By how much combinations lose more than their entries do alone: the median of what was seen last.
  [[nodiscard]] double excess() const {
    if (excesses_.empty()) return 1;
    std::vector<double> last(excesses_.end() - static_cast<std::ptrdiff_t>(std::min<std::size_t>(9, excesses_.size())),
                             excesses_.end());
    std::ranges::sort(last);
    return last[last.size() / 2];
  }

  const SearchSpace& space_;
  const ScheduleMeasure& measure_;
  std::size_t most_trials_;
  const OnTrial& on_trial_;
  std::vector<Single> singles_;
  std::vector<Combination> combinations_;  // by rising work
  std::vector<double> excesses_;
  std::vector<Trial> trials_;
  bool done_ = false;
};

}  // namespace detail

inline std::vector<Trial> search_schedules(const SearchSpace& space, const ScheduleMeasure& measure,
                                           std::vector<double> limits, std::size_t most_trials,
                                           const OnTrial& on_trial) {
  LAZYLLM_EXPECTS(!space.keeps.empty() && !space.scores.empty() && !limits.empty() && most_trials != 0);
  LAZYLLM_EXPECTS(measure.probe_items != 0 && measure.probe_items <= measure.items);
  std::ranges::sort(limits, std::greater());
  detail::ScheduleSearch search(space, measure, most_trials, on_trial);
  search.probe(limits.front());
  search.combine(limits.front());
  for (const double limit : limits) search.walk(limit);
  return search.take_trials();
}

}  // namespace lazyllm::inline v0
