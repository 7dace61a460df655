// Text for people and machines: what std::format would do.
#pragma once

#include <cstdint>
#include <string>

namespace program {

/// As printf; at most 511 characters.
[[gnu::format(printf, 1, 2)]] std::string formatted(const char* format, ...);

/// All 16 digits.
[[nodiscard]] inline std::string hexadecimal(std::uint64_t value) {
  return formatted("%016llx", static_cast<unsigned long long>(value));
}

[[nodiscard]] inline double megabytes(std::uint64_t bytes) { return static_cast<double>(bytes) / 1e6; }

}  // namespace program
