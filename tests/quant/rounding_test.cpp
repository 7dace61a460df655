#include <lazyllm/quant/rounding.hpp>

#include <doctest/doctest.h>

#include <limits>

using lazyllm::detail::rounded_code;
using lazyllm::detail::truncated_code;

TEST_CASE("truncated_code truncates and clips") {
  CHECK(truncated_code(6.49f, 8.5f, 15) == 14);
  CHECK(truncated_code(6.5f, 8.5f, 15) == 15);
  CHECK(truncated_code(8.0f, 8.5f, 15) == 15);
  CHECK(truncated_code(-8.0f, 8.5f, 15) == 0);
  CHECK(truncated_code(-1e30f, 8.5f, 15) == 0);
  CHECK(truncated_code(std::numeric_limits<float>::infinity(), 0.5f, 15) == 15);
  CHECK(truncated_code(std::numeric_limits<float>::quiet_NaN(), 0.5f, 15) == 0);
}

TEST_CASE("truncated_code rounds the sum to float before it truncates") {
  // 0.5 + (0.5 - 2^-25) lies halfway between two floats and rounds to 1.
  CHECK(truncated_code(0.5f - 0x1p-25f, 0.5f, 15) == 1);
}

TEST_CASE("rounded_code rounds halves away from zero") {
  CHECK(rounded_code(0.5f) == 1);
  CHECK(rounded_code(-0.5f) == -1);
  CHECK(rounded_code(2.5f) == 3);
  CHECK(rounded_code(0.49999997f) == 0);
  CHECK(rounded_code(1e9f) == 127);
  CHECK(rounded_code(-1e9f) == -127);
  CHECK(rounded_code(std::numeric_limits<float>::quiet_NaN()) == 0);
}
