// Attention of a small Llama's shape (9 query heads, 3 KV heads, head size 64): prefill and one-row decode.
// Named attention/<case>/<isa>/keys:<n>/threads:<n>. GMAC/s counts Q K^T and P V of the visible (causal) half.
#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <lazyllm/nn/attention.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <span>
#include <string>
#include <vector>

#include "support/machine_peak.hpp"

namespace {

using namespace lazyllm;

constexpr AttentionShape shape{9, 3, 64, 0.125f};

std::vector<float> noise(std::size_t count, unsigned seed) {
  std::vector<float> values(count);
  unsigned state = seed * 2654435761u + 1u;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int>(state >> 8)) * 0x1p-23f - 1.0f;
  }
  return values;
}

/// K and V as [kv_head, token, head_dim].
struct PlainKv {
  explicit PlainKv(std::size_t token_count)
      : tokens(token_count), keys(noise(shape.kv_heads * tokens * shape.head_dim, 1)), values(noise(keys.size(), 2)) {}
  [[nodiscard]] const float* key(std::size_t kv_head, TokenIndex token) const {
    return keys.data() + (kv_head * tokens + token) * shape.head_dim;
  }
  [[nodiscard]] const float* value(std::size_t kv_head, TokenIndex token) const {
    return values.data() + (kv_head * tokens + token) * shape.head_dim;
  }
  [[nodiscard]] static std::size_t kv_head_count() { return shape.kv_heads; }
  [[nodiscard]] static std::size_t head_dim() { return shape.head_dim; }

  std::size_t tokens;
  std::vector<float> keys;
  std::vector<float> values;
};

std::vector<TokenIndex> first_tokens(std::size_t count) {
  std::vector<TokenIndex> tokens(count);
  for (std::size_t i = 0; i < count; ++i) tokens[i] = static_cast<TokenIndex>(i);
  return tokens;
}

void set_rate(benchmark::State& state, const char* name, double per_iteration, double peak) {
  const double giga = per_iteration * 1e-9;
  state.counters[name] = benchmark::Counter(giga, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of_peak"] = benchmark::Counter(giga / peak, benchmark::Counter::kIsIterationInvariantRate);
}

/// The last `row_count` of `key_count` tokens, with `score_rows` rows of probabilities.
void run(benchmark::State& state, Isa isa, std::size_t threads, std::size_t key_count, std::size_t row_count,
         std::size_t score_rows) {
  const PlainKv kv(key_count);
  const std::vector<TokenIndex> keys = first_tokens(key_count);
  const std::span<const TokenIndex> rows = std::span(keys).last(row_count);
  const std::size_t width = shape.heads * shape.head_dim;
  const std::vector<float> queries = noise(row_count * width, 3);
  std::vector<float> out(queries.size());
  std::vector<float> probabilities(score_rows * shape.heads * key_count);
  const ScoreView scores(probabilities.data(), score_rows, shape.heads, key_count);
  AttentionScratch scratch;
  ThreadPool pool(threads);
  for (auto _ : state) {
    attention(shape, ConstRows(queries.data(), row_count, width), rows, keys, kv, Rows(out.data(), row_count, width),
              scores, scratch, pool, isa);
    benchmark::DoNotOptimize(out.data());
  }
  if (row_count == 1) {
    set_rate(state, "GB/s", static_cast<double>(2 * shape.kv_heads * shape.head_dim * key_count * sizeof(float)),
             bench::read_bandwidth_gbs(threads));
    return;
  }
  double visible = 0.0;
  for (const TokenIndex row : rows) visible += static_cast<double>(row) + 1.0;
  set_rate(state, "GMAC/s", 2.0 * visible * static_cast<double>(width), bench::fma_peak_gmacs(threads));
}

/// The obvious Eigen program: for each head the whole score matrix, masked, softmax, times V. Computes both halves.
void run_eigen(benchmark::State& state, std::size_t key_count) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Strided = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;
  const PlainKv kv(key_count);
  const auto n = static_cast<Eigen::Index>(key_count);
  const auto d = static_cast<Eigen::Index>(shape.head_dim);
  const auto width = static_cast<Eigen::Index>(shape.heads * shape.head_dim);
  const std::vector<float> queries = noise(key_count * shape.heads * shape.head_dim, 3);
  Matrix out(n, width);
  for (auto _ : state) {
    for (std::size_t head = 0; head < shape.heads; ++head) {
      const std::size_t kv_head = head / (shape.heads / shape.kv_heads);
      const Strided q(queries.data() + head * shape.head_dim, n, d, Eigen::OuterStride<>(width));
      const Eigen::Map<const Matrix> k(kv.key(kv_head, 0), n, d);
      const Eigen::Map<const Matrix> v(kv.value(kv_head, 0), n, d);
      Matrix scores = q * k.transpose() * shape.scale;
      for (Eigen::Index r = 0; r < n; ++r) {
        auto row = scores.row(r).head(r + 1);
        row = (row.array() - row.maxCoeff()).exp();
        row /= row.sum();
        scores.row(r).tail(n - r - 1).setZero();
      }
      out.middleCols(static_cast<Eigen::Index>(head) * d, d) = scores * v;
    }
    benchmark::DoNotOptimize(out.data());
  }
  const double visible = 0.5 * static_cast<double>(key_count) * static_cast<double>(key_count + 1);
  set_rate(state, "GMAC/s", 2.0 * visible * static_cast<double>(width), bench::fma_peak_gmacs(1));
}

void add(const std::string& name, Isa isa, std::size_t threads, std::size_t keys, std::size_t rows,
         std::size_t score_rows) {
  const std::string full = "attention/" + name + "/" + std::string(lazyllm::name(isa)) +
                           "/keys:" + std::to_string(keys) + "/threads:" + std::to_string(threads);
  benchmark::RegisterBenchmark(full.c_str(),
                               [=](benchmark::State& state) { run(state, isa, threads, keys, rows, score_rows); })
      ->UseRealTime()
      ->MinTime(0.2)
      ->Unit(benchmark::kMicrosecond);
}

const bool registered = [] {
  for (const Isa isa : all_isas) {
    if (!supports(isa)) continue;
    for (const std::size_t threads : {std::size_t{1}, std::size_t{2}}) {
      for (const std::size_t keys : {std::size_t{512}, std::size_t{2048}}) add("prefill", isa, threads, keys, keys, 0);
      add("prefill_scores", isa, threads, 2048, 2048, 1);
      add("decode", isa, threads, 512, 1, 0);
      add("decode", isa, threads, 4096, 1, 0);
      add("decode_scores", isa, threads, 4096, 1, 1);
    }
  }
  benchmark::RegisterBenchmark("attention/prefill/eigen/keys:2048/threads:1",
                               [](benchmark::State& state) { run_eigen(state, 2048); })
      ->UseRealTime()
      ->MinTime(0.2)
      ->Unit(benchmark::kMicrosecond);
  return true;
}();

}  // namespace
