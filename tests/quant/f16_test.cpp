#include <lazyllm/quant/f16.hpp>
#include <lazyllm/quant/q4_0.hpp>
#include <lazyllm/quant/q4_1.hpp>
#include <lazyllm/quant/q8_0.hpp>

#include "support/quant_golden.hpp"

#include <doctest/doctest.h>

static_assert(sizeof(lazyllm::F16::Block) == 2);

TEST_CASE("F16 quantises and dequantises to the bits of the gguf package") {
  lazyllm::test::QuantGolden golden;
  golden.next<lazyllm::Q4_0>();
  golden.next<lazyllm::Q4_1>();
  golden.next<lazyllm::Q8_0>();
  lazyllm::test::check_against<lazyllm::F16>(golden.next<lazyllm::F16>());
}
