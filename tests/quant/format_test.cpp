#include <lazyllm/quant/format.hpp>
#include <lazyllm/quant/panel.hpp>
#include <lazyllm/quant/q8_0.hpp>

#include <doctest/doctest.h>

#include <array>
#include <span>

namespace {

using namespace lazyllm;

// The least that a format can be: signs.
struct SignFormat {
  static constexpr std::string_view name = "Sign";
  static constexpr std::size_t block_size = 1;
  struct Block {
    bool negative;
  };
  static void quantize(std::span<const float> values, std::span<Block> blocks) {
    for (std::size_t i = 0; i < values.size(); ++i) blocks[i].negative = values[i] < 0;
  }
  static void dequantize(std::span<const Block> blocks, std::span<float> out) {
    for (std::size_t i = 0; i < blocks.size(); ++i) out[i] = blocks[i].negative ? -1.0f : 1.0f;
  }
};
static_assert(QuantFormat<SignFormat> && !PackableFormat<SignFormat>);

struct WithoutDequantize {
  static constexpr std::string_view name = "Half";
  static constexpr std::size_t block_size = 1;
  struct Block {
    float value;
  };
  static void quantize(std::span<const float>, std::span<Block>) {}
};
static_assert(!QuantFormat<WithoutDequantize>);

struct WrongPanel : Q8_0 {
  static constexpr std::size_t block_size = 16;
};
static_assert(QuantFormat<WrongPanel> && !PackableFormat<WrongPanel>);
static_assert(!QuantFormat<int>);

}  // namespace

TEST_CASE("A format of the user's own converts blocks") {
  const std::array<float, 2> values{-3.0f, 2.0f};
  std::array<SignFormat::Block, 2> blocks;
  std::array<float, 2> back;
  SignFormat::quantize(values, blocks);
  SignFormat::dequantize(blocks, back);
  CHECK(back == std::array<float, 2>{-1.0f, 1.0f});
}
