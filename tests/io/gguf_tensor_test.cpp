#include <lazyllm/io/gguf_tensor.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

using namespace lazyllm;
using Shape = std::vector<std::uint64_t>;

TEST_CASE("a tensor's size is its blocks times their bytes") {
  CHECK(tensor_size_bytes("t", GgufType::f32, Shape{3}) == 12);
  CHECK(tensor_size_bytes("t", GgufType::q4_1, Shape{64, 3}) == 2 * 3 * 20);
  CHECK(tensor_size_bytes("t", GgufType::q6_k, Shape{512, 2, 3, 4}) == 2 * 24 * 210);
  CHECK(tensor_size_bytes("t", GgufType::i8, Shape{std::uint64_t{1} << 32, (std::uint64_t{1} << 32) - 1}) ==
        (((std::uint64_t{1} << 32) - 1) << 32));
}

TEST_CASE("shapes that no tensor can have are errors that name the tensor and the reason") {
  const auto size = [](GgufType type, const Shape& shape) { (void)tensor_size_bytes("blk.0.x", type, shape); };
  CHECK_THROWS_WITH_AS(size(GgufType::f32, {}), "GGUF tensor blk.0.x: 0 dimensions, wanted 1 to 4", Error);
  CHECK_THROWS_WITH_AS(size(GgufType::f32, {1, 1, 1, 1, 1}), "GGUF tensor blk.0.x: 5 dimensions, wanted 1 to 4", Error);
  CHECK_THROWS_WITH_AS(size(GgufType::f32, {4, 0}), "GGUF tensor blk.0.x: dimension 1 is 0", Error);
  CHECK_THROWS_WITH_AS(size(GgufType::q8_0, {33}), "GGUF tensor blk.0.x: rows of 33 are not whole blocks of 32 (Q8_0)",
                       Error);
  CHECK_THROWS_WITH_AS(size(static_cast<GgufType>(99), {32}), doctest::Contains("blk.0.x: type 99"), Error);
  constexpr std::uint64_t half = std::uint64_t{1} << 32;
  CHECK_THROWS_WITH_AS(size(GgufType::i8, {half, half}), doctest::Contains("does not fit into 64 bits"), Error);
  CHECK_THROWS_WITH_AS(size(GgufType::f32, {std::uint64_t{1} << 62}), doctest::Contains("64 bits"), Error);
  CHECK_THROWS_WITH_AS(size(GgufType::f32, {~std::uint64_t{0}, ~std::uint64_t{0}, ~std::uint64_t{0}, 3}),
                       doctest::Contains("64 bits"), Error);
}

TEST_CASE("names from a file are shortened and made printable in messages") {
  CHECK(detail::gguf_quoted("blk.0") == "blk.0");
  CHECK(detail::gguf_quoted("a\nb\xff") == "a?b?");
  CHECK(detail::gguf_quoted(std::string(1000, 'x')) == std::string(64, 'x') + "...");
}
