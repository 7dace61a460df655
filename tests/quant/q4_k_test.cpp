#include <lazyllm/quant/q4_0.hpp>
#include <lazyllm/quant/q4_k.hpp>

#include "support/quant_golden.hpp"
#include "support/quantizer_check.hpp"

#include <doctest/doctest.h>

using namespace lazyllm;

static_assert(sizeof(Q4_K::Block) == 144);

TEST_CASE("Q4_K dequantises to the bits of the gguf package") { test::check_against_golden<Q4_K>(); }

TEST_CASE("Q4_K stays within its grid's step of every sub-block's values") {
  for (const auto& values : test::super_blocks()) {
    CAPTURE(values[0]);
    test::check_affine_errors<Q4_K>(values, 15);
  }
}

TEST_CASE("Q4_K spreads its errors over a step at most") {
  test::check_mean_square_error<Q4_K>([](std::span<const float> block) { return test::affine_steps(block, 15); });
}

TEST_CASE("Q4_K is closer to the values than Q4_0") {
  CHECK(test::root_mean_square_error<Q4_K>() < 0.95 * test::root_mean_square_error<Q4_0>());
}
