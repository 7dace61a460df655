#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/quant/any_matrix.hpp>

#include "support/matmul_oracle.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace lazyllm;

TEST_CASE_TEMPLATE("AnyMatrix does what the matrix of its format does", F, Q4_0, Q4_1, Q8_0, F16, F32) {
  SerialExecutor executor;
  const auto stored = test::store<F>(test::random_floats(20 * 64, 1.0f, 3));
  const auto values = test::random_floats(3 * 64, 1.0f, 4);
  const auto fixed = PackedMatrix<F>::pack(stored, 20, 64, executor);
  const auto any = AnyMatrix::pack(F::name, stored, 20, 64, executor);
  CHECK(any.format_name() == F::name);
  CHECK(any.out_features() == 20);
  CHECK(any.in_features() == 64);
  CHECK(any.size_bytes() == fixed.size_bytes());

  Activations x(ConstRows(values.data(), 3, 64));
  std::vector<float> expected(3 * 20), out(3 * 20);
  matmul(x, fixed, Rows(expected.data(), 3, 20), executor);
  matmul(x, any, Rows(out.data(), 3, 20), executor);
  CHECK(out == expected);
  matmul(x, fixed, Rows(expected.data(), 3, 20), executor, AddTo{});
  matmul(Isa(active_isa()), x, any, Rows(out.data(), 3, 20), executor, AddTo{});
  CHECK(out == expected);

  std::vector<float> row(64), expected_row(64);
  any.dequantize_row(19, row);
  fixed.dequantize_row(19, expected_row);
  CHECK(row == expected_row);
}

TEST_CASE("AnyMatrix names a format that it does not know, and the ones it does") {
  SerialExecutor executor;
  CHECK_THROWS_WITH_AS(static_cast<void>(AnyMatrix::pack("IQ2_XS", {}, 0, 0, executor)),
                       "weight format IQ2_XS: supported are F32, F16, Q4_0, Q4_1, Q8_0", Error);
}
