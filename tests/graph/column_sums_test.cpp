#include <lazyllm/graph/column_sums.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

using namespace lazyllm;

TEST_CASE("Column sums are added by layer, head and token, start at zero, and are gathered and assigned") {
  ColumnSums sums({.layer_count = 2, .head_count = 2, .context_capacity = 5});
  CHECK(sums.head_count() == 2);
  sums.start(0, 4);
  const std::vector<TokenIndex> keys{0, 2, 3}, tokens{2, 3};
  std::vector<float> step{1, 2, 3, 4, 5, 6};
  sums.add(1, keys, ConstRows(step.data(), 2, 3));
  sums.add(1, keys, ConstRows(step.data(), 2, 3));
  const auto gathered = [&](LayerIndex layer) {
    std::vector<float> numbers(4);
    const ConstScoreView view = sums.gather(layer, tokens, numbers.data());
    CHECK(view.query_rows() == 1);
    CHECK(view.heads() == 2);
    CHECK(view.keys() == 2);
    CHECK(view.data() == numbers.data());
    return numbers;
  };
  CHECK(gathered(1) == std::vector<float>{4, 6, 10, 12});
  CHECK(gathered(0) == std::vector<float>{0, 0, 0, 0});
  sums.start(3, 2);  // token 3 comes anew
  CHECK(gathered(1) == std::vector<float>{4, 0, 10, 0});
  sums.assign(0, 2, std::vector<float>{7, 8});
  CHECK(gathered(0) == std::vector<float>{7, 0, 8, 0});
}

TEST_CASE("Column sums of no heads are nothing") {
  ColumnSums sums;
  CHECK(sums.head_count() == 0);
  sums.start(0, 9);
  sums.assign(0, 3, {});
}
