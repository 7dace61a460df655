#include <lazyllm/io/gguf_fingerprint.hpp>
#include <lazyllm/io/gguf_parse.hpp>

#include <doctest/doctest.h>

#include "support/gguf_bytes.hpp"

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

using namespace lazyllm;
using namespace test_support;

namespace {

/// Two tensors of 4,096 and 3 numbers, the second after the first.
std::vector<std::byte> model(std::uint32_t number) {
  GgufBytes bytes(2, 1);
  bytes.key("a.number", gguf_u32).number(number);
  bytes.tensor("big", {4096}, 0, 0).tensor("small", {3}, 0, 4 * 4096).data(4 * 4096 + 32);
  return bytes.bytes();
}

std::uint64_t fingerprint_of(const std::vector<std::byte>& bytes) { return fingerprint(bytes, parse_gguf(bytes)); }

}  // namespace

TEST_CASE("A fingerprint is the same for the same file, and another for other metadata or weights") {
  const std::vector<std::byte> bytes = model(7);
  const std::uint64_t own = fingerprint_of(bytes);
  CHECK(fingerprint_of(model(7)) == own);
  CHECK(fingerprint_of(model(8)) != own);
  const std::size_t data = parse_gguf(bytes).data_offset();
  // First, a third, two thirds and last of the big tensor, and all of the small one.
  for (const std::size_t place : std::initializer_list<std::size_t>{0, 5476, 10852, 16383, 16384, 16395}) {
    CAPTURE(place);
    std::vector<std::byte> changed = bytes;
    changed[data + place] = std::byte{1};
    CHECK(fingerprint_of(changed) != own);
  }
}
