#include <doctest/doctest.h>

#include <lazyllm/core/checksum.hpp>
#include <set>
#include <vector>

using namespace lazyllm;

TEST_CASE("Every flipped bit, every length and every start gives another checksum") {
  std::set<std::uint64_t> sums;
  std::size_t inputs = 0;
  for (std::size_t size = 0; size <= 40; ++size) {
    std::vector<std::byte> bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 37);
    sums.insert(checksum(bytes));
    sums.insert(checksum(bytes, 5));
    inputs += 2;
    for (std::size_t bit = 0; bit < 8 * size; ++bit, ++inputs) {
      const std::byte flip{static_cast<unsigned char>(1u << bit % 8)};
      bytes[bit / 8] ^= flip;
      sums.insert(checksum(bytes));
      bytes[bit / 8] ^= flip;
    }
  }
  CHECK(sums.size() == inputs);
}

TEST_CASE("Two changes of highest bits do not cancel") {
  std::vector<std::byte> bytes(64);
  const std::uint64_t sum = checksum(bytes);
  bytes[15] ^= std::byte{0x80};
  bytes[31] ^= std::byte{0x80};
  CHECK(checksum(bytes) != sum);
}
