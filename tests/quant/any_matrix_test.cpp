#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/quant/any_matrix.hpp>

#include "support/every_format.hpp"
#include "support/matmul_oracle.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace lazyllm;

TEST_CASE_TEMPLATE("AnyMatrix does what the matrix of its format does", F, LAZYLLM_TEST_FORMATS) {
  SerialExecutor executor;
  const auto stored = test::store<F>(test::random_floats(20 * 256, 1.0f, 3));
  const auto values = test::random_floats(3 * 256, 1.0f, 4);
  const auto fixed = PackedMatrix<F>::pack(stored, 20, 256, executor);
  const auto any = AnyMatrix::pack(F::name, stored, 20, 256, executor);
  CHECK(any.format_name() == F::name);
  CHECK(any.out_features() == 20);
  CHECK(any.in_features() == 256);
  CHECK(any.size_bytes() == fixed.size_bytes());

  Activations x(ConstRows(values.data(), 3, 256));
  std::vector<float> expected(3 * 20), out(3 * 20);
  matmul(x, fixed, Rows(expected.data(), 3, 20), executor);
  matmul(x, any, Rows(out.data(), 3, 20), executor);
  CHECK(out == expected);
  matmul(x, fixed, Rows(expected.data(), 3, 20), executor, AddTo{});
  matmul(Isa(active_isa()), x, any, Rows(out.data(), 3, 20), executor, AddTo{});
  CHECK(out == expected);

  std::vector<float> row(256), expected_row(256);
  any.dequantize_row(19, row);
  fixed.dequantize_row(19, expected_row);
  CHECK(row == expected_row);
}

TEST_CASE("AnyMatrix names a format that it does not know, and the ones it does") {
  SerialExecutor executor;
  CHECK_THROWS_WITH_AS(static_cast<void>(AnyMatrix::pack("IQ2_XS", {}, 0, 0, executor)),
                       "weight format IQ2_XS: supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, "
                       "Q5_K, Q6_K",
                       Error);
}
