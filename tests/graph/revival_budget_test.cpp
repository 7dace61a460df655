#include <lazyllm/core/error.hpp>
#include <lazyllm/graph/revival_budget.hpp>

#include <doctest/doctest.h>

using namespace lazyllm;

TEST_CASE("A budget without limits revives all, one number bounds every step") {
  constexpr RevivalBudget none, eight{8};
  CHECK(none.of(1) == RevivalBudget::unlimited);
  CHECK(none.most() == RevivalBudget::unlimited);
  CHECK(eight.of(1) == 8);
  CHECK(eight.of(1'000'000) == 8);
  CHECK(eight.most() == 8);
}

TEST_CASE("Early tokens have a budget of their own, counted from 1") {
  constexpr RevivalBudget falling{8, 16, 2}, rising{0, 2, 3};
  CHECK(falling.of(16) == 8);
  CHECK(falling.of(17) == 2);
  CHECK(falling.most() == 8);
  CHECK(rising.of(2) == 0);
  CHECK(rising.of(3) == 3);
  CHECK(rising.most() == 3);
}

TEST_CASE("A budget as text is one number or three") {
  CHECK(parse_revival_budget("8") == RevivalBudget{8});
  CHECK(parse_revival_budget("8,16,0") == RevivalBudget{8, 16, 0});
  CHECK(parse_revival_budget("0,0,0") == RevivalBudget{0, 0, 0});
  for (const char* text : {"", "-1", "8,", "8,16", "8,16,", "8,16,2,1", "8, 16, 2", "1.5", ",16,2"}) {
    CAPTURE(text);
    CHECK_THROWS_WITH_AS(parse_revival_budget(text), doctest::Contains("neither a number nor three as 8,16,0"), Error);
  }
}
