// matmul/<format>/<in_features>x<out_features>/rows:<rows> on all CPUs, with the ISA of the process (LAZYLLM_ISA).
// Few rows read weights that no cache holds: copies of more than 1 GB take turns. of_read_peak: the share of the speed
// of plain reading of the same weights, slices of which stand between those of products (the speed of a memory that
// others share changes from one second to the next); the median of the slices. of_kernel_bound: the share of what the
// kernel's own instructions allow (support/kernel_bound.hpp). eigen/...: Eigen's float product of the same shape, on
// one thread and with the build's flags.
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

#include "support/from_memory.hpp"
#include "support/kernel_bound.hpp"
#include "support/machine_peak.hpp"

#define EIGEN_DONT_PARALLELIZE
#define EIGEN_MPL2_ONLY
#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace lazyllm;

struct Shape {
  std::size_t in_features, out_features;
};
// q and o, k and v, gate and up, down of SmolLM2-135M, of Llama 1B and of Llama 8B.
constexpr std::array<Shape, 12> shapes{{{576, 576},
                                        {576, 192},
                                        {576, 1536},
                                        {1536, 576},
                                        {2048, 2048},
                                        {2048, 512},
                                        {2048, 8192},
                                        {8192, 2048},
                                        {4096, 4096},
                                        {4096, 1024},
                                        {4096, 14336},
                                        {14336, 4096}}};
constexpr std::size_t most_cold_rows = 16;

ThreadPool& pool() {
  static ThreadPool threads(cpu_count());
  return threads;
}

// Measured when a benchmark first needs them.
double compute_peak(bool integers) {
  if (integers) {
    static const double dots = bench::measure_dot_peak(active_isa(), pool());
    return dots;
  }
  static const double floats = bench::measure_float_peak(active_isa(), pool());
  return floats;
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

/// `bound`: share of the compute peak that is possible, 0 where it is not known.
void report(benchmark::State& state, double macs, double weight_bytes, bool integers, double bound) {
  const double gmacs = macs * 1e-9, gigabytes = weight_bytes * 1e-9;
  const auto rate = [](double per_pass) {
    return benchmark::Counter(per_pass, benchmark::Counter::kIsIterationInvariantRate);
  };
  const double most = compute_peak(integers);
  state.counters["GMAC/s"] = rate(gmacs);
  state.counters["GB/s"] = rate(gigabytes);
  if (most > 0) state.counters["of_compute_peak"] = rate(gmacs / most);
  if (most > 0 && bound > 0) state.counters["of_kernel_bound"] = rate(gmacs / (most * bound));
  state.SetLabel(std::string(name(active_isa())));
}

/// Random blocks; beyond the first rows they repeat, as the time does not depend on them and quantising takes long.
template <class F>
std::vector<typename F::Block> random_blocks(Shape shape) {
  const std::size_t distinct_rows = std::min<std::size_t>(shape.out_features, 64);
  std::vector<typename F::Block> blocks(distinct_rows * shape.in_features / F::block_size);
  F::quantize(random_floats(distinct_rows * shape.in_features), blocks);
  const std::size_t count = shape.out_features * shape.in_features / F::block_size, distinct = blocks.size();
  blocks.resize(count);
  for (std::size_t i = distinct; i < count; ++i) blocks[i] = blocks[i - distinct];
  return blocks;
}

/// Reads `count` matrices from `first` on, around the end, with all threads; returns how many bytes that were.
template <class F>
std::size_t read_plainly(std::span<const PackedMatrix<F>> weights, std::size_t first, std::size_t count) {
  constexpr std::size_t parts = 8, step = 256;  // of a matrix; bytes that read_memory reads at least
  const std::size_t part_bytes = weights[0].size_bytes() / (parts * step) * step;
  pool().parallel_for(count * parts, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const std::byte* const part = weights[(first + i / parts) % weights.size()].panel(0) + i % parts * part_bytes;
      dispatch_float(active_isa(), [&](auto tag) { bench::read_memory<1>(tag, part, part_bytes, 0); });
    }
  });
  return count * parts * part_bytes;
}

template <class F>
void run_matmul(benchmark::State& state, Shape shape) {
  const auto rows = static_cast<std::size_t>(state.range(0));
  const auto [in_features, out_features] = shape;
  const std::vector<typename F::Block> stored = random_blocks<F>(shape);
  const auto bytes = std::as_bytes(std::span(stored));
  const bool cold = rows <= most_cold_rows;
  const std::size_t copies = cold ? bench::cold_bytes() / bytes.size() + 1 : 1;
  std::vector<PackedMatrix<F>> weights;
  for (std::size_t i = 0; i < copies; ++i) {
    weights.push_back(PackedMatrix<F>::pack(bytes, out_features, in_features, pool()));
  }
  const std::vector<float> values = random_floats(rows * in_features);
  std::vector<float> out(rows * out_features);
  Activations x;
  bench::ReadShare share(weights[0].size_bytes());
  std::size_t next = 0;
  for (auto _ : state) {
    x.assign(ConstRows(values.data(), rows, in_features));
    matmul(x, weights[next], Rows(out.data(), rows, out_features), pool());
    next = (next + 1) % copies;
    benchmark::ClobberMemory();
    if (!cold) continue;
    share.end_pass(state, [&](std::size_t passes) {
      const std::size_t first = std::exchange(next, (next + passes) % copies);
      return read_plainly(std::span<const PackedMatrix<F>>(weights), first, passes);
    });
  }
  share.report(state, "of_read_peak");
  report(state, static_cast<double>(rows * in_features * out_features), static_cast<double>(weights[0].size_bytes()),
         F::Panel::reads_codes, bench::kernel_bound<typename F::Panel>(active_isa(), rows));
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
  report(state, macs, static_cast<double>(w.size()) * sizeof(float), false, 0);
}

void set_rows(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgName("rows")->MinTime(0.1)->UseRealTime();
  for (const int rows : {1, 2, 4, 8, 12, 16, 64, 512}) benchmark->Arg(rows);
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
        ->Arg(512);
  }
  return true;
}();

}  // namespace
