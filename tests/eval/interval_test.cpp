// Intervals against published and hand-made cases.
#include <doctest/doctest.h>
#include <lazyllm/eval/interval.hpp>

#include <cmath>
#include <cstddef>

using namespace lazyllm;

TEST_CASE("Wilson's interval gives the published values") {
  // Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3: to four decimals.
  struct Case {
    std::size_t right, count;
    double low, high;
  };
  for (const Case& c : {Case{81, 263, 0.2553, 0.3662}, Case{15, 148, 0.0624, 0.1605}, Case{0, 20, 0.0, 0.1611},
                        Case{1, 29, 0.0061, 0.1718}}) {
    CAPTURE(c.right);
    const Interval interval = wilson_interval(c.right, c.count);
    CHECK(std::abs(interval.low - c.low) <= 5e-5);
    CHECK(std::abs(interval.high - c.high) <= 5e-5);
  }
}

TEST_CASE("Wilson's bounds are the shares from which the observed one is just 1.96 deviations away") {
  for (const std::size_t right : {1u, 7u, 25u, 39u}) {
    const double count = 40;
    const double share = static_cast<double>(right) / count;
    const Interval interval = wilson_interval(right, 40);
    for (const double bound : {interval.low, interval.high}) {
      CHECK(std::abs(share - bound) / std::sqrt(bound * (1 - bound) / count) == doctest::Approx(z_95));
    }
  }
}

TEST_CASE("Wilson's interval is exact at the ends and says nothing without items") {
  CHECK(wilson_interval(0, 5).low == 0);
  CHECK(wilson_interval(5, 5).high == 1);
  CHECK(wilson_interval(5, 5).low == doctest::Approx(1 - wilson_interval(0, 5).high));
  CHECK(wilson_interval(0, 0).low == 0);
  CHECK(wilson_interval(0, 0).high == 1);
}

TEST_CASE("the interval of a paired difference gives the published values") {
  // Newcombe, Statistics in Medicine 17 (1998) 2635, table III, method 10: to four decimals.
  const PairedCounts counts{.both = 36, .gained = 12, .lost = 2, .neither = 0};
  CHECK(counts.count() == 50);
  CHECK(counts.difference() == doctest::Approx(0.2));
  const Interval interval = paired_interval(counts);
  CHECK(std::abs(interval.low - 0.0569) <= 5e-5);
  CHECK(std::abs(interval.high - 0.3404) <= 5e-5);
}

TEST_CASE("a positive correlation narrows the paired interval, less by the correction for continuity") {
  // The formula by hand: correlation (20 * 12 - 5 * 3 - 40 / 2) / sqrt(25 * 15 * 23 * 17) = 0.5354.
  const Interval interval = paired_interval({.both = 20, .gained = 5, .lost = 3, .neither = 12});
  CHECK(std::abs(interval.low - -0.09257) <= 5e-6);
  CHECK(std::abs(interval.high - 0.18890) <= 5e-6);
}

TEST_CASE("the interval of a paired difference turns with the pair and stays inside [-1, 1]") {
  for (const PairedCounts& c : {PairedCounts{10, 3, 1, 6}, PairedCounts{0, 5, 0, 0}, PairedCounts{9, 0, 0, 4}}) {
    const Interval forth = paired_interval(c);
    const Interval back = paired_interval({c.both, c.lost, c.gained, c.neither});
    CHECK(forth.low == doctest::Approx(-back.high));
    CHECK(forth.high == doctest::Approx(-back.low));
    CHECK(forth.low >= -1);
    CHECK(forth.high <= 1);
    CHECK(forth.low <= c.difference());
    CHECK(forth.high >= c.difference());
  }
  CHECK(paired_interval({}).low == -1);
  CHECK(paired_interval({}).high == 1);
  CHECK(PairedCounts{}.difference() == 0);
}
