#include <doctest/doctest.h>

#include <lazyllm/prune/keep_rule.hpp>
#include <limits>

using namespace lazyllm;

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

TEST_CASE("A rule with a least number keeps at least so many, where so many enter") {
  CHECK(KeepRule::fraction(0.25).at_least(100).keep_count(300, 300) == 100);
  CHECK(KeepRule::fraction(0.25).at_least(100).keep_count(400, 400) == 100);
  CHECK(KeepRule::fraction(0.25).at_least(100).keep_count(404, 404) == 101);
  CHECK(KeepRule::fraction(0.25).at_least(100).keep_count(40, 300) == 40);
  CHECK(KeepRule::percentile(90).at_least(30).keep_count(200, 1000) == 30);
  CHECK(KeepRule::count(5).at_least(7).keep_count(10, 10) == 7);
  CHECK(KeepRule::mass(0.9).at_least(7).least_count(10, 10) == 7);
  CHECK(KeepRule::mass(0.9).at_least(7).least_count(5, 5) == 5);
  CHECK(KeepRule::mass(0.9).least_count(5, 5) == 1);
  CHECK(KeepRule::fraction(0.25).at_least(2).least_count(40, 40) == 10);
  CHECK(KeepRule::mass(0.9).at_least(7).keep_count(10, 10) == 10);
}

TEST_CASE("Rules outside their range are errors that name the number") {
  CHECK_THROWS_WITH_AS((void)KeepRule::fraction(1.5), doctest::Contains("1.5"), Error);
  CHECK_THROWS_AS((void)KeepRule::fraction(-0.1), Error);
  CHECK_THROWS_AS((void)KeepRule::fraction(std::numeric_limits<double>::quiet_NaN()), Error);
  CHECK_THROWS_WITH_AS((void)KeepRule::percentile(100), doctest::Contains("p100"), Error);
}

TEST_CASE("An attention mass keeps what the scores say, at most everything") {
  const KeepRule rule = KeepRule::mass(0.9);
  CHECK(rule.is_mass());
  CHECK(rule.mass_share() == 0.9);
  CHECK(rule.keep_count(7, 100) == 7);
  CHECK_FALSE(KeepRule::fraction(0.9).is_mass());
  CHECK_THROWS_WITH_AS((void)KeepRule::mass(1.5), doctest::Contains("mass 1.5"), Error);
}

TEST_CASE("A rule's text is the shortest that says it") {
  CHECK(KeepRule::fraction(0.25).text() == "0.25");
  CHECK(KeepRule::fraction(1.0).text() == "1.0");
  CHECK(KeepRule::fraction(0.0).text() == "0.0");
  CHECK(KeepRule::fraction(0.000000001).text() == "0.000000001");
  CHECK(KeepRule::count(512).text() == "512");
  CHECK(KeepRule::percentile(30).text() == "p30");
  CHECK(KeepRule::mass(0.95).text() == "m0.95");
}
