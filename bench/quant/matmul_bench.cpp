// matmul/<format>/<in_features>x<out_features>/rows:<rows> on all CPUs, with the ISA of the process (LAZYLLM_ISA).
// One to eight rows read weights that no cache holds: copies of more than 1 GB take turns. eigen/...: Eigen's float
// product of the same shape, on one thread and with the build's flags.
#include <lazyllm/parallel/cpu_count.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/quant/bf16.hpp>
#include <lazyllm/quant/f16.hpp>
#include <lazyllm/quant/f32.hpp>
#include <lazyllm/quant/matmul.hpp>
#include <lazyllm/quant/q4_0.hpp>
#include <lazyllm/quant/q4_1.hpp>
#include <lazyllm/quant/q4_k.hpp>
#include <lazyllm/quant/q5_0.hpp>
#include <lazyllm/quant/q5_k.hpp>
#include <lazyllm/quant/q6_k.hpp>
#include <lazyllm/quant/q8_0.hpp>

#include "support/machine_peak.hpp"

#define EIGEN_DONT_PARALLELIZE
#define EIGEN_MPL2_ONLY
#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace lazyllm;

struct Shape {
  std::size_t in_features, out_features;
};
// SmolLM2-135M: q and o, k and v, gate and up, down. Llama 1B: q and o, gate and up. Llama 8B: q and o.
constexpr std::array<Shape, 7> shapes{
    {{576, 576}, {576, 192}, {576, 1536}, {1536, 576}, {2048, 2048}, {2048, 8192}, {4096, 4096}}};
constexpr std::size_t cold_bytes = std::size_t{1} << 30;
constexpr std::size_t most_cold_rows = 8;

ThreadPool& pool() {
  static ThreadPool threads(cpu_count());
  return threads;
}

const bench::MachinePeak& peak() {
  static const bench::MachinePeak measured = bench::measure_machine_peak(active_isa(), pool());
  return measured;
}

std::vector<float> random_floats(std::size_t count) {
  std::mt19937 engine(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> values(count);
  for (float& v : values) v = uniform(engine);
  return values;
}

std::string shape_name(Shape shape) {
  return std::to_string(shape.in_features) + "x" + std::to_string(shape.out_features);
}

void report(benchmark::State& state, double macs, double weight_bytes, bool integers) {
  const double gmacs = macs * 1e-9, gigabytes = weight_bytes * 1e-9;
  const auto rate = [](double per_pass) {
    return benchmark::Counter(per_pass, benchmark::Counter::kIsIterationInvariantRate);
  };
  const double most = integers ? peak().dot_gmacs : peak().float_gmacs;
  state.counters["GMAC/s"] = rate(gmacs);
  state.counters["GB/s"] = rate(gigabytes);
  if (most > 0) state.counters["of_compute_peak"] = rate(gmacs / most);
  state.counters["of_read_peak"] = rate(gigabytes / peak().read_gb_per_s);
  state.SetLabel(std::string(name(active_isa())));
}

template <class F>
void run_matmul(benchmark::State& state, Shape shape) {
  const auto rows = static_cast<std::size_t>(state.range(0));
  const auto [in_features, out_features] = shape;
  std::vector<typename F::Block> stored(in_features * out_features / F::block_size);
  F::quantize(random_floats(in_features * out_features), stored);
  const auto bytes = std::as_bytes(std::span(stored));
  const std::size_t copies = rows <= most_cold_rows ? cold_bytes / bytes.size() + 1 : 1;
  std::vector<PackedMatrix<F>> weights;
  for (std::size_t i = 0; i < copies; ++i) {
    weights.push_back(PackedMatrix<F>::pack(bytes, out_features, in_features, pool()));
  }
  const std::vector<float> values = random_floats(rows * in_features);
  std::vector<float> out(rows * out_features);
  Activations x;
  std::size_t next = 0;
  for (auto _ : state) {
    x.assign(ConstRows(values.data(), rows, in_features));
    matmul(x, weights[next], Rows(out.data(), rows, out_features), pool());
    next = next + 1 == copies ? 0 : next + 1;
    benchmark::ClobberMemory();
  }
  report(state, static_cast<double>(rows * in_features * out_features), static_cast<double>(weights[0].size_bytes()),
         F::Panel::reads_codes);
}

void run_eigen(benchmark::State& state, Shape shape) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto rows = static_cast<Eigen::Index>(state.range(0));
  const auto in_features = static_cast<Eigen::Index>(shape.in_features);
  const auto out_features = static_cast<Eigen::Index>(shape.out_features);
  const Matrix x = Matrix::Random(rows, in_features);
  const Matrix w = Matrix::Random(out_features, in_features);
  Matrix out(rows, out_features);
  for (auto _ : state) {
    out.noalias() = x * w.transpose();
    benchmark::ClobberMemory();
  }
  const auto macs = static_cast<double>(rows * in_features * out_features);
  report(state, macs, static_cast<double>(w.size()) * sizeof(float), false);
}

void set_rows(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgName("rows")->MinTime(0.1)->UseRealTime();
  for (const int rows : {1, 2, 4, 8, 16, 64, 256, 512}) benchmark->Arg(rows);
}

template <class F>
void register_format() {
  std::string format(F::name);
  std::transform(format.begin(), format.end(), format.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const Shape shape : shapes) {
    if (shape.in_features % F::block_size != 0) continue;
    const std::string title = "matmul/" + format + "/" + shape_name(shape);
    set_rows(benchmark::RegisterBenchmark(title.c_str(), [shape](benchmark::State& s) { run_matmul<F>(s, shape); }));
  }
}

[[maybe_unused]] const bool registered = [] {
  register_format<Q4_0>();
  register_format<Q4_1>();
  register_format<Q5_0>();
  register_format<Q8_0>();
  register_format<Q4_K>();
  register_format<Q5_K>();
  register_format<Q6_K>();
  register_format<F16>();
  register_format<BF16>();
  register_format<F32>();
  for (const Shape shape : shapes) {
    const std::string title = "eigen/f32/" + shape_name(shape);
    benchmark::RegisterBenchmark(title.c_str(), [shape](benchmark::State& s) { run_eigen(s, shape); })
        ->ArgName("rows")
        ->MinTime(0.1)
        ->UseRealTime()
        ->Arg(1)
        ->Arg(256);
  }
  return true;
}();

}  // namespace
