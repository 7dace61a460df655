#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/quant/f16.hpp>
#include <lazyllm/quant/f32.hpp>
#include <lazyllm/quant/packed_matrix.hpp>
#include <lazyllm/quant/q4_0.hpp>
#include <lazyllm/quant/q4_1.hpp>
#include <lazyllm/quant/q8_0.hpp>

#include "support/matmul_oracle.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace lazyllm;

TEST_CASE_TEMPLATE("dequantize_row gives the bits of the stored row", F, Q4_0, Q4_1, Q8_0, F16, F32) {
  constexpr std::size_t in_features = 96;
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

TEST_CASE_TEMPLATE("A packed matrix takes as many bytes as the file", F, Q4_0, Q4_1, Q8_0, F16, F32) {
  SerialExecutor executor;
  const std::vector<std::byte> stored(64 * 128 / F::block_size * sizeof(typename F::Block));
  CHECK(PackedMatrix<F>::pack(stored, 64, 128, executor).size_bytes() == stored.size());
}

TEST_CASE_TEMPLATE("pack refuses sizes that do not fit", F, Q4_0, Q4_1, Q8_0, F16, F32) {
  SerialExecutor executor;
  const std::vector<std::byte> stored(4 * 64 / F::block_size * sizeof(typename F::Block));
  CHECK_NOTHROW(static_cast<void>(PackedMatrix<F>::pack(stored, 4, 64, executor)));
  CHECK_THROWS_AS(static_cast<void>(PackedMatrix<F>::pack(stored, 5, 64, executor)), Error);
  CHECK_THROWS_AS(static_cast<void>(PackedMatrix<F>::pack(stored, 3, 64, executor)), Error);
  CHECK_THROWS_AS(static_cast<void>(PackedMatrix<F>::pack(stored, 4, 96, executor)), Error);
  volatile std::size_t opaque =
      std::numeric_limits<std::size_t>::max() / 32 * 32;  // hidden from the compiler's own checks
  const std::size_t huge = opaque;
  CHECK_THROWS_AS(static_cast<void>(PackedMatrix<F>::pack(stored, huge, huge, executor)), Error);
  CHECK_THROWS_AS(static_cast<void>(PackedMatrix<F>::pack(stored, huge, 64, executor)), Error);
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
