#include <lazyllm/core/bfloat16.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

using namespace lazyllm;

TEST_CASE("Every bfloat16 survives the way through float") {
  std::size_t changed = 0;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const BFloat16 value{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(value);
    changed += std::isnan(wide) ? !std::isnan(to_float(to_bfloat16(wide))) : to_bfloat16(wide) != value;
  }
  CHECK(changed == 0);
}

TEST_CASE("to_bfloat16 rounds to the nearest, halves to even") {
  CHECK(to_bfloat16(1.0f + 0x1p-8f) == BFloat16{0x3f80});                     // half way to 1 + 2^-7: to the even 1
  CHECK(to_bfloat16(1.0f + 3 * 0x1p-8f) == BFloat16{0x3f82});                 // half way: to the even 1 + 2^-6
  CHECK(to_bfloat16(1.0f + 0x1p-8f + 0x1p-20f) == BFloat16{0x3f81});          // above half
  CHECK(to_bfloat16(-1.0f - 0x1p-8f - 0x1p-20f) == BFloat16{0xbf81});         // the same below zero
  CHECK(to_bfloat16(std::numeric_limits<float>::max()) == BFloat16{0x7f80});  // to infinity
  CHECK(to_bfloat16(std::bit_cast<float>(0x7f800001u)).bits == 0x7fc0);       // a NaN whose fraction would vanish
  CHECK(to_bfloat16(-0.0f) == BFloat16{0x8000});
}
