// quantize_rows/<cols>/rows:<rows>: floats to 8-bit codes on one thread, with the ISA of the process (LAZYLLM_ISA).
#include <lazyllm/simd/quantized_rows.hpp>

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

namespace {

using namespace lazyllm;

void run(benchmark::State& state) {
  const auto cols = static_cast<std::size_t>(state.range(0));
  const auto rows = static_cast<std::size_t>(state.range(1));
  std::vector<float> values(rows * cols);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 7919 % 1000) - 500.0f;
  QuantizedRows out;
  out.resize(rows, cols);
  for (auto _ : state) {
    out.quantize(ConstRows(values.data(), rows, cols), 0, rows);
    benchmark::ClobberMemory();
  }
  state.counters["GB/s"] = benchmark::Counter(static_cast<double>(values.size() * sizeof(float)) * 1e-9,
                                              benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(std::string(name(active_isa())));
}

[[maybe_unused]] const bool registered = [] {
  benchmark::RegisterBenchmark("quantize_rows", run)
      ->ArgNames({"cols", "rows"})
      ->MinTime(0.1)
      ->Args({576, 1})
      ->Args({576, 64})
      ->Args({1536, 64})
      ->Args({4096, 64});
  return true;
}();

}  // namespace
