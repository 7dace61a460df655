#include <lazyllm/quant/panel.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace {
using namespace lazyllm;
using Nibbles = AffinePanel<4, 0, true>;
using Bytes = AffinePanel<8, 128, false>;

// As dense as the file: bytes per block and column.
static_assert(AffinePanel<4, 8, false>::size_bytes(64) == 64 * 16 * 18);
static_assert(Nibbles::size_bytes(64) == 64 * 16 * 20);
static_assert(Bytes::size_bytes(64) == 64 * 16 * 34);
static_assert(FloatPanel<float>::size_bytes(64) == 64 * 16 * 4);
static_assert(FloatPanel<Float16>::size_bytes(3) == 128);  // whole cache lines
}  // namespace

TEST_CASE("AffinePanel stores four consecutive bytes of a column together") {
  std::vector<std::byte> panel(Nibbles::size_bytes(2));
  Nibbles::Entry entry{{}, {0x1234}, {0x5678}};
  for (std::size_t i = 0; i < 16; ++i) entry.codes[i] = static_cast<std::uint8_t>(i + 1);
  Nibbles::store(panel.data(), 2, 1, 3, entry);
  for (std::size_t i = 0; i < 16; ++i) {
    CHECK(panel[256 + i / 4 * 64 + 3 * 4 + i % 4] == std::byte{entry.codes[i]});
  }
  CHECK(panel[512 + 32 + 6] == std::byte{0x34});
  CHECK(panel[512 + 64 + 32 + 6] == std::byte{0x78});
}

TEST_CASE("A panel gives back each entry that was stored") {
  std::vector<std::byte> panel(Bytes::size_bytes(3));
  const auto entry_of = [](std::size_t block, std::size_t column) {
    Bytes::Entry entry{{}, {static_cast<std::uint16_t>(block * 100 + column)}, {}};
    for (std::size_t i = 0; i < 32; ++i) entry.codes[i] = static_cast<std::uint8_t>(block * 91 + column * 7 + i);
    return entry;
  };
  for (std::size_t b = 0; b < 3; ++b) {
    for (std::size_t c = 0; c < 16; ++c) Bytes::store(panel.data(), 3, b, c, entry_of(b, c));
  }
  for (std::size_t b = 0; b < 3; ++b) {
    for (std::size_t c = 0; c < 16; ++c) {
      const Bytes::Entry entry = Bytes::load(panel.data(), 3, b, c);
      CHECK(entry.codes == entry_of(b, c).codes);
      CHECK(entry.scale == entry_of(b, c).scale);
    }
  }
}
