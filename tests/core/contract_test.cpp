#include <doctest/doctest.h>

#include <lazyllm/core/contract.hpp>

#include <stdexcept>
#include <string>

namespace {

constexpr int checked_half(int even) {
  LAZYLLM_EXPECTS(even % 2 == 0);
  return even / 2;
}
static_assert(checked_half(6) == 3);  // a contract that holds costs nothing at compile time

}  // namespace

#ifdef NDEBUG
TEST_CASE("without contracts a condition is not evaluated") {
  int evaluated = 0;
  LAZYLLM_EXPECTS(++evaluated != 0);
  CHECK(evaluated == 0);
  CHECK(checked_half(7) == 3);
}
#else
TEST_CASE("a broken contract throws logic_error with the place and the condition") {
  CHECK(checked_half(8) == 4);
  const int line_of_contract = __LINE__;
  try {
    LAZYLLM_EXPECTS(1 + 1 == 3);
    FAIL("the contract did not throw");
  } catch (const std::logic_error& error) {
    const std::string place = "contract_test.cpp:" + std::to_string(line_of_contract + 2) + ": expected 1 + 1 == 3";
    CHECK(std::string(error.what()).find(place) != std::string::npos);
  }
  try {
    static_cast<void>(checked_half(7));
    FAIL("the contract did not throw");
  } catch (const std::logic_error& error) {
    const std::string message = error.what();
    CHECK(message.find("contract_test.cpp:") != std::string::npos);
    CHECK(message.find("expected even % 2 == 0") != std::string::npos);
  }
}

TEST_CASE("a condition is evaluated once") {
  int evaluated = 0;
  LAZYLLM_EXPECTS(++evaluated != 0);
  CHECK(evaluated == 1);
}
#endif
