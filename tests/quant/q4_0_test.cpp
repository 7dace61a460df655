#include <lazyllm/quant/q4_0.hpp>

#include "support/quant_golden.hpp"

#include <doctest/doctest.h>

static_assert(sizeof(lazyllm::Q4_0::Block) == 18);

TEST_CASE("Q4_0 quantises and dequantises to the bits of the gguf package") {
  lazyllm::test::check_against_golden<lazyllm::Q4_0>();
}
