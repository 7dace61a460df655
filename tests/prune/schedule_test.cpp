#include <doctest/doctest.h>

#include <lazyllm/prune/schedule.hpp>
#include <string>

using namespace lazyllm;

namespace {

/// The least that a schedule can be: the same after every layer.
struct Archetype {
  ScheduleEntry entry{0, KeepRule::count(4)};
  const ScheduleEntry* entry_after(LayerIndex) const { return &entry; }
};
struct OnlyCounts {
  std::size_t entry_after(LayerIndex) const { return 1; }
};
static_assert(PruningSchedule<Archetype> && !PruningSchedule<OnlyCounts> && !PruningSchedule<int>);

}  // namespace

TEST_CASE("A schedule's text gives its entries in the order of the layers") {
  const StepSchedule schedule = parse_schedule("14:0.25,7:512,20:p30");
  REQUIRE(schedule.entries().size() == 3);
  CHECK(schedule.entries()[0] == ScheduleEntry{7, KeepRule::count(512)});
  CHECK(schedule.entries()[1] == ScheduleEntry{14, KeepRule::fraction(0.25)});
  CHECK(schedule.entries()[2] == ScheduleEntry{20, KeepRule::percentile(30)});
  CHECK(schedule.entry_after(14) == &schedule.entries()[1]);
  CHECK(schedule.entry_after(15) == nullptr);
  CHECK_FALSE(schedule.entries()[1].score.has_value());
}

TEST_CASE("An integer is a count and a number with a point a fraction") {
  CHECK(parse_keep_rule("1") == KeepRule::count(1));
  CHECK(parse_keep_rule("1.0") == KeepRule::fraction(1.0));
  CHECK(parse_keep_rule("0") == KeepRule::count(0));
  CHECK(parse_keep_rule("0.0") == KeepRule::fraction(0.0));
  CHECK(parse_keep_rule(".5") == KeepRule::fraction(0.5));
  CHECK(parse_keep_rule("p0") == KeepRule::percentile(0));
  CHECK(parse_keep_rule("0.35min256") == KeepRule::fraction(0.35).at_least(256));
  CHECK(parse_keep_rule("m0.9min64") == KeepRule::mass(0.9).at_least(64));
  CHECK(parse_keep_rule("p30min1") == KeepRule::percentile(30).at_least(1));
}

TEST_CASE("'none' is a schedule without entries") { CHECK(parse_schedule("none") == StepSchedule()); }

TEST_CASE("Text that is no schedule is an error that quotes the part") {
  for (const std::string text : {"",
                                 ",",
                                 "7",
                                 "7:",
                                 ":3",
                                 "7:x",
                                 "7:-1",
                                 "-7:3",
                                 "7:1.5",
                                 "7:p100",
                                 "7:p",
                                 "7:pp3",
                                 "7:1e-1",
                                 "7:min4",
                                 "7:0.5min",
                                 "7:0.5min0",
                                 "7:0.5min0.5",
                                 "7:0.5min4min5",
                                 "7:0.5,",
                                 "7:0.5,,9:3",
                                 "7:3 ",
                                 " 7:3",
                                 "7:3:4",
                                 "7:0x10",
                                 "7:.",
                                 "7:1.2.3",
                                 "7:nan",
                                 "7:3,7:4",
                                 "99999999999999999999999:3",
                                 "7:99999999999999999999999",
                                 "7:p-1",
                                 "7:m",
                                 "7:m1",
                                 "7:m1.5",
                                 "7:512/",
                                 "7:512/median",
                                 "7:512/max~",
                                 "7:512/max~4",
                                 "7:512/max~257",
                                 "7:512/max~0",
                                 "7:512/max^0",
                                 "7:512/max^2min",
                                 "7:512/max@",
                                 "7:512/max@1.",
                                 "7:512/max@-1",
                                 "7:512/max~7^48",
                                 "7:512/max/mean",
                                 "7:512b",
                                 "7:512b0",
                                 "7:b16",
                                 "first4",
                                 "7:512,first",
                                 "7:512,last-1",
                                 "7:512,tokens5",
                                 "7:512,tokens9-5",
                                 "7:512,tokens1-99999999999",
                                 "7:512,firsts4",
                                 "7:+3"}) {
    CAPTURE(text);
    CHECK_THROWS_AS((void)parse_schedule(text), Error);
  }
  CHECK_THROWS_WITH_AS((void)parse_schedule("3:0.5,bad,9:1"), doctest::Contains("'bad'"), Error);
  CHECK_THROWS_WITH_AS((void)parse_schedule("3:0.5,3:1"), doctest::Contains("layer 3 twice"), Error);
}

