#include <lazyllm/quant/q8_0.hpp>

#include "support/quant_golden.hpp"

#include <doctest/doctest.h>

static_assert(sizeof(lazyllm::Q8_0::Block) == 34);

TEST_CASE("Q8_0 quantises and dequantises to the bits of the gguf package") {
  lazyllm::test::check_against_golden<lazyllm::Q8_0>();
}
