#include <lazyllm/quant/q5_k.hpp>
#include <lazyllm/quant/q6_k.hpp>

#include "support/quant_golden.hpp"
#include "support/quantizer_check.hpp"

#include <doctest/doctest.h>

using namespace lazyllm;

static_assert(sizeof(Q6_K::Block) == 210);

TEST_CASE("Q6_K dequantises to the bits of the gguf package") { test::check_against_golden<Q6_K>(); }

TEST_CASE("Q6_K stays within its grid's step of every sub-block's values") {
  for (const auto& values : test::super_blocks()) {
    CAPTURE(values[0]);
    const std::vector<float> errors = test::errors_of<Q6_K>(values);
    double largest = 0;
    for (const float x : values) largest = std::max(largest, std::abs(double{x}));
    // Scales are multiples of d = largest / 32 / 127 rounded up to a half. The grid that reaches the sub-block's value
    // of the largest magnitude has the step s <= largest of the sub-block / 32 + d and errors of half a step, of a
    // whole one where the opposite sign has no code 64; the one that was chosen has a sum of squares that is not
    // larger.
    const double d = test::rounded_up_to_half(largest / 32 / 127);
    for (std::size_t first = 0; first < 256; first += 16) {
      double sum = 0, extreme = 0, bound = 0;
      for (std::size_t i = first; i < first + 16; ++i) extreme = std::max(extreme, std::abs(double{values[i]}));
      const double step = extreme / 32 + d;
      for (std::size_t i = first; i < first + 16; ++i) {
        sum += double{errors[i]} * double{errors[i]};
        bound += std::pow(std::abs(double{values[i]}) > 31.5 / 32 * extreme ? step : step / 2, 2);
      }
      CHECK(sum <= bound * (1 + 1e-4));
    }
  }
}

TEST_CASE("Q6_K is closer to the values than Q5_K") {
  CHECK(test::root_mean_square_error<Q6_K>() < 0.6 * test::root_mean_square_error<Q5_K>());
}
