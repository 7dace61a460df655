#include <lazyllm/nn/hadamard.hpp>
#include <lazyllm/parallel/thread_pool.hpp>

#include <doctest/doctest.h>

#include "support/every_isa.hpp"
#include "support/noise.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <numeric>
#include <span>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

/// Number i of a block, times the factors and the matrix whose entry (i, j) is -1 where i & j has an odd number of
/// bits, else 1.
double rotated(std::span<const float> block, std::size_t i) {
  const detail::HadamardFactors factors = detail::hadamard_factors(block.size());
  double sum = 0.0;
  for (std::size_t j = 0; j < block.size(); ++j) {
    const auto factor = static_cast<double>(factors[j % factors.size()]);
    sum += (std::popcount(i & j) % 2 == 0 ? factor : -factor) * static_cast<double>(block[j]);
  }
  return sum;
}

double dot(std::span<const float> a, std::span<const float> b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0, std::plus<>(),
                            [](float x, float y) { return static_cast<double>(x) * static_cast<double>(y); });
}

}  // namespace

TEST_CASE("hadamard_rotate is the Walsh-Hadamard matrix of each block, with the same bits on every ISA") {
  struct Case {
    std::size_t head_dim, block;
  };
  SerialExecutor executor;
  for (const Case c : {Case{64, 64}, Case{128, 128}, Case{80, 16}, Case{96, 32}, Case{256, 256}, Case{20, 4},
                       Case{2, 2}, Case{7, 1}}) {
    const std::size_t rows = 3, width = 3 * c.head_dim;
    const std::vector<float> input = noise(rows * width, 1);
    std::vector<float> first;
    CAPTURE(c.head_dim);
    for_every_isa([&](Isa isa) {
      std::vector<float> x = input;
      hadamard_rotate(c.head_dim, Rows(x.data(), rows, width), executor, isa);
      if (first.empty()) first = x;
      CHECK(std::memcmp(x.data(), first.data(), x.size() * sizeof(float)) == 0);
      // One rounding for the scale, its product and each of the log2(block) sums of numbers below 5 * sqrt(block).
      const double stages = std::log2(static_cast<double>(c.block));
      const double bound = (2.0 + stages) * 5.0 * std::sqrt(static_cast<double>(c.block)) * 0x1p-24;
      double worst = 0.0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const std::span<const float> block = std::span(input).subspan(i / c.block * c.block, c.block);
        const double error = std::fabs(static_cast<double>(x[i]) - rotated(block, i % c.block));
        worst = std::isnan(error) ? HUGE_VAL : std::fmax(worst, error);
      }
      CHECK(worst <= bound);
    });
  }
}

TEST_CASE("hadamard_rotate has the same bits for one row and for many on several threads") {
  const std::size_t rows = 100, head_dim = 64, width = 9 * head_dim;  // above the threshold for threads
  ThreadPool pool(3);
  SerialExecutor serial;
  std::vector<float> many = noise(rows * width, 2), single = many;
  hadamard_rotate(head_dim, Rows(many.data(), rows, width), pool);
  for (std::size_t r = 0; r < rows; ++r) hadamard_rotate(head_dim, Rows(single.data() + r * width, 1, width), serial);
  CHECK(many == single);
}

TEST_CASE("hadamard_rotate keeps the dots of queries and keys, whatever the heads, and spreads one large number") {
  SerialExecutor executor;
  for (const std::size_t head_dim : {std::size_t{64}, std::size_t{80}, std::size_t{6}, std::size_t{128}}) {
    CAPTURE(head_dim);
    std::vector<float> queries = noise(3 * head_dim, 3), key = noise(head_dim, 4);
    key[5] = 100.0f;
    std::vector<double> exact;
    for (std::size_t h = 0; h < 3; ++h) exact.push_back(dot(std::span(queries).subspan(h * head_dim, head_dim), key));
    hadamard_rotate(head_dim, Rows(queries.data(), 1, 3 * head_dim), executor);
    hadamard_rotate(head_dim, Rows(key.data(), 1, head_dim), executor);
    for (std::size_t h = 0; h < 3; ++h) {
      // Each of head_dim products is off by two rotations' errors (above): numbers below 5, a key's below 105.
      const double bound = 2.0 * 9.0 * static_cast<double>(head_dim) * 5.0 * 105.0 * 0x1p-24;
      CHECK(std::fabs(dot(std::span(queries).subspan(h * head_dim, head_dim), key) - exact[h]) <= bound);
    }
    const std::size_t block = head_dim & (~head_dim + 1);
    const float largest =
        *std::max_element(key.begin(), key.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); });
    CHECK(std::fabs(largest) <=
          105.0f / std::sqrt(static_cast<float>(block)) + 5.0f * std::sqrt(static_cast<float>(block)));
  }
}
