// Rounding of weights to codes, bit-equal to the reference whatever flags the build has.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace lazyllm::inline v0::detail {

/// trunc(product + offset) as the float operations of the reference, clipped to [0, largest].
/// The sum is formed in double, which rounds to the same float and cannot be contracted with the caller's product.
[[nodiscard]] inline unsigned truncated_code(float product, float offset, unsigned largest) {
  const float sum = static_cast<float>(static_cast<double>(product) + static_cast<double>(offset));
  if (!(sum > 0.0f)) return 0;  // also NaN: a scale too small to have a finite inverse
  return static_cast<unsigned>(std::min(sum, static_cast<float>(largest)));
}

/// Rounds half away from zero, clipped to [-127, 127].
[[nodiscard]] inline std::int8_t rounded_code(float value) {
  const float rounded = std::round(value);
  if (!(std::abs(rounded) <= 127.0f)) return static_cast<std::int8_t>(rounded > 0 ? 127 : rounded < 0 ? -127 : 0);
  return static_cast<std::int8_t>(rounded);
}

}  // namespace lazyllm::inline v0::detail
