// How `lazyllm bench` shows its result: a table for people, CSV, or JSON.
#pragma once

#include "bench.hpp"

#include <string>

namespace program {

std::string bench_report(const BenchReport& report, BenchFormat format);

}  // namespace program
