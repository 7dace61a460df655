#include <lazyllm/quant/q4_0.hpp>
#include <lazyllm/quant/q4_1.hpp>

#include "support/quant_golden.hpp"

#include <doctest/doctest.h>

static_assert(sizeof(lazyllm::Q4_1::Block) == 20);

TEST_CASE("Q4_1 quantises and dequantises to the bits of the gguf package") {
  lazyllm::test::QuantGolden golden;
  golden.next<lazyllm::Q4_0>();
  lazyllm::test::check_against<lazyllm::Q4_1>(golden.next<lazyllm::Q4_1>());
}
