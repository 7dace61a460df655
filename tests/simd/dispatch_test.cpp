#include <lazyllm/simd/dispatch.hpp>

#include <doctest/doctest.h>

#include <type_traits>

using namespace lazyllm;

TEST_CASE(
    "dispatch calls with the tag of the ISA's integer kernels, dispatch_float with that of its float kernels, and both "
    "return what the call returns") {
  for (const Isa isa : all_isas) {
    if (!supports(isa)) continue;
    CHECK(dispatch(isa, [](auto tag) -> Isa { return tag(); }) == integer_isa(isa));
    CHECK(dispatch_float(isa, [](auto tag) -> Isa { return tag(); }) == float_isa(isa));
  }
  int value = 0;
  const auto reference = [&](auto) -> int& { return value; };
  static_assert(std::is_same_v<decltype(dispatch(Isa::portable, reference)), int&>);
  dispatch(Isa::portable, reference) = 7;
  CHECK(value == 7);
}
