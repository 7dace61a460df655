#include <doctest/doctest.h>

#include <lazyllm/cache/aux_cache.hpp>
#include <map>
#include <random>
#include <type_traits>
#include <vector>

using namespace lazyllm;

TEST_CASE("AuxCache gives back the row it was given, once") {
  AuxCache cache(8, 3);
  cache.store(5, std::vector<float>{1, 2, 3});
  cache.store(0, std::vector<float>{4, 5, 6});
  CHECK(cache.contains(5));
  CHECK(cache.size() == 2);
  CHECK(cache.size_bytes() == 2 * 3 * sizeof(float));
  std::vector<float> row(3);
  cache.take(5, row);
  CHECK(row == std::vector<float>{1, 2, 3});
  CHECK_FALSE(cache.contains(5));
  CHECK(cache.size() == 1);
}

TEST_CASE("AuxCache agrees with a dictionary of vectors over random stores and takes") {
  constexpr std::size_t capacity = 64, dim = 5;
  AuxCache cache(capacity, dim);
  std::map<TokenIndex, std::vector<float>> oracle;
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) {
    const TokenIndex token = static_cast<TokenIndex>(random() % capacity);
    REQUIRE(cache.contains(token) == oracle.contains(token));
    std::vector<float> row(dim);
    if (cache.contains(token)) {
      cache.take(token, row);
      REQUIRE(row == oracle[token]);
      oracle.erase(token);
    } else {
      for (float& value : row) value = static_cast<float>(random());
      cache.store(token, row);
      oracle[token] = row;
    }
    REQUIRE(cache.size() == oracle.size());
  }
}

TEST_CASE("AuxCache holds a row for every token of its capacity") {
  AuxCache cache(100, 2);
  for (TokenIndex token = 0; token < 100; ++token) {
    cache.store(token, std::vector<float>{static_cast<float>(token), 0.5f});
  }
  std::vector<float> row(2);
  for (TokenIndex token = 0; token < 100; ++token) {
    cache.take(token, row);
    CHECK(row[0] == static_cast<float>(token));
  }
  CHECK(cache.size() == 0);
}

TEST_CASE_TEMPLATE("AuxCache rows come back as their format rounds them, and move as bits", Element, float, Float16,
                   BFloat16, Int8) {
  constexpr std::size_t dim = 7;
  const auto format = [] {
    for (const RowFormat f : {RowFormat::float16, RowFormat::bfloat16, RowFormat::int8}) {
      if (with_element(f, [](auto element) { return std::is_same_v<decltype(element), Element>; })) return f;
    }
    return RowFormat::float32;
  }();
  AuxCache cache(8, dim, format), other(8, dim, format);
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 50.0f);
  std::vector<float> row(dim), got(dim), expected(dim);
  std::vector<Element> stored(row_size<Element>(dim));
  for (TokenIndex token = 0; token < 8; ++token) {
    for (float& x : row) x = normal(random);
    encode_row(row, stored.data());
    decode_row(stored.data(), std::span(expected));
    cache.store(token, row);
    other.store_bits(7 - token, cache.stored(token));
    cache.read(token, got);
    CHECK(got == expected);
    other.take(7 - token, got);
    CHECK(got == expected);
  }
  CHECK(cache.row_size_bytes() == row_bytes<Element>(dim));
  CHECK(cache.size_bytes() == 8 * row_bytes<Element>(dim));
  CHECK(cache.format() == format);
}

#ifndef NDEBUG
TEST_CASE("AuxCache refuses a second row and a row that is not there, in Debug") {
  AuxCache cache(4, 1);
  std::vector<float> row(1);
  CHECK_THROWS_AS(cache.take(1, row), std::logic_error);
  cache.store(1, row);
  CHECK_THROWS_AS(cache.store(1, row), std::logic_error);
  CHECK_THROWS_AS((void)cache.contains(4), std::logic_error);
}
#endif
