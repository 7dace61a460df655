// Several policies on one item: which records are made, in which order, and what continuations are compared with.
#include <doctest/doctest.h>
#include <lazyllm/eval/comparison.hpp>

#include "support/naive_graph.hpp"
#include "support/random_model.hpp"

#include <span>
#include <string>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

const PresetSchedules presets;

std::vector<PolicySpec> specs() {
  return {parse_policy("none", presets), parse_policy("0:1.0", presets), parse_policy("0:0.3", presets)};
}

template <class Wanted>
std::vector<Record> records_of(const Item& item, Wanted wanted) {
  Random random(3);
  const NaiveLlama model = random_llama(random);
  auto make = [&](std::size_t) { return NaiveGraph(model); };
  std::vector<Record> records;
  const std::vector<PolicySpec> policies = specs();
  run_policies(make, item, std::span<const PolicySpec>(policies), wanted,
               [&](Record record) { records.push_back(std::move(record)); });
  return records;
}

const auto all = [](const PolicySpec&) { return true; };
Item item(Task task) { return {{.task = task}, {{{1, 2, 3, 4, 5, 6, 7, 8}, {}, {3, 2, 1}}}}; }

}  // namespace

TEST_CASE("each wanted policy makes one record, in order") {
  for (const Task task : {Task::needle, Task::continuation}) {
    const std::vector<Record> records = records_of(item(task), all);
    REQUIRE(records.size() == 3);
    CHECK(records[0].policy == "none");
    CHECK(records[1].policy == "0:1.0");
    CHECK(records[2].policy == "0:0.3");
    const auto some = records_of(item(task), [](const PolicySpec& spec) { return spec.text == "0:0.3"; });
    REQUIRE(some.size() == 1);
    CHECK(some[0].policy == "0:0.3");
    CHECK(some[0].result.score.log_probability == records[2].result.score.log_probability);
  }
}

TEST_CASE("a continuation is compared with the dense model, whether its record is wanted or not") {
  const std::vector<Record> records = records_of(item(Task::continuation), all);
  CHECK_FALSE(records[0].continuation);
  REQUIRE(records[1].continuation);
  CHECK(records[1].continuation->positions == 3);
  CHECK(records[1].continuation->kl_mean == 0);
  CHECK(records[2].continuation->kl_mean > 0);
  const auto last = records_of(item(Task::continuation), [](const PolicySpec& spec) { return spec.text == "0:0.3"; });
  CHECK(last[0].continuation->kl_mean == records[2].continuation->kl_mean);
  CHECK_FALSE(records_of(item(Task::needle), all)[2].continuation);
}
