#include <lazyllm/quant/bf16.hpp>

#include "support/quant_golden.hpp"

#include <doctest/doctest.h>

static_assert(sizeof(lazyllm::BF16::Block) == 2);

TEST_CASE("BF16 quantises and dequantises to the bits of the gguf package") {
  lazyllm::test::check_against_golden<lazyllm::BF16>();
}
