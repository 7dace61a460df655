#include <lazyllm/io/gguf.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

using namespace lazyllm;

namespace {

GgufFile file_with(const std::string& key, GgufValue value) {
  std::vector<GgufEntry> entries;
  entries.push_back({"first", std::uint32_t{1}});
  entries.push_back({key, std::move(value)});
  return GgufFile(3, 100, std::move(entries), {});
}

template <class... T>
struct Types {};

template <class T>
void check_integer_type() {
  CAPTURE(type_name(GgufValue(T{})));
  const GgufFile file = file_with("n", T{42});
  CHECK(file.require_unsigned("n") == 42);
  CHECK(file.unsigned_or("n", 7) == 42);
  CHECK(file.require_real("n") == 42.0);
  const GgufFile array = file_with("n", GgufArray(std::vector<T>{1, 2, 42}));
  CHECK(array.integers("n") == std::vector<std::int64_t>{1, 2, 42});
}

}  // namespace

TEST_CASE("an unsigned number may be stored in any integer type that holds it") {
  check_integer_type<std::uint8_t>();
  check_integer_type<std::int8_t>();
  check_integer_type<std::uint16_t>();
  check_integer_type<std::int16_t>();
  check_integer_type<std::uint32_t>();
  check_integer_type<std::int32_t>();
  check_integer_type<std::uint64_t>();
  check_integer_type<std::int64_t>();
  CHECK(file_with("n", std::numeric_limits<std::uint64_t>::max()).require_unsigned("n") == 18446744073709551615u);
}

TEST_CASE("a negative or too large number is an error, never a wrapped one") {
  CHECK_THROWS_WITH_AS((void)file_with("n", std::int8_t{-1}).require_unsigned("n"),
                       "GGUF key n: wanted an unsigned integer, found -1", Error);
  CHECK_THROWS_AS((void)file_with("n", std::int64_t{-1}).unsigned_or("n", 3), Error);
  const GgufFile large = file_with("n", GgufArray(std::vector<std::uint64_t>{1, std::uint64_t{1} << 63}));
  CHECK_THROWS_WITH_AS((void)large.integers("n"), "GGUF key n: 9223372036854775808 does not fit into int64", Error);
}

TEST_CASE("each getter returns what is stored, or its fallback when the key is missing") {
  CHECK(file_with("x", 0.5f).require_real("x") == 0.5);
  CHECK(file_with("x", 0.1).real_or("x", 2.0) == 0.1);
  CHECK(file_with("x", true).bool_or("x", false));
  CHECK(file_with("x", std::string("text")).require_string("x") == "text");
  CHECK(file_with("x", std::string("text")).string_or("x", "other") == "text");
  CHECK(file_with("x", GgufArray(std::vector<std::string>{"a", ""})).strings("x").size() == 2);
  CHECK(file_with("x", GgufArray(std::vector<float>{0.5f, 2.0f})).reals("x") == std::vector<float>{0.5f, 2.0f});

  const GgufFile file = file_with("x", true);
  CHECK(file.find("y") == nullptr);
  CHECK(file.unsigned_or("y", 7) == 7);
  CHECK(file.real_or("y", 0.25) == 0.25);
  CHECK(file.bool_or("y", true));
  CHECK_FALSE(file.bool_or("y", false));
  CHECK(file.string_or("y", "other") == "other");
}

