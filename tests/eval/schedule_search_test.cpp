// The search against models of a loss whose answer is known, and what it promises about its trials.
#include <doctest/doctest.h>
#include <lazyllm/eval/schedule_search.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <set>
#include <string>
#include <vector>

using namespace lazyllm;

namespace {

constexpr std::size_t layers = 12;

double keep_of(const ScheduleEntry& entry) {
  return static_cast<double>(entry.rule.keep.keep_count(1'000'000, 1'000'000)) / 1e6;
}

/// Layers after an entry cost its keep.
double work(const StepSchedule& schedule) {
  double keep = 1, sum = 0;
  for (LayerIndex layer = 0; layer < layers; ++layer) {
    sum += keep;
    if (const ScheduleEntry* entry = schedule.entry_after(layer)) keep = keep_of(*entry);
  }
  return sum / layers;
}

/// What an entry loses alone: less the later it is and the more it keeps; layer 3 is a good one by the maximum.
double entry_loss(const ScheduleEntry& entry) {
  const bool by_maximum = entry.score->over_heads == Reduction::maximum;
  const double place = entry.layer == 3 && by_maximum ? 9 : static_cast<double>(entry.layer);
  return (1 - keep_of(entry)) * (layers - place) * (by_maximum ? 0.01 : 0.012);
}
double additive_loss(const StepSchedule& schedule) {
  double sum = 0;
  for (const ScheduleEntry& entry : schedule.entries()) sum += entry_loss(entry);
  return sum;
}

/// All items lose the same.
template <class Loss>
ScheduleMeasure measure_of(Loss loss, std::size_t items = 10, std::size_t probe_items = 3) {
  return {items, probe_items, work, [loss](const StepSchedule& schedule, std::size_t count, double most) {
            ItemsLoss lost;
            for (; lost.ran < count && lost.sum <= most; ++lost.ran) lost.sum += loss(schedule);
            return lost;
          }};
}

const OnTrial go_on = [](const Trial&) { return true; };

/// The least work of all schedules of up to three entries of the space whose loss is within the limit.
template <class Loss>
double least_work(const SearchSpace& space, Loss loss, double limit) {
  std::vector<ScheduleEntry> entries;
  double best = 1;
  const auto extend = [&](const auto& self) -> void {
    if (!entries.empty()) {
      const StepSchedule schedule(entries);
      if (loss(schedule) <= limit) best = std::min(best, work(schedule));
    }
    if (entries.size() == space.most_entries) return;
    for (const LayerIndex layer : space.layers) {
      if (!entries.empty() && layer <= entries.back().layer) continue;
      for (const double keep : space.keeps) {
        if (!entries.empty() && keep >= keep_of(entries.back())) continue;
        for (const ScoreRule& score : space.scores) {
          entries.push_back({layer, {KeepRule::fraction(keep), 1, space.protect}, score});
          self(self);
          entries.pop_back();
        }
      }
    }
  };
  extend(extend);
  return best;
}

SearchSpace small_space() {
  SearchSpace space = SearchSpace::of_model(layers);
  space.keeps = {0.5, 0.2, 0.1};
  return space;
}

}  // namespace

TEST_CASE("where losses add up, the search finds the least work within each limit") {
  const SearchSpace space = small_space();
  const std::vector<double> limits = {0.03, 0.06, 0.12};
  const ScheduleMeasure measure = measure_of(additive_loss);
  const std::vector<Trial> trials = search_schedules(space, measure, limits, 1000, go_on);
  for (const double limit : limits) {
    CAPTURE(limit);
    const Trial best = best_within(trials, limit, measure.items);
    CHECK(best.work == doctest::Approx(least_work(space, additive_loss, limit)));
    CHECK(best.work < 1);
    CHECK(additive_loss(best.schedule) <= limit);
  }
  // The good layer is found although its neighbours are worse.
  CHECK(best_within(trials, 0.03, 10).schedule.entries()[0].layer == 3);
}

