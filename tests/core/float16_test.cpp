#include <doctest/doctest.h>

#include <lazyllm/core/float16.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace {

using lazyllm::Float16;
using lazyllm::to_float;
using lazyllm::to_float16;

/// The value of a finite half, from the definition of the format, in double arithmetic.
double value_of(std::uint32_t bits) {
  const int exponent = static_cast<int>((bits >> 10) & 0x1fu);
  const double fraction = static_cast<double>(bits & 0x3ffu) / 1024.0;
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -14) : std::ldexp(1.0 + fraction, exponent - 15);
  return (bits & 0x8000u) != 0 ? -magnitude : magnitude;
}

/// The bits of the half nearest to `value`, ties to the even one, by search in the ordered table of magnitudes.
/// Index 0x7c00 (infinity) takes the value that the next finite half would have, 2^16: IEEE's rounding to infinity.
std::uint32_t nearest_half(double value) {
  static const std::vector<double> magnitudes = [] {
    std::vector<double> table;
    for (std::uint32_t bits = 0; bits < 0x7c00u; ++bits) table.push_back(value_of(bits));
    table.push_back(65536.0);
    return table;
  }();
  const std::uint32_t sign = std::signbit(value) ? 0x8000u : 0u;
  const double magnitude = std::abs(value);
  if (magnitude >= 65536.0) return sign | 0x7c00u;
  std::uint32_t low = 0, high = 0x7c00u;
  while (high - low > 1) {
    const std::uint32_t middle = (low + high) / 2;
    (magnitudes[middle] <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - magnitudes[low];
  const double above = magnitudes[high] - magnitude;
  if (below != above) return sign | (below < above ? low : high);
  return sign | (low % 2 == 0 ? low : high);
}

std::uint32_t wrong_halves() {
  std::uint32_t wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const float value = to_float(Float16{static_cast<std::uint16_t>(bits)});
    const bool negative = (bits & 0x8000u) != 0;
    bool right = std::signbit(value) == negative;
    if ((bits & 0x7fffu) > 0x7c00u) {
      right = right && std::isnan(value);
    } else if ((bits & 0x7fffu) == 0x7c00u) {
      right = right && std::isinf(value);
    } else {
      right = right && static_cast<double>(value) == value_of(bits);
    }
    wrong += right ? 0 : 1;
  }
  return wrong;
}

}  // namespace

TEST_CASE("to_float gives the defined value of all 65536 halves") { CHECK(wrong_halves() == 0); }

TEST_CASE("every half that is not a NaN survives a round trip bit for bit") {
  std::uint32_t changed = 0;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const Float16 half{static_cast<std::uint16_t>(bits)};
    if ((bits & 0x7fffu) > 0x7c00u) {
      if (!std::isnan(to_float(to_float16(to_float(half))))) ++changed;
    } else if (to_float16(to_float(half)) != half) {
      ++changed;
    }
  }
  CHECK(changed == 0);
}

TEST_CASE("to_float16 rounds to the nearest half, ties to even, around every half and every midpoint") {
  std::uint32_t wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x7c00u; ++bits) {
    const double low = value_of(bits);
    const double high = bits == 0x7bffu ? 65536.0 : value_of(bits + 1);
    // Both are exact in float: a midpoint needs one bit more than a half.
    const std::array centres{static_cast<float>(low), static_cast<float>((low + high) / 2)};
    for (const float centre : centres) {
      const float infinity = std::numeric_limits<float>::infinity();
      for (const float value : {std::nextafter(centre, -infinity), centre, std::nextafter(centre, infinity)}) {
        if (to_float16(value).bits != nearest_half(static_cast<double>(value))) ++wrong;
        if (to_float16(-value).bits != nearest_half(static_cast<double>(-value))) ++wrong;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("to_float16 agrees with the nearest half over floats of every exponent") {
  std::uint32_t wrong = 0;
  std::uint32_t state = 1;
  for (std::uint32_t exponent = 0; exponent < 255; ++exponent) {
    for (int i = 0; i < 1000; ++i) {
      state = state * 1664525u + 1013904223u;
      const float value = std::bit_cast<float>((state & 0x807fffffu) | (exponent << 23));
      if (to_float16(value).bits != nearest_half(static_cast<double>(value))) ++wrong;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("to_float16 keeps infinities, signed zeros and NaNs") {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(to_float16(infinity).bits == 0x7c00u);
  CHECK(to_float16(-infinity).bits == 0xfc00u);
  CHECK(to_float16(0.0f).bits == 0x0000u);
  CHECK(to_float16(-0.0f).bits == 0x8000u);
  CHECK(to_float16(std::numeric_limits<float>::max()).bits == 0x7c00u);
  CHECK(to_float16(std::numeric_limits<float>::denorm_min()).bits == 0x0000u);
  // A NaN whose payload lies only in bits that a half does not have must not become infinity.
  const Float16 small_payload = to_float16(std::bit_cast<float>(0x7f800001u));
  CHECK((small_payload.bits & 0x7fffu) > 0x7c00u);
  CHECK((to_float16(std::bit_cast<float>(0xff800001u)).bits & 0x8000u) != 0);
}

TEST_CASE("conversions work at compile time") {
  static_assert(to_float(Float16{0x3c00}) == 1.0f);
  static_assert(to_float(Float16{0x0001}) == 0x1p-24f);
  static_assert(to_float16(1.0f) == Float16{0x3c00});
  static_assert(to_float16(65504.0f) == Float16{0x7bff});
  static_assert(to_float16(0x1p-24f) == Float16{0x0001});
  CHECK(sizeof(Float16) == 2);
}
