#include <lazyllm/quant/q4_k.hpp>
#include <lazyllm/quant/q5_k.hpp>

#include "support/quant_golden.hpp"
#include "support/quantizer_check.hpp"

#include <doctest/doctest.h>

using namespace lazyllm;

static_assert(sizeof(Q5_K::Block) == 176);

TEST_CASE("Q5_K dequantises to the bits of the gguf package") { test::check_against_golden<Q5_K>(); }

TEST_CASE("Q5_K stays within its grid's step of every sub-block's values") {
  for (const auto& values : test::super_blocks()) {
    CAPTURE(values[0]);
    test::check_affine_errors<Q5_K>(values, 31);
  }
}

TEST_CASE("Q5_K spreads its errors over a step at most") {
  test::check_mean_square_error<Q5_K>([](std::span<const float> block) { return test::affine_steps(block, 31); });
}

TEST_CASE("Q5_K is closer to the values than Q4_K") {
  CHECK(test::root_mean_square_error<Q5_K>() < 0.95 * test::root_mean_square_error<Q4_K>());
}
