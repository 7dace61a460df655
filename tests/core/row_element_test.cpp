#include <doctest/doctest.h>

#include <lazyllm/core/row_element.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <span>
#include <vector>

using namespace lazyllm;

namespace {

static_assert(RowElement<float> && RowElement<Float16> && RowElement<BFloat16> && RowElement<Int8>);
static_assert(!RowElement<double> && !RowElement<const float> && !RowElement<std::int8_t>);
static_assert(row_size<float>(5) == 5 && row_bytes<BFloat16>(5) == 10 && row_bytes<Float16>(5) == 10);
static_assert(row_bytes<Int8>(64) == 68 && row_bytes<Int8>(5) == 12 && row_bytes<Int8>(1) == 8);

/// Half a step of the row's element around x, in a row whose largest magnitude is `largest`.
template <RowElement Element>
double half_step(double x, double largest) {
  // A code times the scale is rounded, and so is the scale: three float roundings of at most `largest`.
  if (std::same_as<Element, Int8>) return largest * (1.0 / 254.0 + 3 * 0x1p-24);
  if (std::same_as<Element, Float16>) return std::fmax(std::fabs(x) * 0x1p-11, 0x1p-25);
  return std::same_as<Element, BFloat16> ? std::fabs(x) * 0x1p-8 : 0.0;
}

template <RowElement Element>
std::vector<float> there_and_back(const std::vector<float>& row) {
  std::vector<Element> stored(row_size<Element>(row.size()));
  encode_row(row, stored.data());
  std::vector<float> back(row.size());
  decode_row(stored.data(), std::span(back));
  return back;
}

}  // namespace

TEST_CASE_TEMPLATE("A stored row differs from its numbers by at most half a step of its element", Element, float,
                   Float16, BFloat16, Int8) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const std::size_t n : {1u, 3u, 16u, 64u, 77u}) {
    for (const float magnitude : {1e-3f, 1.0f, 300.0f}) {
      std::vector<float> row(n);
      for (float& x : row) x = normal(random) * magnitude;
      double largest = 0.0;
      for (const float x : row) largest = std::max(largest, std::fabs(double{x}));
      const std::vector<float> back = there_and_back<Element>(row);
      for (std::size_t i = 0; i < n; ++i) {
        CHECK(std::fabs(double{back[i]} - double{row[i]}) <= half_step<Element>(double{row[i]}, largest));
      }
    }
  }
}

TEST_CASE("Codes of 8 bits are rounded to nearest even, reach 127 on both sides and end in zeros") {
  const std::vector<float> row{127.0f, -127.0f, 2.5f, 3.5f, -2.5f, 0.49f};
  std::vector<Int8> stored(row_size<Int8>(6), Int8{99});
  encode_row(row, stored.data());
  CHECK(detail::row_scale(stored.data()) == 1.0f);
  const std::int8_t expected[] = {127, -127, 2, 4, -2, 0, 0, 0};
  CHECK(std::equal(std::begin(expected), std::end(expected), detail::row_codes(stored.data())));
}

TEST_CASE("A row of zeros, or of numbers too small for a scale, comes back as zeros") {
  for (const float x : {0.0f, 1e-28f, 1e-38f, -1e-40f}) {
    for (const float y : there_and_back<Int8>({x, 0.0f, x})) CHECK(y == 0.0f);
  }
  CHECK(there_and_back<Int8>({1e30f, -3.4e38f})[1] == doctest::Approx(-3.4e38).epsilon(1e-6));
}