TEST_CASE("check names the layer that a model does not have") {
  const StepSchedule schedule = parse_schedule("29:0.5");
  CHECK_NOTHROW(schedule.check(30, 9));
  CHECK_THROWS_WITH_AS(schedule.check(29, 9), doctest::Contains("layer 29"), Error);
  CHECK_NOTHROW(StepSchedule().check(1, 1));
}

TEST_CASE("An entry's own score says heads, rows and neighbours") {
  const auto score_of = [](const char* text) { return parse_schedule(text).entries().front().score; };
  CHECK(score_of("7:512/mean") == ScoreRule{});
  CHECK(score_of("7:512/max~15") == ScoreRule{.over_heads = Reduction::maximum, .pool_width = 15});
  ScoreRule by_value{.over_heads = Reduction::maximum, .heads = {3}, .rows = 4};
  by_value.by_value = true;
  CHECK(score_of("7:0.25/maxv@3^4") == by_value);
  CHECK(schedule_text(parse_schedule("7:0.25/maxv@3^4,9:1/meanv")) == "7:0.25/maxv@3^4,9:1/meanv");
  CHECK(score_of("7:0.25/mean~7mean") == ScoreRule{.pool_width = 7, .pooling = Reduction::mean});
  CHECK(score_of("7:p30/mean^48") == ScoreRule{.rows = 48});
  CHECK(score_of("7:m0.9/max@3.5^48max~15") == ScoreRule{.over_heads = Reduction::maximum,
                                                         .heads = {3, 5},
                                                         .rows = 48,
                                                         .over_rows = Reduction::maximum,
                                                         .pool_width = 15});
  CHECK(parse_schedule("7:512/max,14:256").entries()[1].score == std::nullopt);
}

TEST_CASE("Blocks belong to an entry, protected tokens to all of them") {
  const StepSchedule schedule = parse_schedule("first4,7:512b16/max,tokens100-180,14:0.25,last32,tokens7-7");
  const ProtectedTokens protect{.first = 4, .last = 32, .ranges = {{100, 181}, {7, 8}}};
  REQUIRE(schedule.entries().size() == 2);
  CHECK(schedule.entries()[0].rule == SelectionRule(KeepRule::count(512), 16, protect));
  CHECK(schedule.entries()[1].rule == SelectionRule(KeepRule::fraction(0.25), 1, protect));
}

TEST_CASE("schedule_text is what parse_schedule read, in the order of the layers") {
  for (const std::string text :
       {"none", "7:512", "7:512/max~15,14:256,20:128", "2:0.7/max^48max,7:0.4b8/max~15mean,14:p15/mean@0.3.8,20:m0.95",
        "14:0.2,20:0.1,first4,last32,tokens100-180,tokens7-7", "7:0.35min256b16/max~15,17:m0.9min64,21:p30min1"}) {
    CAPTURE(text);
    CHECK(schedule_text(parse_schedule(text)) == text);
  }
  CHECK(schedule_text(parse_schedule("last2,20:0.10,7:00512/max^1~1")) == "7:512/max,20:0.1,last2");
}

TEST_CASE("check names the head that a model does not have") {
  const StepSchedule schedule = parse_schedule("7:5/max@2.9");
  CHECK_NOTHROW(schedule.check(30, 10));
  CHECK_THROWS_WITH_AS(schedule.check(30, 9), doctest::Contains("head 9"), Error);
}
