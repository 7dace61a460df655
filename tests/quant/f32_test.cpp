#include <lazyllm/quant/f32.hpp>

#include <doctest/doctest.h>

#include <array>

static_assert(sizeof(lazyllm::F32::Block) == 4);

TEST_CASE("F32 keeps every value") {
  const std::array<float, 4> values{0.0f, -1.5f, 1e-40f, 3e38f};
  std::array<lazyllm::F32::Block, 4> blocks;
  std::array<float, 4> back;
  lazyllm::F32::quantize(values, blocks);
  lazyllm::F32::dequantize(blocks, back);
  CHECK(back == values);
}
