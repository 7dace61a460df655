// Many records as one row, against counts and means by hand.
#include <doctest/doctest.h>
#include <lazyllm/eval/summary.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

using namespace lazyllm;

namespace {

Record record(Task task, std::size_t length, std::size_t index, const std::string& policy, bool right, double ttft_ms,
              std::size_t rows = 100) {
  Record made{{task, length, 0.5, index}, policy, {}};
  made.result.score = {.tokens = 1, .log_probability = right ? -0.5 : -2.0, .worst_rank = right ? 0u : 3u};
  made.result.costs = {.ttft_ms = ttft_ms, .rows_computed = rows, .rows_dense = 100, .decode_rows_computed = rows};
  return made;
}

/// Five needles: both, lost, gained, neither right, and one that only the dense model has run; a fact of another
/// length.
std::vector<Record> records() {
  const auto needle = [](std::size_t index, const char* policy, bool right, double ttft_ms, std::size_t rows) {
    return record(Task::needle, 1000, index, policy, right, ttft_ms, rows);
  };
  return {needle(0, "none", true, 100, 100),
          needle(1, "none", true, 100, 100),
          needle(2, "none", false, 120, 100),
          needle(3, "none", false, 100, 100),
          needle(4, "none", true, 100, 100),
          needle(0, "p", true, 50, 40),
          needle(1, "p", false, 50, 50),
          needle(2, "p", true, 40, 60),
          needle(3, "p", false, 80, 50),
          record(Task::facts, 2000, 0, "none", true, 300),
          record(Task::facts, 2000, 0, "p", true, 100)};
}

}  // namespace

TEST_CASE("a row counts pairs, and compares times and rows item by item") {
  const std::optional<SummaryRow> row = summarise(records(), "p", Task::needle);
  REQUIRE(row);
  CHECK(row->items() == 4);
  CHECK(row->counts.both == 1);
  CHECK(row->counts.lost == 1);
  CHECK(row->counts.gained == 1);
  CHECK(row->counts.neither == 1);
  CHECK(row->right() == 2);
  CHECK(row->dense_right() == 2);
  CHECK(row->log_probability_change == doctest::Approx((0 - 1.5 + 1.5 + 0) / 4));
  CHECK(row->ttft_ms == doctest::Approx(50));
  CHECK(row->speed_up == doctest::Approx(2));  // 1.25, 2, 2, 3
  CHECK(row->rows_share == doctest::Approx(0.5));
  CHECK(row->decode_rows_share == doctest::Approx(0.5));
  CHECK_FALSE(row->continuation);
}

TEST_CASE("the dense model retains everything") {
  const SummaryRow row = summarise(records(), "none", Task::needle).value();
  CHECK(row.items() == 5);
  CHECK(row.counts.both == 3);
  CHECK(row.counts.difference() == 0);
  CHECK(row.speed_up == 1);
  CHECK(row.log_probability_change == 0);
}

TEST_CASE("rows are of one task or of all, of one length or of all; none without records") {
  CHECK(summarise(records(), "p")->items() == 5);
  CHECK(summarise(records(), "p", std::nullopt, 2000)->items() == 1);
  CHECK(summarise(records(), "p", Task::facts, 2000)->speed_up == doctest::Approx(3));
  CHECK_FALSE(summarise(records(), "p", Task::facts, 1000));
  CHECK_FALSE(summarise(records(), "q"));
}

TEST_CASE("continuations are averaged, and are not counted among the answers") {
  std::vector<Record> all = records();
  for (std::size_t index = 0; index < 2; ++index) {
    all.push_back(record(Task::continuation, 1000, index, "none", false, 100));
    all.push_back(record(Task::continuation, 1000, index, "p", false, 50));
    all.back().continuation = ContinuationScore{.positions = 10, .kl_mean = index == 0 ? 0.1 : 0.3};
  }
  all.back().continuation->first_difference = 7;
  CHECK(summarise(all, "p")->items() == 5);
  const SummaryRow row = summarise(all, "p", Task::continuation).value();
  REQUIRE(row.continuation);
  CHECK(row.continuation->positions == 20);
  CHECK(row.continuation->kl_mean == doctest::Approx(0.2));
  CHECK(row.continuation->first_difference == std::size_t{7});
}
