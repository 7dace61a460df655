#include <lazyllm/simd/quantized_rows.hpp>

#include "support/every_isa.hpp"
#include "support/matmul_oracle.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

using namespace lazyllm;

namespace {

QuantizedRows quantize(const std::vector<float>& values, std::size_t cols, Isa isa) {
  const ConstRows x(values.data(), values.size() / cols, cols);
  QuantizedRows rows;
  rows.resize(x.rows(), cols);
  rows.quantize(x, 0, x.rows(), isa);
  return rows;
}

}  // namespace

TEST_CASE("Codes are the nearest integers at a scale of the largest magnitude / 127") {
  constexpr std::size_t cols = 32 * 37, row_count = 2 * QuantizedRows::group_rows + 3;
  std::vector<float> values = test::random_floats(row_count * cols, 1.0f, 51);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] *= std::ldexp(1.0f, static_cast<int>(i / 32 % 60) - 30);
  test::for_every_isa([&](Isa isa) {
    const QuantizedRows rows = quantize(values, cols, isa);
    CHECK(rows.block_count() == 37);
    for (std::size_t r = 0; r < row_count; ++r) {
      for (std::size_t b = 0; b < 37; ++b) {
        const float* x = values.data() + r * cols + b * 32;
        const std::int8_t* codes = rows.codes(r, b);
        const QuantizedBlock& block = rows.block(r, b);
        float largest = 0;
        for (std::size_t i = 0; i < 32; ++i) largest = std::max(largest, std::abs(x[i]));
        CHECK(block.scale == largest / 127.0f);
        int sum = 0, first_sum = 0, extreme = 0;
        for (std::size_t i = 0; i < 32; ++i) {
          sum += codes[i];
          first_sum += i < 16 ? codes[i] : 0;
          extreme = std::max(extreme, std::abs(int{codes[i]}));
          // Half a step, and two roundings of the product with 127 / largest: 127 * 2^-23.
          CHECK(std::abs(double{x[i]} * 127 / double{largest} - codes[i]) <= 0.5 + 127 * 0x1p-23);
        }
        CHECK(extreme == 127);
        CHECK(block.minus_8_first_sums == -8 * first_sum);
        CHECK(block.minus_8_sums == -8 * sum);
        CHECK(block.scaled_sum == block.scale * static_cast<float>(sum));
      }
    }
  });
}

TEST_CASE("Halves round to even codes") {
  std::vector<float> values(32);
  values[0] = 127.0f;
  values[1] = 0.5f;
  values[2] = 1.5f;
  values[3] = -2.5f;
  values[4] = -3.5f;
  test::for_every_isa([&](Isa isa) {
    const QuantizedRows rows = quantize(values, 32, isa);
    CHECK(rows.codes(0, 0)[1] == 0);
    CHECK(rows.codes(0, 0)[2] == 2);
    CHECK(rows.codes(0, 0)[3] == -2);
    CHECK(rows.codes(0, 0)[4] == -4);
  });
}

TEST_CASE("Zero and vanishing blocks have scale and codes zero, the largest floats stay finite") {
  std::vector<float> values(32 * 4);
  values[32] = std::numeric_limits<float>::denorm_min();
  values[33] = -1e-37f;
  for (std::size_t i = 64; i < 96; ++i) values[i] = i % 2 == 0 ? 3e38f : -3e38f;
  for (std::size_t i = 96; i < 128; ++i) values[i] = -0.0f;
  test::for_every_isa([&](Isa isa) {
    const QuantizedRows rows = quantize(values, 128, isa);
    for (const std::size_t b : {0u, 1u, 3u}) {
      CHECK(rows.block(0, b).scale == 0.0f);
      CHECK(rows.block(0, b).scaled_sum == 0.0f);
      CHECK(rows.block(0, b).minus_8_first_sums == 0);
      CHECK(rows.block(0, b).minus_8_sums == 0);
      for (std::size_t i = 0; i < 32; ++i) CHECK(rows.codes(0, b)[i] == 0);
    }
    CHECK(rows.block(0, 2).scale == 3e38f / 127.0f);
    for (std::size_t i = 64; i < 96; ++i) CHECK(rows.codes(0, 2)[i - 64] == (i % 2 == 0 ? 127 : -127));
  });
}

TEST_CASE("All ISAs give the same bits") {
  constexpr std::size_t cols = 32 * 400;
  const std::vector<float> values = test::random_floats(cols, 5.0f, 52);
  const QuantizedRows expected = quantize(values, cols, Isa::portable);
  test::for_every_isa([&](Isa isa) {
    const QuantizedRows rows = quantize(values, cols, isa);
    for (std::size_t b = 0; b < rows.block_count(); ++b) {
      CHECK(std::memcmp(rows.codes(0, b), expected.codes(0, b), 32) == 0);
      CHECK(std::memcmp(&rows.block(0, b), &expected.block(0, b), sizeof(QuantizedBlock)) == 0);
    }
  });
}