TEST_CASE("where entries together lose more than alone, the search comes close") {
  const SearchSpace space = small_space();
  const auto loss = [](const StepSchedule& schedule) {
    return additive_loss(schedule) * (1 + 0.5 * static_cast<double>(schedule.entries().size() - 1));
  };
  for (const double limit : {0.03, 0.06, 0.12}) {
    CAPTURE(limit);
    const std::vector<Trial> trials = search_schedules(space, measure_of(loss), {limit}, 1000, go_on);
    const Trial best = best_within(trials, limit, 10);
    CHECK(loss(best.schedule) <= limit);
    CHECK(best.work <= 1.1 * least_work(space, loss, limit));
  }
}

TEST_CASE("no schedule is tried twice on the same items, and those that lose too much are given up") {
  const std::vector<Trial> trials =
      search_schedules(small_space(), measure_of(additive_loss), {0.03, 0.06}, 1000, go_on);
  std::set<std::string> whole;
  for (const Trial& trial : trials) {
    if (trial.items == 10) CHECK(whole.insert(schedule_text(trial.schedule)).second);
    CHECK(trial.loss <= 0.06 + additive_loss(trial.schedule) / 3 + 1e-12);  // one item beyond the limit
    CHECK(trial.work == work(trial.schedule));
  }
}

TEST_CASE("a search ends where it is told to, and when its trials are used up") {
  std::size_t seen = 0;
  const std::vector<Trial> stopped = search_schedules(small_space(), measure_of(additive_loss), {0.06}, 1000,
                                                      [&](const Trial&) { return ++seen < 17; });
  CHECK(stopped.size() == 17);
  for (const std::size_t most : {1u, 2u, 5u, 40u}) {
    CHECK(search_schedules(small_space(), measure_of(additive_loss), {0.06}, most, go_on).size() == most);
  }
}

TEST_CASE("where nothing is within the limit, the dense model is the best") {
  const auto all_lost = [](const StepSchedule&) { return 1.0; };
  const std::vector<Trial> trials = search_schedules(small_space(), measure_of(all_lost), {0.5}, 1000, go_on);
  CHECK(std::ranges::all_of(trials, [](const Trial& trial) { return trial.items <= 2; }));
  const Trial best = best_within(trials, 0.5, 10);
  CHECK(best.schedule == StepSchedule());
  CHECK(best.work == 1);
}

TEST_CASE("the front has what no other whole trial beats") {
  const auto trial = [](const char* schedule, double work, double loss, std::size_t items) {
    return Trial{parse_schedule(schedule), work, loss, items};
  };
  const std::vector<Trial> trials = {trial("1:0.5", 0.5, 0.2, 4), trial("2:0.5", 0.6, 0.3, 4),
                                     trial("3:0.5", 0.7, 0.1, 4), trial("4:0.5", 0.1, 0.0, 3),
                                     trial("5:0.5", 0.5, 0.1, 4), trial("6:0.5", 0.9, 0.0, 4)};
  const std::vector<Trial> front = pareto_front(trials, 4);
  REQUIRE(front.size() == 2);
  CHECK(front[0].schedule == parse_schedule("5:0.5"));
  CHECK(front[1].schedule == parse_schedule("6:0.5"));
  CHECK(pareto_front({}, 4).empty());
}

TEST_CASE("entries may be at every layer but the last, of deep models at some 32") {
  CHECK(SearchSpace::of_model(1).layers.empty());
  CHECK(SearchSpace::of_model(3).layers == std::vector<LayerIndex>{0, 1});
  CHECK(SearchSpace::of_model(30).layers.size() == 29);
  CHECK(SearchSpace::of_model(80).layers.size() == 27);
  CHECK(search_schedules(SearchSpace::of_model(1), measure_of(additive_loss), {0.1}, 10, go_on).empty());
}
