// Calibration of a model that is known to look answers up: what its presets keep, and what an item loses.
#include <doctest/doctest.h>
#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/calibration.hpp>

#include "support/eval_text.hpp"
#include "support/lookup_graph.hpp"

#include <cstddef>
#include <limits>
#include <string>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

constexpr double no_limit = std::numeric_limits<double>::infinity();
const LlamaConfig config{.layers = 3, .hidden_dim = 4, .heads = 1, .kv_heads = 1, .head_dim = 4, .ffn_dim = 8};

LookupGraph make_lookup(std::size_t) { return LookupGraph(byte_tokenizer().vocab_size()); }

std::vector<Item> needles(std::size_t count) {
  static const SourceText source(natural_text, byte_tokenizer());
  const ItemMaker maker(source, byte_tokenizer(), nullptr, {});
  std::vector<Item> items;
  for (std::size_t i = 0; i < count; ++i) items.push_back(maker.make({Task::needle, 700, 0.5, i}));
  return items;
}

const OnTrial go_on = [](const Trial&) { return true; };
const auto no_news = [](std::size_t) {};

}  // namespace

TEST_CASE("an item loses its answer where its tokens are dropped, and nothing where all are kept") {
  auto make = make_lookup;
  const std::vector<Item> items = needles(3);
  const LossMeter lost(make, items, CalibrationLoss::lost_answers, no_news);
  CHECK(lost.dense_right() == 3);
  CHECK(lost(parse_schedule("0:1.0"), 3, no_limit).sum == 0);
  CHECK(lost(parse_schedule("0:1"), 3, no_limit).sum == 3);  // the last token alone looks nothing up
  CHECK(lost(parse_schedule("0:1"), 2, no_limit).sum == 2);
  CHECK(lost(parse_schedule("0:1"), 3, 0.5).ran == 1);  // given up

  const LossMeter divergence(make, items, CalibrationLoss::divergence, no_news);
  CHECK(divergence(parse_schedule("0:1.0"), 3, no_limit).sum == 0);
  CHECK(divergence(parse_schedule("0:1"), 3, no_limit).sum > 1);
}

TEST_CASE("presets stay within their limits and are the least work that was tried") {
  auto make = make_lookup;
  const std::vector<Item> items = needles(4);
  std::vector<std::size_t> dense;
  const CalibrationOptions options{.loss = CalibrationLoss::lost_answers, .limit = 0.5, .most_trials = 60};
  const Calibration found = calibrate(make, config, items, options, go_on, [&](std::size_t i) { dense.push_back(i); });
  CHECK(dense == std::vector<std::size_t>{1, 2, 3, 4});
  CHECK(found.items == 4);
  CHECK(found.trials.size() <= 60);
  const LossMeter meter(make, items, options.loss, no_news);
  for (const auto& [preset, text] : preset_names) {
    const std::string word(text);
    CAPTURE(word);
    const StepSchedule& schedule = found.presets.of(preset);
    CHECK(meter(schedule, 4, no_limit).sum <= 4 * loss_limit(options, preset));
    const double work = best_within(found.trials, loss_limit(options, preset), 4).work;
    for (const Trial& trial : found.trials) {
      if (trial.items == 4 && trial.loss <= loss_limit(options, preset)) CHECK(trial.work >= work);
    }
  }
}

TEST_CASE("limits of the presets are half, one and two times the given one") {
  const CalibrationOptions options{.limit = 0.3};
  CHECK(loss_limit(options, Preset::safe) == doctest::Approx(0.15));
  CHECK(loss_limit(options, Preset::balanced) == doctest::Approx(0.3));
  CHECK(loss_limit(options, Preset::fast) == doctest::Approx(0.6));
}

TEST_CASE("calibration without anything to measure is refused") {
  auto make = make_lookup;
  CHECK_THROWS_AS(calibrate(make, config, {}, {}, go_on), Error);
  std::vector<Item> wrong = needles(2);
  for (Item& item : wrong) item.turns[0].answer = {1, 1, 1};
  const CalibrationOptions answers{.loss = CalibrationLoss::lost_answers};
  CHECK_THROWS_AS(calibrate(make, config, wrong, answers, go_on), Error);
  CHECK_NOTHROW(calibrate(make, config, wrong, {.most_trials = 3}, go_on));
}
