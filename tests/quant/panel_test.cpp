#include <lazyllm/quant/panel.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {
using namespace lazyllm;
using Nibbles = AffinePanel<4, 0, HalfScales, true>;
using Bytes = AffinePanel<8, 128, HalfScales, false>;
using FiveBits = AffinePanel<5, 16, HalfScales, false>;
using SixBits = AffinePanel<6, 32, SuperScales<std::int8_t, 16>, false>;
using SuperNibbles = AffinePanel<4, 0, SuperScales<std::uint8_t, 32>, true>;

// As dense as the file: bytes per block and column.
static_assert(AffinePanel<4, 8, HalfScales, false>::size_bytes(64) == 64 * 16 * 18);
static_assert(Nibbles::size_bytes(64) == 64 * 16 * 20);
static_assert(Bytes::size_bytes(64) == 64 * 16 * 34);
static_assert(FiveBits::size_bytes(64) == 64 * 16 * 22);
static_assert(SixBits::size_bytes(64) == 8 * 16 * 210);
static_assert(SuperNibbles::size_bytes(64) == 8 * 16 * 148);                                            // file: 144
static_assert(AffinePanel<5, 0, SuperScales<std::uint8_t, 32>, true>::size_bytes(64) == 8 * 16 * 180);  // file: 176
static_assert(FloatPanel<float>::size_bytes(64) == 64 * 16 * 4);
static_assert(FloatPanel<Float16>::size_bytes(3) == 128);  // whole cache lines
}  // namespace

TEST_CASE("AffinePanel stores four consecutive bytes of a column together") {
  std::vector<std::byte> panel(Nibbles::size_bytes(2));
  Nibbles::Entry entry{{}, {0x1234}, {0x5678}};
  for (std::size_t i = 0; i < 16; ++i) entry.codes[0][i] = static_cast<std::uint8_t>(i + 1);
  Nibbles::store(panel.data(), 1, 3, entry);
  for (std::size_t i = 0; i < 16; ++i) {
    CHECK(panel[256 + i / 4 * 64 + 3 * 4 + i % 4] == std::byte{entry.codes[0][i]});
  }
  CHECK(panel[512 + 32 + 6] == std::byte{0x34});
  CHECK(panel[512 + 64 + 32 + 6] == std::byte{0x78});
}

TEST_CASE_TEMPLATE("A panel gives back each entry that was stored", Panel, Nibbles, Bytes, SixBits, SuperNibbles) {
  constexpr std::size_t entries = 3;
  std::vector<std::byte> panel(Panel::size_bytes(entries * Panel::entry_size / 32));
  const auto entry_of = [](std::size_t index, std::size_t column) {
    typename Panel::Entry entry{};
    std::size_t next = index * 91 + column * 7;
    const auto fill = [&](auto& scale) {
      std::array<std::uint8_t, sizeof scale> bytes;
      for (auto& byte : bytes) byte = static_cast<std::uint8_t>(next++);
      std::memcpy(&scale, bytes.data(), sizeof scale);
    };
    for (auto& block : entry.codes) fill(block);
    fill(entry.scale);
    if constexpr (Panel::has_minimum) fill(entry.minimum);
    return entry;
  };
  for (std::size_t i = 0; i < entries; ++i) {
    for (std::size_t c = 0; c < 16; ++c) Panel::store(panel.data(), i, c, entry_of(i, c));
  }
  const auto same = [](const auto& a, const auto& b) { return std::memcmp(&a, &b, sizeof a) == 0; };
  for (std::size_t i = 0; i < entries; ++i) {
    for (std::size_t c = 0; c < 16; ++c) {
      const auto entry = Panel::load(panel.data(), i, c), expected = entry_of(i, c);
      CHECK(entry.codes == expected.codes);
      CHECK(same(entry.scale, expected.scale));
      if constexpr (Panel::has_minimum) CHECK(same(entry.minimum, expected.minimum));
    }
  }
}

TEST_CASE_TEMPLATE("pack puts 32 codes where kernels look for them, and unpack finds them", Panel, FiveBits, SixBits) {
  constexpr int high = Panel::high_bits;
  std::array<std::uint8_t, 32> codes, back;
  for (std::size_t i = 0; i < 32; ++i) codes[i] = static_cast<std::uint8_t>((i * 37 + 11) % (1u << Panel::bits));
  const auto block = Panel::pack(codes.data());
  for (std::size_t i = 0; i < 32; ++i) {
    const std::size_t group = i / 4, j = i % 4;
    const int low = group < 4 ? block[group * 4 + j] & 15 : block[(group - 4) * 4 + j] >> 4;
    // 5 bits: bit `group` of line 4; 6 bits: two bits each in line 4 (groups 0 to 3) and line 5 (4 to 7).
    const std::size_t line = high == 1 ? 4 : 4 + group / 4, shift = high == 1 ? group : group % 4 * 2;
    const int upper = block[line * 4 + j] >> shift & ((1 << high) - 1);
    CHECK((low | upper << 4) == codes[i]);
  }
  Panel::unpack(block, back.data());
  CHECK(back == codes);
}
