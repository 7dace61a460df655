#include <doctest/doctest.h>

#include <lazyllm/prune/schedule.hpp>
#include <string>

using namespace lazyllm;

namespace {

struct NoKeepCount {
  bool prunes_after(LayerIndex) const { return true; }
};
static_assert(!PruningSchedule<NoKeepCount> && !PruningSchedule<int>);

}  // namespace

TEST_CASE("A fraction is of the whole context, rounded up, and clipped to the entering tokens") {
  CHECK(KeepRule::fraction(0.25).keep_count(10, 10) == 3);
  CHECK(KeepRule::fraction(0.25).keep_count(100, 8) == 2);
  CHECK(KeepRule::fraction(0.5).keep_count(3, 100) == 3);
  CHECK(KeepRule::fraction(0.0).keep_count(7, 7) == 1);
  CHECK(KeepRule::fraction(1.0).keep_count(7, 7) == 7);
  CHECK(KeepRule::fraction(0.001).keep_count(5, 5) == 1);
}

TEST_CASE("A fraction is exact where binary floating point is not") {
  // 0.07 * 100 is 7.000000000000001 in double; 0.29 * 100 is 28.999999999999996.
  CHECK(KeepRule::fraction(0.07).keep_count(100, 100) == 7);
  CHECK(KeepRule::fraction(0.29).keep_count(100, 100) == 29);
  for (std::size_t percent = 0; percent <= 100; ++percent) {
    for (std::size_t context : {1u, 7u, 100u, 4096u, 131072u}) {
      const std::size_t exact = std::max<std::size_t>(1, (percent * context + 99) / 100);
      CHECK(KeepRule::fraction(static_cast<double>(percent) / 100.0).keep_count(context, context) == exact);
    }
  }
}

TEST_CASE("A fraction of a context beyond 32 bits does not overflow") {
  const std::size_t context = std::size_t{1} << 50;
  CHECK(KeepRule::fraction(0.5).keep_count(context, context) == context / 2);
}

TEST_CASE("A count is clipped to [1, entering]") {
  CHECK(KeepRule::count(512).keep_count(1000, 4000) == 512);
  CHECK(KeepRule::count(512).keep_count(100, 4000) == 100);
  CHECK(KeepRule::count(0).keep_count(100, 4000) == 1);
  CHECK(KeepRule::count(1).keep_count(100, 4000) == 1);
}

TEST_CASE("A percentile drops floor(N n / 100) of the entering tokens") {
  CHECK(KeepRule::percentile(30).keep_count(10, 1000) == 7);
  CHECK(KeepRule::percentile(30).keep_count(3, 1000) == 3);
  CHECK(KeepRule::percentile(99).keep_count(1, 1000) == 1);
  CHECK(KeepRule::percentile(99).keep_count(250, 1000) == 3);
  CHECK(KeepRule::percentile(0).keep_count(250, 1000) == 250);
  for (std::size_t n = 1; n < 300; ++n) {
    for (std::uint64_t percent : {1u, 33u, 50u, 99u}) {
      CHECK(KeepRule::percentile(percent).keep_count(n, n) == n - percent * n / 100);
    }
  }
}

TEST_CASE("Rules outside their range are errors that name the number") {
  CHECK_THROWS_WITH_AS((void)KeepRule::fraction(1.5), doctest::Contains("1.5"), Error);
  CHECK_THROWS_AS((void)KeepRule::fraction(-0.1), Error);
  CHECK_THROWS_AS((void)KeepRule::fraction(std::numeric_limits<double>::quiet_NaN()), Error);
  CHECK_THROWS_WITH_AS((void)KeepRule::percentile(100), doctest::Contains("p100"), Error);
}

TEST_CASE("A schedule's text gives its entries in the order of the layers") {
  const StepSchedule schedule = parse_schedule("14:0.25,7:512,20:p30");
  REQUIRE(schedule.entries().size() == 3);
  CHECK(schedule.entries()[0] == ScheduleEntry{7, KeepRule::count(512)});
  CHECK(schedule.entries()[1] == ScheduleEntry{14, KeepRule::fraction(0.25)});
  CHECK(schedule.entries()[2] == ScheduleEntry{20, KeepRule::percentile(30)});
  CHECK(schedule.prunes_after(14));
  CHECK_FALSE(schedule.prunes_after(15));
  CHECK(schedule.keep_count(14, 100, 100) == 25);
  CHECK(schedule.keep_count(15, 100, 100) == 100);
}

TEST_CASE("An integer is a count and a number with a point a fraction") {
  CHECK(parse_keep_rule("1") == KeepRule::count(1));
  CHECK(parse_keep_rule("1.0") == KeepRule::fraction(1.0));
  CHECK(parse_keep_rule("0") == KeepRule::count(0));
  CHECK(parse_keep_rule("0.0") == KeepRule::fraction(0.0));
  CHECK(parse_keep_rule(".5") == KeepRule::fraction(0.5));
  CHECK(parse_keep_rule("p0") == KeepRule::percentile(0));
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
                                 "7:+3"}) {
    CAPTURE(text);
    CHECK_THROWS_AS((void)parse_schedule(text), Error);
  }
  CHECK_THROWS_WITH_AS((void)parse_schedule("3:0.5,bad,9:1"), doctest::Contains("'bad'"), Error);
  CHECK_THROWS_WITH_AS((void)parse_schedule("3:0.5,3:1"), doctest::Contains("layer 3 twice"), Error);
}

TEST_CASE("check names the layer that a model does not have") {
  const StepSchedule schedule = parse_schedule("29:0.5");
  CHECK_NOTHROW(schedule.check(30));
  CHECK_THROWS_WITH_AS(schedule.check(29), doctest::Contains("layer 29"), Error);
  CHECK_NOTHROW(StepSchedule().check(1));
}
