// Runs a check once for every instruction set that this CPU has, and says aloud which ones it lacks.
// With LAZYLLM_TEST_SHIMS (see tests/shims): for those whose missing instructions are shimmed.
#pragma once

#include <doctest/doctest.h>

#include <lazyllm/simd/isa.hpp>
#include <string>

namespace lazyllm::test {

/// Whether checks can run on `isa`.
inline bool runs(Isa isa) {
#ifdef LAZYLLM_TEST_SHIMS
  if (isa == Isa::avxvnni) return supports(Isa::avx2);
  return isa == Isa::amx && supports(Isa::avx512bf16);
#else
  return supports(isa);
#endif
}

template <class F>
void for_every_isa(F&& check) {
  for (const Isa isa : all_isas) {
    const std::string isa_name(name(isa));
    if (!runs(isa)) {
      MESSAGE("skipped: this CPU lacks " << isa_name);
      continue;
    }
    INFO("isa " << isa_name);
    check(isa);
  }
}

}  // namespace lazyllm::test
