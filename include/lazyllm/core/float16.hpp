// IEEE half precision as 16 bits of storage, with conversions that need no hardware support.
// Rounds to nearest even; keeps infinities, NaNs and denormals. Kernels use F16C where the CPU has it: same bits.
#pragma once

#include <bit>
#include <cstdint>

namespace lazyllm::inline v0 {

/// A half-precision number in memory (1 sign, 5 exponent, 10 fraction bits).
struct Float16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(Float16, Float16) = default;
};
static_assert(sizeof(Float16) == 2);

[[nodiscard]] constexpr float to_float(Float16 half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = half.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
  // Denormal: magnitude counts units of 2^-24, exact in float.
  const float value = static_cast<float>(magnitude) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}

/// Without branches, so that compilers make vectors of a loop over it.
[[nodiscard]] constexpr Float16 to_float16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  // `low` where the magnitude is below the limit, else `high`.
  const auto choose = [magnitude](std::int32_t limit, std::uint32_t low, std::uint32_t high) {
    const auto below = static_cast<std::uint32_t>((static_cast<std::int32_t>(magnitude) - limit) >> 31);
    return high ^ ((high ^ low) & below);
  };
  const std::uint32_t normal = (magnitude + 0x0fffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  // Denormal half: adding 0.5 (unit 2^-24 in its last place) makes the FPU round to nearest even.
  const float small = std::bit_cast<float>(choose(0x38800000, magnitude, 0));
  const std::uint32_t denormal = std::bit_cast<std::uint32_t>(small + 0.5f) - 0x3f000000u;
  const std::uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  const std::uint32_t finite = choose(0x38800000, denormal, normal);
  const std::uint32_t half = choose(0x7f800001, choose(0x477ff000, finite, 0x7c00u), nan);  // rounds to infinity, NaN
  return {static_cast<std::uint16_t>(sign | half)};
}

}  // namespace lazyllm::inline v0
