#include <doctest/doctest.h>

#include <lazyllm/core/matrix_view.hpp>

#include <array>
#include <cstddef>
#include <numeric>
#include <stdexcept>
#include <type_traits>

namespace {

using lazyllm::ConstRows;
using lazyllm::ConstScoreView;
using lazyllm::Rows;
using lazyllm::ScoreView;

static_assert(std::is_convertible_v<Rows, ConstRows> && !std::is_convertible_v<ConstRows, Rows>);
static_assert(std::is_convertible_v<ScoreView, ConstScoreView> && !std::is_convertible_v<ConstScoreView, ScoreView>);
static_assert(std::is_trivially_copyable_v<Rows> && std::is_trivially_copyable_v<ScoreView>);

/// 0, 1, 2, ...: an element's value is its distance from the start.
std::array<float, 60> counting() {
  std::array<float, 60> values{};
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

}  // namespace

TEST_CASE("row r of a MatrixView starts at data + r * stride and has cols elements") {
  auto values = counting();
  const Rows matrix(values.data(), 4, 5, 12);
  CHECK(matrix.rows() == 4);
  CHECK(matrix.cols() == 5);
  CHECK(matrix.stride() == 12);
  for (std::size_t r = 0; r < 4; ++r) {
    REQUIRE(matrix.row(r).size() == 5);
    for (std::size_t c = 0; c < 5; ++c) CHECK(matrix.row(r)[c] == static_cast<float>(12 * r + c));
  }
}

TEST_CASE("a MatrixView without a stride is dense") {
  auto values = counting();
  const Rows matrix(values.data(), 3, 7);
  CHECK(matrix.stride() == 7);
  CHECK(matrix.row(2)[6] == 20.0f);
  matrix.row(2)[6] = -1.0f;
  CHECK(values[20] == -1.0f);
}

TEST_CASE("middle_rows and middle_cols are windows into the same elements and compose") {
  auto values = counting();
  const Rows matrix(values.data(), 6, 10);
  const ConstRows window = matrix.middle_rows(2, 3).middle_cols(4, 5);
  CHECK(window.rows() == 3);
  CHECK(window.cols() == 5);
  CHECK(window.stride() == 10);
  CHECK(window.row(0)[0] == 24.0f);
  CHECK(window.row(2)[4] == 48.0f);
  CHECK(window.data() == values.data() + 24);
  CHECK(matrix.middle_rows(6, 0).empty());
  CHECK(matrix.middle_cols(10, 0).empty());
}

TEST_CASE("a view without rows or without columns is empty") {
  auto values = counting();
  CHECK(Rows().empty());
  CHECK(Rows(values.data(), 0, 5).empty());
  CHECK(Rows(values.data(), 5, 0).empty());
  CHECK_FALSE(Rows(values.data(), 1, 1).empty());
  CHECK(ScoreView().empty());
  CHECK(ScoreView(values.data(), 0, 2, 3).empty());
  CHECK_FALSE(ScoreView(values.data(), 1, 2, 3).empty());
}

TEST_CASE("a ScoreView is dense: query rows, then heads, then keys") {
  auto values = counting();
  const ScoreView scores(values.data(), 3, 4, 5);
  CHECK(scores.query_rows() == 3);
  CHECK(scores.heads() == 4);
  CHECK(scores.keys() == 5);
  const ConstScoreView read = scores;
  for (std::size_t q = 0; q < 3; ++q) {
    for (std::size_t h = 0; h < 4; ++h) {
      REQUIRE(read.row(q, h).size() == 5);
      CHECK(read.row(q, h)[0] == static_cast<float>((q * 4 + h) * 5));
      CHECK(read.row(q, h)[4] == static_cast<float>((q * 4 + h) * 5 + 4));
    }
  }
}

TEST_CASE("a ScoreView of some query rows and some keys reads the same numbers") {
  auto values = counting();
  const ConstScoreView scores = ScoreView(values.data(), 3, 4, 5).middle_query_rows(1, 2).middle_keys(2, 2);
  REQUIRE(scores.query_rows() == 2);
  REQUIRE(scores.heads() == 4);
  REQUIRE(scores.keys() == 2);
  for (std::size_t q = 0; q < 2; ++q) {
    for (std::size_t h = 0; h < 4; ++h) {
      CHECK(scores.row(q, h)[0] == static_cast<float>(((q + 1) * 4 + h) * 5 + 2));
      CHECK(scores.row(q, h)[1] == static_cast<float>(((q + 1) * 4 + h) * 5 + 3));
    }
  }
}

#ifndef NDEBUG
TEST_CASE("a row, head or window outside a view breaks the contract") {
  auto values = counting();
  const Rows matrix(values.data(), 3, 4);
  const ScoreView scores(values.data(), 2, 3, 4);
  CHECK_THROWS_AS(matrix.row(3), std::logic_error);
  CHECK_THROWS_AS(matrix.middle_rows(2, 2), std::logic_error);
  CHECK_THROWS_AS(matrix.middle_cols(0, 5), std::logic_error);
  CHECK_THROWS_AS(scores.row(2, 0), std::logic_error);
  CHECK_THROWS_AS(scores.row(0, 3), std::logic_error);
}
#endif
