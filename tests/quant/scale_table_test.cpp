#include <lazyllm/quant/scale_table.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

using namespace lazyllm;

static_assert(HalfScales::size_bytes == 2 * 32);
static_assert(SuperScales<std::uint8_t, 32>::size_bytes == 8 * 16 + 32);
static_assert(SuperScales<std::int8_t, 16>::size_bytes == 16 * 16 + 32);

TEST_CASE_TEMPLATE("A scale is its integer times the number of its 256 weights", Factor, std::uint8_t, std::int8_t) {
  using Table = SuperScales<Factor, 16>;
  std::vector<std::byte> table(Table::size_bytes);
  const auto entry_of = [](std::size_t column) {
    typename Table::Entry entry{to_float16(static_cast<float>(column) - 7.0f), {}};
    for (std::size_t i = 0; i < 16; ++i) entry.factor[i] = static_cast<Factor>(200 + i * 3 + column);
    return entry;
  };
  for (std::size_t c = 0; c < 16; ++c) Table::store(table.data(), 0, c, entry_of(c));
  for (std::size_t c = 0; c < 16; ++c) {
    const auto expected = entry_of(c), got = Table::load(table.data(), 0, c);
    CHECK(got.super == expected.super);
    CHECK(got.factor == expected.factor);
    for (std::size_t i = 0; i < 16; ++i) {
      CHECK(Table::scale(table.data(), i, c) == to_float(expected.super) * static_cast<float>(expected.factor[i]));
    }
  }
}

TEST_CASE("Half-precision scales lie 16 columns side by side") {
  std::vector<std::byte> table(HalfScales::size_bytes);
  HalfScales::store(table.data(), 1, 3, to_float16(0.25f));
  CHECK(table[32 + 6 + 1] == std::byte{0x34});
  CHECK(HalfScales::load(table.data(), 1, 3) == to_float16(0.25f));
  CHECK(HalfScales::scale(table.data(), 1, 3) == 0.25f);
}
