#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/quant/packed_matrix.hpp>

#include "support/every_format.hpp"
#include "support/matmul_oracle.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace lazyllm;

TEST_CASE_TEMPLATE("dequantize_row gives the bits of the stored row", F, LAZYLLM_TEST_FORMATS) {
  constexpr std::size_t in_features = F::block_size == 256 ? 512 : 96;
  ThreadPool pool(2);
  for (const std::size_t out_features : {1u, 15u, 16u, 17u, 40u}) {
    const auto values = test::random_floats(out_features * in_features, 2.0f, 1);
    std::vector<std::byte> stored = test::store<F>(values);
    const auto expected = test::weights_of<F>(stored);
    stored.insert(stored.begin(), std::byte{0});  // unaligned, as tensors of a mapped file may be
    const auto matrix =
        PackedMatrix<F>::pack(std::span<const std::byte>(stored).subspan(1), out_features, in_features, pool);
    CHECK(matrix.out_features() == out_features);
    CHECK(matrix.in_features() == in_features);
    std::vector<float> row(in_features);
    for (std::size_t n = 0; n < out_features; ++n) {
      matrix.dequantize_row(n, row);
      CHECK(std::memcmp(row.data(), expected.data() + n * in_features, in_features * sizeof(float)) == 0);
    }
  }
}

TEST_CASE_TEMPLATE("dequantize_row gives the bits of any stored codes and scales", F, LAZYLLM_TEST_CODE_FORMATS) {
  constexpr std::size_t in_features = F::block_size * 3, out_features = 21;
  SerialExecutor executor;
  std::mt19937 engine(5);
  std::vector<typename F::Block> blocks(out_features * 3);
  std::vector<float> expected(out_features * in_features), row(in_features);
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(blocks));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(engine() & 0xbb);  // no half is infinite or a NaN
  F::dequantize(blocks, expected);
  const auto matrix = PackedMatrix<F>::pack(bytes, out_features, in_features, executor);
  for (std::size_t n = 0; n < out_features; ++n) {
    matrix.dequantize_row(n, row);
    CHECK(std::memcmp(row.data(), expected.data() + n * in_features, in_features * sizeof(float)) == 0);
  }
}

TEST_CASE_TEMPLATE("A packed matrix takes as many bytes as the file, 1 / 36 more at most", F, LAZYLLM_TEST_FORMATS) {
  SerialExecutor executor;
  const std::vector<std::byte> stored(64 * 512 / F::block_size * sizeof(typename F::Block));
  const std::size_t size = PackedMatrix<F>::pack(stored, 64, 512, executor).size_bytes();
  if (F::block_size == 256) {  // integer scales of 6 bits take a byte
    CHECK(size >= stored.size());
    CHECK(size * 36 <= stored.size() * 37);
  } else {
    CHECK(size == stored.size());
  }
}

TEST_CASE_TEMPLATE("quantize packs what the format makes of each row", F, LAZYLLM_TEST_FORMATS) {
  constexpr std::size_t in_features = 256, out_features = 37;
  ThreadPool pool(2);
  const auto values = test::random_floats(out_features * in_features, 2.0f, 3);
  const auto expected = PackedMatrix<F>::pack(test::store<F>(values), out_features, in_features, pool);
  const auto matrix = PackedMatrix<F>::quantize(
      out_features, in_features,
      [&](std::size_t n, std::span<float> row) {
        std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(n * in_features), in_features, row.begin());
      },
      pool);
  CHECK(matrix.size_bytes() == expected.size_bytes());
  for (std::size_t p = 0; p < matrix.panel_count(); ++p) {
    CHECK(std::memcmp(matrix.panel(p), expected.panel(p), matrix.panel_bytes()) == 0);
  }
}

TEST_CASE("quantize refuses rows that are no multiple of the block") {
  SerialExecutor executor;
  CHECK_THROWS_WITH_AS(static_cast<void>(PackedMatrix<Q4_K>::quantize(
                           2, 288, [](std::size_t, std::span<float>) {}, executor)),
                       "Q4_K matrix [2, 288]: rows are no multiple of 256", Error);
}

TEST_CASE_TEMPLATE("pack refuses sizes that do not fit", F, LAZYLLM_TEST_FORMATS) {
  SerialExecutor executor;
  constexpr std::size_t step = std::max<std::size_t>(32, F::block_size);
  const std::vector<std::byte> stored(4 * step / F::block_size * sizeof(typename F::Block));
  CHECK_NOTHROW(static_cast<void>(PackedMatrix<F>::pack(stored, 4, step, executor)));
  CHECK_THROWS_AS(static_cast<void>(PackedMatrix<F>::pack(stored, 5, step, executor)), Error);
  CHECK_THROWS_AS(static_cast<void>(PackedMatrix<F>::pack(stored, 3, step, executor)), Error);
  CHECK_THROWS_AS(static_cast<void>(PackedMatrix<F>::pack(stored, 4, 2 * step, executor)), Error);
  CHECK_THROWS_AS(static_cast<void>(PackedMatrix<F>::pack(stored, 4, step / 2 + step, executor)), Error);
  volatile std::size_t opaque =
      std::numeric_limits<std::size_t>::max() / 256 * 256;  // hidden from the compiler's own checks
  const std::size_t huge = opaque;
  CHECK_THROWS_AS(static_cast<void>(PackedMatrix<F>::pack(stored, huge, huge, executor)), Error);
  CHECK_THROWS_AS(static_cast<void>(PackedMatrix<F>::pack(stored, huge, step, executor)), Error);
  CHECK_THROWS_AS(static_cast<void>(PackedMatrix<F>::pack(stored, 4, huge, executor)), Error);
  CHECK_THROWS_AS(static_cast<void>(PackedMatrix<F>::pack(stored, huge, 0, executor)), Error);
}

TEST_CASE("pack names the format and the numbers") {
  SerialExecutor executor;
  const std::vector<std::byte> stored(40);
  CHECK_THROWS_WITH_AS(static_cast<void>(PackedMatrix<Q4_1>::pack(stored, 2, 48, executor)),
                       "Q4_1 matrix [2, 48]: rows are no multiple of 32", Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(PackedMatrix<Q4_1>::pack(stored, 3, 32, executor)),
                       "Q4_1 matrix [3, 32]: 40 bytes stored, expected 60", Error);
}
