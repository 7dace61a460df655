// Runs a check once for every instruction set that this CPU has, and says aloud which ones it lacks.
#pragma once

#include <doctest/doctest.h>

#include <lazyllm/simd/isa.hpp>
#include <string>

namespace lazyllm::test {

template <class F>
void for_every_isa(F&& check) {
  for (const Isa isa : all_isas) {
    const std::string isa_name(name(isa));
    if (!supports(isa)) {
      MESSAGE("skipped: this CPU lacks " << isa_name);
      continue;
    }
    INFO("isa " << isa_name);
    check(isa);
  }
}

}  // namespace lazyllm::test
