#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <lazyllm/nn/kernels/attention.hpp>
#include <lazyllm/nn/softmax.hpp>
#include <lazyllm/simd/dispatch.hpp>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "support/every_isa.hpp"

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// e^x in place: the probabilities kernel with maximum 0 and sum 1.
void exponentials(std::vector<float>& x, Isa isa) {
  dispatch_float(isa, [&](auto tag) {
    detail::probabilities(detail::Floats<decltype(tag)::value>{}, x.data(), x.size(), 0.0f, 1.0f);
  });
}

}  // namespace

TEST_CASE("the vector exponential is within its stated error over its whole range") {
  std::vector<float> inputs;
  for (double x = -87.33; x < 88.7228; x += 0.00037) inputs.push_back(static_cast<float>(x));
  for (float x = 1.0f; x > 0.0f; x *= 0.37f) inputs.insert(inputs.end(), {x, -x});  // down to denormals
  for (int n = -126; n <= 127; ++n) {                                               // around the ties of x / ln 2
    const double tie = (n + 0.5) * 0.6931471805599453;
    float x = static_cast<float>(tie);
    for (int i = 0; i < 8; ++i) x = std::nextafter(x, -infinity);
    for (int i = 0; i < 16; ++i, x = std::nextafter(x, infinity)) {
      if (x > -87.33f && x < 88.7228f) inputs.push_back(x);
    }
  }
  for_every_isa([&](Isa isa) {
    std::vector<float> results = inputs;
    exponentials(results, isa);
    double worst = 0.0;
    float worst_input = 0.0f;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const double exact = std::exp(static_cast<double>(inputs[i]));
      const double error = std::fabs(static_cast<double>(results[i]) - exact) / exact;
      if (!(error <= worst)) {
        worst = error;
        worst_input = inputs[i];
      }
    }
    CAPTURE(worst_input);
    CHECK(worst <= (isa == Isa::portable ? 3e-7 : 2e-7));  // as vector_exp documents
  });
}

TEST_CASE("the vector exponential at the ends of its range and beyond") {
  for_every_isa([](Isa isa) {
    std::vector<float> x{0.0f,   -0.0f,   -infinity, -87.34f, -1e30f, std::numeric_limits<float>::lowest(),
                         1e-40f, -1e-40f, infinity,  88.73f,  1e30f,  NAN};
    exponentials(x, isa);
    const std::vector<float> expected{1.0f, 1.0f, 0.0f, 0.0f, 0.0f, 0.0f, 1.0f, 1.0f, infinity, infinity, infinity};
    for (std::size_t i = 0; i < expected.size(); ++i) {
      CAPTURE(i);
      CHECK(std::bit_cast<std::uint32_t>(x[i]) == std::bit_cast<std::uint32_t>(expected[i]));
    }
    CHECK(std::isnan(x.back()));
  });
}

TEST_CASE("softmax agrees with double precision at every length") {
  std::mt19937 random(1);
  for (const float spread : {1e-30f, 1.0f, 30.0f, 1e30f}) {
    std::normal_distribution<float> normal(0.0f, spread);
    for (std::size_t n = 1; n < 80; ++n) {
      std::vector<float> input(n);
      for (float& x : input) x = normal(random);
      const double max = static_cast<double>(*std::max_element(input.begin(), input.end()));
      double sum = 0.0;
      for (const float x : input) sum += std::exp(static_cast<double>(x) - max);
      CAPTURE(spread);
      CAPTURE(n);
      for_every_isa([&](Isa isa) {
        std::vector<float> result = input;
        softmax(result, isa);
        double worst = 0.0;
        double total = 0.0;
        for (std::size_t i = 0; i < n; ++i) {
          const double difference = static_cast<double>(input[i]) - max;
          const double exact = std::exp(difference) / sum;
          // Rounding the difference (it matters down to -88), two exponentials, n sums, the last two operations.
          const double relative = 0x1p-24 * (std::fmin(-difference, 88.0) + static_cast<double>(n) + 4.0) + 6e-7;
          const double error = std::fabs(static_cast<double>(result[i]) - exact) / (relative * exact + 1.3e-38);
          worst = std::isnan(error) ? HUGE_VAL : std::fmax(worst, error);
          total += static_cast<double>(result[i]);
        }
        CHECK(worst <= 1.0);
        CHECK(std::fabs(total - 1.0) <= 0x1p-24 * (static_cast<double>(n) + 4.0));
      });
    }
  }
}

TEST_CASE("softmax gives masked elements exactly zero") {
  for_every_isa([](Isa isa) {
    std::vector<float> x(37, -infinity);
    x[3] = 5.0f;
    x[36] = 5.0f;
    softmax(x, isa);
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(x[i] == (i == 3 || i == 36 ? 0.5f : 0.0f));
    softmax(std::span<float>(), isa);
  });
}
