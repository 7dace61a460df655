#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <lazyllm/nn/swiglu.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <random>
#include <vector>

#include "support/every_isa.hpp"

using namespace lazyllm;
using namespace lazyllm::test;

TEST_CASE("swiglu agrees with double precision over the range of gates") {
  std::vector<float> gate;
  for (double g = -120.0; g < 120.0; g += 0.013) gate.push_back(static_cast<float>(g));
  gate.insert(gate.end(), {0.0f, 1e-40f, -1e-40f, 1e30f, -1e30f, 3e38f, -3e38f});
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(0.5f, 2.0f);
  std::vector<float> up(gate.size());
  for (float& u : up) u = uniform(random);
  SerialExecutor executor;
  for_every_isa([&](Isa isa) {
    std::vector<float> out(gate.size());
    swiglu(ConstRows(gate.data(), 1, gate.size()), ConstRows(up.data(), 1, gate.size()),
           Rows(out.data(), 1, gate.size()), executor, isa);
    double worst = 0.0;
    for (std::size_t i = 0; i < gate.size(); ++i) {
      const double g = static_cast<double>(gate[i]);
      if (g > 1e38) continue;  // times up overflows
      const double exact = g / (1.0 + std::exp(-g)) * static_cast<double>(up[i]);
      // The exponential's 3e-7, and a rounding each in sum, quotient and product. Where e^-gate overflows (gate under
      // -88.72) the result is 0 instead of at most 120 * e^-88.72 * 2; denormals have steps of 2^-149.
      const double bound = std::fabs(exact) * (3e-7 + 3 * 0x1p-24) + (g < -88.7 ? 7.4e-37 : 1e-44);
      const double error = std::fabs(static_cast<double>(out[i]) - exact) / bound;
      worst = std::isnan(error) ? HUGE_VAL : std::fmax(worst, error);
    }
    CHECK(worst <= 1.0);
  });
}

TEST_CASE("swiglu has the same bits for one row as for many, in place, at odd widths") {
  const std::size_t rows = 70;
  const std::size_t n = 491;
  std::mt19937 random(2);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> gate(rows * n);
  std::vector<float> up(rows * n);
  for (float& g : gate) g = normal(random);
  for (float& u : up) u = normal(random);
  ThreadPool pool(2);
  SerialExecutor serial;
  for_every_isa([&](Isa isa) {
    std::vector<float> out(rows * n);
    swiglu(ConstRows(gate.data(), rows, n), ConstRows(up.data(), rows, n), Rows(out.data(), rows, n), pool, isa);
    std::vector<float> single = gate;
    for (std::size_t r = 0; r < rows; ++r) {
      const Rows row(single.data() + r * n, 1, n);
      swiglu(row, ConstRows(up.data() + r * n, 1, n), row, serial, isa);
    }
    CHECK(std::memcmp(out.data(), single.data(), out.size() * sizeof(float)) == 0);
  });
}
