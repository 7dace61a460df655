// A 64-bit checksum of bytes: finds damage and tells files apart; no protection against forgery.
// Words of 8 bytes as the CPU reads them, each mixed in by steps that can be undone, so a change of one word is found.
// Source: the steps are FNV-1a's and splitmix64's, put together for this library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace lazyllm::inline v0 {

/// The checksum of `bytes`, continuing `before` (sums of several pieces depend on where they are cut). Two inputs of
/// one length that differ in one aligned word have different sums. O(size), about a word in five cycles.
[[nodiscard]] inline std::uint64_t checksum(std::span<const std::byte> bytes, std::uint64_t before = 0) {
  std::uint64_t sum = before ^ (bytes.size() + 1) * 0x9e3779b97f4a7c15;
  while (!bytes.empty()) {
    std::uint64_t word = 0;
    const std::size_t count = bytes.size() < sizeof(word) ? bytes.size() : sizeof(word);
    std::memcpy(&word, bytes.data(), count);
    sum = (sum ^ word) * 0x100000001b3;
    sum ^= sum >> 32;
    bytes = bytes.subspan(count);
  }
  return sum;
}

}  // namespace lazyllm::inline v0
