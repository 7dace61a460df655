// bfloat16 as a storage type: the upper half of a float, converted to nearest even.
// Arithmetic is in float; hot loops convert whole vectors.
#pragma once

#include <bit>
#include <cstdint>

namespace lazyllm::inline v0 {

struct BFloat16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(BFloat16, BFloat16) = default;
};

/// Exact.
[[nodiscard]] constexpr float to_float(BFloat16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

/// Rounded to nearest even; a NaN stays a NaN. Without branches, so that compilers make vectors of a loop over it.
[[nodiscard]] constexpr BFloat16 to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool is_nan = static_cast<std::int32_t>(bits & 0x7fffffffu) > 0x7f800000;
  return {static_cast<std::uint16_t>(is_nan ? (bits >> 16) | 0x40u : rounded)};
}

}  // namespace lazyllm::inline v0