TEST_CASE("another type than wanted is an error that names the key and both types, also where a fallback exists") {
  const GgufFile text = file_with("k", std::string("text"));
  CHECK_THROWS_WITH_AS((void)text.require_unsigned("k"), "GGUF key k: wanted an unsigned integer, found string", Error);
  CHECK_THROWS_WITH_AS((void)text.unsigned_or("k", 1), "GGUF key k: wanted an unsigned integer, found string", Error);
  CHECK_THROWS_WITH_AS((void)text.real_or("k", 1), "GGUF key k: wanted a number, found string", Error);
  CHECK_THROWS_WITH_AS((void)text.bool_or("k", true), "GGUF key k: wanted bool, found string", Error);
  CHECK_THROWS_WITH_AS((void)text.strings("k"), "GGUF key k: wanted array of string, found string", Error);
  CHECK_THROWS_WITH_AS((void)text.integers("k"), "GGUF key k: wanted array of integers, found string", Error);
  CHECK_THROWS_WITH_AS((void)text.reals("k"), "GGUF key k: wanted array of float32, found string", Error);

  const GgufFile flag = file_with("k", true);  // a bool is no number
  CHECK_THROWS_WITH_AS((void)flag.require_unsigned("k"), "GGUF key k: wanted an unsigned integer, found bool", Error);
  CHECK_THROWS_WITH_AS((void)flag.require_real("k"), "GGUF key k: wanted a number, found bool", Error);
  CHECK_THROWS_WITH_AS((void)flag.string_or("k", ""), "GGUF key k: wanted string, found bool", Error);
  CHECK_THROWS_WITH_AS((void)file_with("k", 1.0f).require_unsigned("k"),
                       "GGUF key k: wanted an unsigned integer, found float32", Error);
  CHECK_THROWS_WITH_AS((void)file_with("k", GgufArray(std::vector<bool>{true})).integers("k"),
                       "GGUF key k: wanted array of integers, found array of bool", Error);
}

TEST_CASE("a missing key that is required is an error that names it and what was wanted") {
  const GgufFile file = file_with("k", true);
  CHECK_THROWS_WITH_AS((void)file.require_unsigned("llama.block_count"),
                       "GGUF key llama.block_count is missing, wanted an unsigned integer", Error);
  CHECK_THROWS_WITH_AS((void)file.require_string("s"), "GGUF key s is missing, wanted string", Error);
  CHECK_THROWS_WITH_AS((void)file.require_real("s"), "GGUF key s is missing, wanted a number", Error);
  CHECK_THROWS_WITH_AS((void)file.strings("s"), "GGUF key s is missing, wanted array of string", Error);
  CHECK_THROWS_WITH_AS((void)file.require_tensor("t"), "GGUF tensor t is missing", Error);
}

TEST_CASE("keys and tensors are found whatever their order, and the order of the file is kept") {
  std::vector<GgufEntry> entries;
  std::vector<GgufTensor> tensors;
  for (std::uint32_t i = 0; i < 100; ++i) {
    const std::string name = std::to_string(i * 37 % 100);
    entries.push_back({name, i});
    tensors.push_back({name, GgufType::f32, {1}, i, 4});
  }
  const GgufFile file(3, 0, entries, tensors);
  for (std::uint32_t i = 0; i < 100; ++i) {
    const std::string name = std::to_string(i * 37 % 100);
    CHECK(file.require_unsigned(name) == i);
    CHECK(file.require_tensor(name).offset == i);
    CHECK(file.metadata()[i].key == name);
    CHECK(file.tensors()[i].name == name);
  }
  CHECK(file.find("") == nullptr);
  CHECK(file.find("1000") == nullptr);
  CHECK(file.find_tensor("-1") == nullptr);
}

TEST_CASE("two entries with one key, or two tensors with one name, are an error") {
  const std::vector<GgufEntry> entries{{"b", true}, {"a", true}, {"b", false}};
  CHECK_THROWS_WITH_AS(GgufFile(3, 0, entries, {}), "GGUF key b appears twice", Error);
  const std::vector<GgufTensor> tensors{{"x", GgufType::f32, {1}, 0, 4}, {"x", GgufType::f32, {2}, 32, 8}};
  CHECK_THROWS_WITH_AS(GgufFile(3, 0, {}, tensors), "GGUF tensor x appears twice", Error);
}

TEST_CASE("the data section starts at the first multiple of the alignment") {
  CHECK(GgufFile(3, 64, {}, {}).data_offset() == 64);
  CHECK(GgufFile(3, 65, {}, {}).data_offset() == 96);
  CHECK(file_with("general.alignment", std::uint32_t{256}).data_offset() == 256);
  CHECK(file_with("general.alignment", std::uint32_t{8}).data_offset() == 104);
  for (const std::uint32_t bad : {0u, 1u, 4u, 12u, 24u, 33u, 0xffffffffu}) {
    CAPTURE(bad);
    CHECK_THROWS_WITH_AS(file_with("general.alignment", bad), doctest::Contains("general.alignment"), Error);
  }
}
