#include <lazyllm/quant/f16.hpp>

#include "support/quant_golden.hpp"

#include <doctest/doctest.h>

static_assert(sizeof(lazyllm::F16::Block) == 2);

TEST_CASE("F16 quantises and dequantises to the bits of the gguf package") {
  lazyllm::test::check_against_golden<lazyllm::F16>();
}
