// Norm, RoPE, Hadamard rotation, SwiGLU and softmax at a small model's sizes, beside the same formula in Eigen.
// Named <operation>/<isa or eigen>/rows:<n>. GB/s counts every array once for reading and once for writing.
#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <cmath>
#include <cstddef>
#include <functional>
#include <lazyllm/nn/hadamard.hpp>
#include <lazyllm/nn/rms_norm.hpp>
#include <lazyllm/nn/rope.hpp>
#include <lazyllm/nn/softmax.hpp>
#include <lazyllm/nn/swiglu.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <span>
#include <string>
#include <vector>

#include "support/machine_peak.hpp"

namespace {

using namespace lazyllm;

constexpr std::size_t dim = 576;
constexpr std::size_t ffn_dim = 1536;
constexpr std::size_t head_dim = 64;

/// Arrays for `rows` rows; a case reads and writes what it needs of them.
struct Arrays {
  explicit Arrays(std::size_t row_count)
      : rows(row_count), a(rows * ffn_dim), b(a.size(), 0.5f), out(a.size()), weight(dim, 1.0f), positions(rows) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i * 7919 % 1000) * 0.01f - 5.0f;
    for (std::size_t r = 0; r < rows; ++r) positions[r] = static_cast<TokenIndex>(r);
    table.reserve(rows);
  }

  std::size_t rows;
  std::vector<float> a, b, out, weight;
  std::vector<TokenIndex> positions;
  RopeTable table{head_dim, 10000.0f};
  SerialExecutor executor;
};

using Eigen::ArrayXf;
using EigenRow = Eigen::Map<ArrayXf>;
using Operation = std::function<void(Arrays&)>;

EigenRow eigen_row(std::vector<float>& values, std::size_t row, std::size_t width) {
  return {values.data() + row * width, static_cast<Eigen::Index>(width)};
}

void add(const std::string& name, std::size_t rows, std::size_t floats_per_row, const Operation& operation) {
  benchmark::RegisterBenchmark((name + "/rows:" + std::to_string(rows)).c_str(),
                               [=](benchmark::State& state) {
                                 Arrays arrays(rows);
                                 for (auto _ : state) {
                                   operation(arrays);
                                   benchmark::ClobberMemory();
                                 }
                                 const double gigabytes =
                                     static_cast<double>(rows * floats_per_row * sizeof(float)) * 1e-9;
                                 using benchmark::Counter;
                                 state.counters["GB/s"] = Counter(gigabytes, Counter::kIsIterationInvariantRate);
                                 state.counters["of_peak"] = Counter(gigabytes / bench::read_bandwidth_gbs(1),
                                                                     Counter::kIsIterationInvariantRate);
                               })
      ->MinTime(0.1)
      ->Unit(benchmark::kMicrosecond);
}

void add_isa(Isa isa, std::size_t rows) {
  const std::string suffix = "/" + std::string(name(isa));
  add("rms_norm" + suffix, rows, 2 * dim, [isa](Arrays& x) {
    rms_norm(ConstRows(x.a.data(), x.rows, dim), x.weight, 1e-5f, Rows(x.out.data(), x.rows, dim), x.executor, isa);
  });
  add("swiglu" + suffix, rows, 3 * ffn_dim, [isa](Arrays& x) {
    swiglu(ConstRows(x.a.data(), x.rows, ffn_dim), ConstRows(x.b.data(), x.rows, ffn_dim),
           Rows(x.out.data(), x.rows, ffn_dim), x.executor, isa);
  });
  for (const RopePairing pairing : {RopePairing::neighbours, RopePairing::halves}) {
    add((pairing == RopePairing::halves ? "rope_halves" : "rope_neighbours") + suffix, rows, 2 * dim, [=](Arrays& x) {
      rope(x.table, pairing, x.positions, head_dim, Rows(x.a.data(), x.rows, dim), x.executor, isa);
    });
  }
  add("hadamard" + suffix, rows, 2 * dim,
      [isa](Arrays& x) { hadamard_rotate(head_dim, Rows(x.a.data(), x.rows, dim), x.executor, isa); });
  add("softmax" + suffix, rows, 2 * ffn_dim, [isa](Arrays& x) {
    for (std::size_t r = 0; r < x.rows; ++r) softmax(std::span(x.a).subspan(r * ffn_dim, ffn_dim), isa);
  });
}

void add_eigen(std::size_t rows) {
  add("rms_norm/eigen", rows, 2 * dim, [](Arrays& x) {
    const EigenRow weight = eigen_row(x.weight, 0, dim);
    for (std::size_t r = 0; r < x.rows; ++r) {
      const EigenRow from = eigen_row(x.a, r, dim);
      eigen_row(x.out, r, dim) = from * weight / std::sqrt(from.square().mean() + 1e-5f);
    }
  });
  add("swiglu/eigen", rows, 3 * ffn_dim, [](Arrays& x) {
    for (std::size_t r = 0; r < x.rows; ++r) {
      const EigenRow gate = eigen_row(x.a, r, ffn_dim);
      eigen_row(x.out, r, ffn_dim) = gate / (1.0f + (-gate).exp()) * eigen_row(x.b, r, ffn_dim);
    }
  });
  add("softmax/eigen", rows, 2 * ffn_dim, [](Arrays& x) {
    for (std::size_t r = 0; r < x.rows; ++r) {
      EigenRow row = eigen_row(x.a, r, ffn_dim);
      row = (row - row.maxCoeff()).exp();
      row /= row.sum();
    }
  });
}

const bool registered = [] {
  for (const std::size_t rows : {std::size_t{1}, std::size_t{512}}) {
    for (const Isa isa : all_isas) {
      if (supports(isa)) add_isa(isa, rows);
    }
    add_eigen(rows);
  }
  return true;
}();

}  // namespace
