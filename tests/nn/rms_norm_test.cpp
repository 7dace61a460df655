#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <lazyllm/nn/rms_norm.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <vector>

#include "support/every_isa.hpp"
#include "support/noise.hpp"

using namespace lazyllm;
using namespace lazyllm::test;

TEST_CASE("rms_norm agrees with double precision for every size, also where squares leave float's range") {
  SerialExecutor executor;
  for (const float deviation : {1.0f, 1e-3f, 1e-20f, 1e-35f, 1e20f, 5e36f}) {
    for (const float epsilon : {0.0f, 1e-5f}) {
      for (const std::size_t n : {1u, 7u, 16u, 33u, 64u, 100u, 576u, 1000u}) {
        const std::vector<float> x = noise(n, 1, deviation);
        const std::vector<float> weight = noise(n, 2);
        double squares = 0.0;
        for (const float v : x) squares += static_cast<double>(v) * static_cast<double>(v);
        const double scale = 1.0 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(epsilon));
        CAPTURE(deviation);
        CAPTURE(n);
        for_every_isa([&](Isa isa) {
          std::vector<float> out(n);
          rms_norm(ConstRows(x.data(), 1, n), weight, epsilon, Rows(out.data(), 1, n), executor, isa);
          double worst = 0.0;
          for (std::size_t i = 0; i < n; ++i) {
            const double exact = static_cast<double>(x[i]) * scale * static_cast<double>(weight[i]);
            // n roundings under a square root, three after it; a denormal scale has steps of 2^-149.
            const double bound =
                std::fabs(exact) * (0x1p-24 * (0.5 * static_cast<double>(n) + 4.0) + 0x1p-149 / scale) + 1e-44;
            const double error = std::fabs(static_cast<double>(out[i]) - exact) / bound;
            worst = std::isnan(error) ? HUGE_VAL : std::fmax(worst, error);
          }
          CHECK(worst <= 1.0);
        });
      }
    }
  }
}

TEST_CASE("rms_norm of zeros is zero, and in place equals out of place on any number of threads") {
  ThreadPool pool(3);
  SerialExecutor serial;
  const std::size_t rows = 90;
  const std::size_t n = 576;  // above the threshold for threads
  const std::vector<float> x = noise(rows * n, 3);
  const std::vector<float> weight = noise(n, 4);
  for_every_isa([&](Isa isa) {
    std::vector<float> out(rows * n);
    rms_norm(ConstRows(x.data(), rows, n), weight, 1e-6f, Rows(out.data(), rows, n), pool, isa);
    std::vector<float> single = x;
    for (std::size_t r = 0; r < rows; ++r) {
      const Rows row(single.data() + r * n, 1, n);
      rms_norm(row, weight, 1e-6f, row, serial, isa);
    }
    CHECK(std::memcmp(out.data(), single.data(), out.size() * sizeof(float)) == 0);

    std::vector<float> zeros(n, 0.0f);
    rms_norm(ConstRows(zeros.data(), 1, n), weight, 1e-6f, Rows(zeros.data(), 1, n), serial, isa);
    for (const float z : zeros) CHECK(z == 0.0f);
  });
}
