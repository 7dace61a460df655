#include <lazyllm/io/gguf_type.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <sstream>
#include <string>

#include "support/gguf_text.hpp"

using namespace lazyllm;

TEST_CASE("every tensor type of the gguf package is known, with its name and block sizes") {
  std::istringstream golden(test_support::read_test_data("gguf/type_sizes.txt"));
  std::uint32_t number = 0;
  std::string name;
  std::uint64_t elements = 0;
  std::uint64_t size_bytes = 0;
  int known = 0;
  while (golden >> number >> name >> elements >> size_bytes) {
    CAPTURE(name);
    const GgufTypeLayout layout = type_layout(static_cast<GgufType>(number));
    CHECK(layout.name == name);
    CHECK(layout.elements == elements);
    CHECK(layout.size_bytes == size_bytes);
    ++known;
  }
  CHECK(known >= 30);
  for (std::uint32_t i = 0; i < 1000; ++i) known -= find_type_layout(static_cast<GgufType>(i)).has_value() ? 1 : 0;
  CHECK(known == 0);
}

TEST_CASE("an unknown tensor type is an error that names its number") {
  CHECK_FALSE(find_type_layout(static_cast<GgufType>(4711)).has_value());
  CHECK_THROWS_WITH_AS((void)type_layout(static_cast<GgufType>(4711)), doctest::Contains("4711"), Error);
  CHECK_THROWS_AS((void)name(static_cast<GgufType>(0xffffffffu)), Error);
  CHECK(name(GgufType::q4_1) == "Q4_1");
}
