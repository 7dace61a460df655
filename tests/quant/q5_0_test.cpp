#include <lazyllm/quant/q5_0.hpp>

#include "support/quant_golden.hpp"

#include <doctest/doctest.h>

static_assert(sizeof(lazyllm::Q5_0::Block) == 22);

TEST_CASE("Q5_0 quantises and dequantises to the bits of the gguf package") {
  lazyllm::test::check_against_golden<lazyllm::Q5_0>();
}
