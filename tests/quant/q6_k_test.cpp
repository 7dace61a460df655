#include <lazyllm/quant/q5_k.hpp>
#include <lazyllm/quant/q6_k.hpp>

#include "support/quant_golden.hpp"
#include "support/quantizer_check.hpp"

#include <doctest/doctest.h>

using namespace lazyllm;

static_assert(sizeof(Q6_K::Block) == 210);

TEST_CASE("Q6_K dequantises to the bits of the gguf package") { test::check_against_golden<Q6_K>(); }

namespace {

// Scales are multiples of d = largest / 32 / 127 rounded up to a half. The grid that reaches a sub-block's value of the
// largest magnitude has the step s <= that magnitude / 32 + d.
std::vector<double> steps_of(std::span<const float> values) {
  const auto largest_of = [](std::span<const float> part) {
    double largest = 0;
    for (const float x : part) largest = std::max(largest, std::abs(double{x}));
    return largest;
  };
  const double d = test::rounded_up_to_half(largest_of(values) / 32 / 127);
  std::vector<double> steps;
  for (std::size_t first = 0; first < 256; first += 16) steps.push_back(largest_of(values.subspan(first, 16)) / 32 + d);
  return steps;
}

}  // namespace

TEST_CASE("Q6_K stays within its grid's step of every sub-block's values") {
  for (const auto& values : test::super_blocks()) {
    CAPTURE(values[0]);
    const std::vector<float> errors = test::errors_of<Q6_K>(values);
    const std::vector<double> steps = steps_of(values);
    // Errors are at most half a step, a whole one where the opposite sign has no code 64; the grid that was chosen has
    // a sum of squares that is not larger.
    for (std::size_t s = 0; s < 16; ++s) {
      double sum = 0, extreme = 0, bound = 0;
      for (std::size_t i = s * 16; i < (s + 1) * 16; ++i) extreme = std::max(extreme, std::abs(double{values[i]}));
      for (std::size_t i = s * 16; i < (s + 1) * 16; ++i) {
        sum += double{errors[i]} * double{errors[i]};
        bound += std::pow(std::abs(double{values[i]}) > 31.5 / 32 * extreme ? steps[s] : steps[s] / 2, 2);
      }
      CHECK(sum <= bound * (1 + 1e-4));
    }
  }
}

TEST_CASE("Q6_K spreads its errors over a step at most") { test::check_mean_square_error<Q6_K>(steps_of); }

TEST_CASE("Q6_K is closer to the values than Q5_K") {
  CHECK(test::root_mean_square_error<Q6_K>() < 0.6 * test::root_mean_square_error<Q5_K>());
}
