#include <lazyllm/simd/isa.hpp>

#include <doctest/doctest.h>

#include <string>

using namespace lazyllm;

TEST_CASE("choose_isa gives the best ISA of this CPU unless one is named") {
  Isa best = Isa::portable;
  for (const Isa isa : all_isas) {
    if (!supports(isa)) continue;
    best = isa;
    CHECK(choose_isa(name(isa)) == isa);
  }
  CHECK(choose_isa(std::nullopt) == best);
}

TEST_CASE("choose_isa refuses a name that it does not know, and says what there is") {
  for (const char* unknown : {"", "AVX2", "avx", "avx512", "sve", "portable "}) {
    CAPTURE(unknown);
    CHECK_THROWS_AS(static_cast<void>(choose_isa(unknown)), Error);
  }
  try {
    static_cast<void>(choose_isa("sse9"));
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::unsupported);
    CHECK(std::string(error.what()).starts_with("LAZYLLM_ISA=sse9: this CPU supports portable"));
  }
}

TEST_CASE("choose_isa refuses an ISA that this CPU lacks") {
  for (const Isa isa : all_isas) {
    if (!supports(isa)) CHECK_THROWS_AS(static_cast<void>(choose_isa(name(isa))), Error);
  }
}

TEST_CASE("Every CPU runs the portable kernels, and the active ISA is one that it runs") {
  CHECK(supports(Isa::portable));
  CHECK(supports(active_isa()));
  for (const Isa isa : all_isas) CHECK((!supports(isa) || (supports(float_isa(isa)) && supports(integer_isa(isa)))));
  CHECK_FALSE((supports(Isa::neon) && supports(Isa::avx2)));
}
