// Attention: prefill, its scores or column sums, and 1 to 64 rows over many keys, in the shapes of three models.
// Named attention/<case>/<heads>x<kv_heads>x<head_dim>/<element>/<isa>/keys:<n>/threads:<n>. GMAC/s counts Q K^T and P
// V of the visible (causal) half; of_fma and of_dot: its share of the ISA's peaks; of_read: the share of memory's.
// Keys and values of decode/... come from memory, one layer of a cache after the other; of_read is there the median
// share of the speed of plain reading that takes turns with it.
#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <lazyllm/cache/kv_cache.hpp>
#include <lazyllm/core/large_pages.hpp>
#include <lazyllm/nn/attention.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support/from_memory.hpp"
#include "support/machine_peak.hpp"

namespace {

using namespace lazyllm;

std::vector<float> noise(std::size_t count, unsigned seed) {
  std::vector<float> values(count);
  unsigned state = seed * 2654435761u + 1u;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int>(state >> 8)) * 0x1p-23f - 1.0f;
  }
  return values;
}

/// Rows of dim numbers as they are stored.
template <RowElement Element>
std::vector<Element> stored(const std::vector<float>& values, std::size_t dim) {
  std::vector<Element> rows(values.size() / dim * row_size<Element>(dim));
  for (std::size_t r = 0; r < values.size() / dim; ++r) {
    encode_row(std::span(values).subspan(r * dim, dim), rows.data() + r * row_size<Element>(dim));
  }
  return rows;
}

/// K and V as [token, kv_head, head_dim], like TokenMajor.
template <RowElement Key, RowElement Value = Key>
struct PlainKv {
  PlainKv(const AttentionShape& s, std::size_t tokens)
      : shape(s),
        keys(stored<Key>(noise(s.kv_heads * tokens * s.head_dim, 1), s.head_dim)),
        values(stored<Value>(noise(s.kv_heads * tokens * s.head_dim, 2), s.head_dim)) {}
  [[nodiscard]] const Key* key(std::size_t kv_head, TokenIndex token) const {
    return keys.data() + (token * shape.kv_heads + kv_head) * row_size<Key>(shape.head_dim);
  }
  [[nodiscard]] const Value* value(std::size_t kv_head, TokenIndex token) const {
    return values.data() + (token * shape.kv_heads + kv_head) * row_size<Value>(shape.head_dim);
  }
  [[nodiscard]] std::size_t kv_head_count() const { return shape.kv_heads; }
  [[nodiscard]] std::size_t head_dim() const { return shape.head_dim; }

  AttentionShape shape;
  std::vector<Key> keys;
  std::vector<Value> values;
};

std::vector<TokenIndex> first_tokens(std::size_t count) {
  std::vector<TokenIndex> tokens(count);
  for (std::size_t i = 0; i < count; ++i) tokens[i] = static_cast<TokenIndex>(i);
  return tokens;
}

/// Measured once for each ISA and number of threads.
const bench::MachinePeak& peak_of(Isa isa, std::size_t threads) {
  static std::map<std::pair<Isa, std::size_t>, bench::MachinePeak> peaks;
  const auto [at, is_new] = peaks.try_emplace({isa, threads});
  if (is_new) {
    ThreadPool pool(threads);
    at->second = bench::measure_machine_peak(isa, pool);
  }
  return at->second;
}

void set_rate(benchmark::State& state, const char* name, double per_iteration) {
  state.counters[name] = benchmark::Counter(per_iteration, benchmark::Counter::kIsIterationInvariantRate);
}

/// What one benchmark computes: the last `rows` of `keys` tokens, with `score_rows` rows of probabilities, or the sums
/// of all rows'.
struct Case {
  AttentionShape shape;
  std::size_t keys;
  std::size_t rows;
  std::size_t score_rows;
  bool column_sums = false;
};

template <RowElement Key, RowElement Value = Key>
void run(benchmark::State& state, const Case& c, Isa isa, std::size_t threads) {
  const PlainKv<Key, Value> kv(c.shape, c.keys);
  const std::vector<TokenIndex> keys = first_tokens(c.keys);
  const std::span<const TokenIndex> rows = std::span(keys).last(c.rows);
  const std::size_t width = c.shape.heads * c.shape.head_dim;
  const std::vector<float> queries = noise(c.rows * width, 3);
  std::vector<float> out(queries.size());
  std::vector<float> probabilities(c.score_rows * c.shape.heads * c.keys);
  const ScoreView scores(probabilities.data(), c.score_rows, c.shape.heads, c.keys);
  std::vector<float> sums(c.column_sums ? c.shape.heads * c.keys : 0);
  const Rows column_sums(sums.data(), sums.empty() ? 0 : c.shape.heads, c.keys);
  AttentionScratch scratch;
  ThreadPool pool(threads);
  for (auto _ : state) {
    attention(c.shape, ConstRows(queries.data(), c.rows, width), rows, keys, kv, Rows(out.data(), c.rows, width),
              {scores, column_sums}, scratch, pool, isa);
    benchmark::DoNotOptimize(out.data());
  }
  const bench::MachinePeak& peak = peak_of(isa, threads);
  double visible = 0.0;
  for (const TokenIndex row : rows) visible += static_cast<double>(row) + 1.0;
  const double gmacs = 2.0 * visible * static_cast<double>(width) * 1e-9;
  set_rate(state, "GMAC/s", gmacs);
  if (peak.float_gmacs > 0) set_rate(state, "of_fma", gmacs / peak.float_gmacs);
  if (peak.dot_gmacs > 0) set_rate(state, "of_dot", gmacs / peak.dot_gmacs);
  if (c.rows == c.keys) return;
  const double gb = static_cast<double>(kv.keys.size() * sizeof(Key) + kv.values.size() * sizeof(Value)) * 1e-9;
  set_rate(state, "GB/s", gb);
  set_rate(state, "of_read", gb / peak.read_gb_per_s);
}

/// Layers of shape.slots tokens, more than caches hold. All but the first have the first one's bits.
template <CacheLayout Layout>
KvCache<Layout> cold_cache(const CacheShape& shape) {
  const std::size_t layer_bytes = LayerCache<Layout>(shape).token_bytes() * shape.slots;
  const std::size_t layers = bench::cold_bytes() / layer_bytes + 1;
  KvCache<Layout> cache(layers, shape);
  const std::size_t width = shape.kv_heads * shape.head_dim;
  const std::vector<float> keys = noise(shape.slots * width, 1), values = noise(shape.slots * width, 2);
  std::vector<std::byte> stored(cache.layer(0).token_bytes());
  for (TokenIndex token = 0; token < shape.slots; ++token) {
    cache.layer(0).store(token, std::span(keys).subspan(token * width, width),
                         std::span(values).subspan(token * width, width));
    cache.layer(0).export_token(token, stored);
    for (std::size_t layer = 1; layer < layers; ++layer) cache.layer(layer).import_token(token, stored);
  }
  return cache;
}

/// One row after shape.slots tokens, as a token that is generated: the layers of a cache in turn, from memory.
template <CacheLayout Layout>
void run_decode(benchmark::State& state, const AttentionShape& shape, std::size_t key_count, Isa isa,
                std::size_t threads) {
  const KvCache<Layout> cache = cold_cache<Layout>(CacheShape{shape.kv_heads, shape.head_dim, key_count});
  const std::size_t layer_bytes = cache.layer(0).size_bytes(), layers = cache.size_bytes() / layer_bytes;
  const std::vector<TokenIndex> keys = first_tokens(key_count);
  const std::size_t width = shape.heads * shape.head_dim;
  const std::vector<float> query = noise(width, 3);
  std::vector<float> out(width);
  constexpr std::size_t chunk_bytes = std::size_t{64} << 10;
  LargePageBuffer plain(bench::cold_bytes());
  std::memset(plain.data(), 1, plain.size());
  AttentionScratch scratch;
  ThreadPool pool(threads);
  bench::ReadShare share(layer_bytes);
  std::size_t next = 0, next_chunk = 0;
  for (auto _ : state) {
    attention(shape, ConstRows(query.data(), 1, width), std::span(keys).last(1), keys, cache.layer(next),
              Rows(out.data(), 1, width), {}, scratch, pool, isa);
    benchmark::DoNotOptimize(out.data());
    next = (next + 1) % layers;
    share.end_pass(state, [&](std::size_t passes) {
      const std::size_t chunks = passes * layer_bytes / chunk_bytes;
      if ((next_chunk + chunks) * chunk_bytes > plain.size()) next_chunk = 0;
      const std::byte* const from = plain.data() + std::exchange(next_chunk, next_chunk + chunks) * chunk_bytes;
      pool.parallel_for(chunks, [&](std::size_t begin, std::size_t end) {
        dispatch_float(isa, [&](auto tag) {
          bench::read_memory<1>(tag, from + begin * chunk_bytes, (end - begin) * chunk_bytes, 4096);
        });
      });
      return chunks * chunk_bytes;
    });
  }
  share.report(state, "of_read");
  set_rate(state, "GB/s", static_cast<double>(layer_bytes) * 1e-9);
}

/// The obvious Eigen program: for each head the whole score matrix, masked, softmax, times V. Computes both halves.
void run_eigen(benchmark::State& state, const AttentionShape& shape, std::size_t key_count) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Strided = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;
  const PlainKv<float> kv(shape, key_count);
  const auto n = static_cast<Eigen::Index>(key_count);
  const auto d = static_cast<Eigen::Index>(shape.head_dim);
  const auto width = static_cast<Eigen::Index>(shape.heads * shape.head_dim);
  const Eigen::OuterStride<> kv_stride(static_cast<Eigen::Index>(shape.kv_heads * shape.head_dim));
  const std::vector<float> queries = noise(key_count * shape.heads * shape.head_dim, 3);
  Matrix out(n, width);
  for (auto _ : state) {
    for (std::size_t head = 0; head < shape.heads; ++head) {
      const std::size_t kv_head = head / (shape.heads / shape.kv_heads);
      const Strided q(queries.data() + head * shape.head_dim, n, d, Eigen::OuterStride<>(width));
      const Strided k(kv.key(kv_head, 0), n, d, kv_stride);
      const Strided v(kv.value(kv_head, 0), n, d, kv_stride);
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
  const double gmacs = 2.0 * visible * static_cast<double>(width) * 1e-9;
  set_rate(state, "GMAC/s", gmacs);
  set_rate(state, "of_fma", gmacs / peak_of(active_isa(), 1).float_gmacs);
}

std::string shape_name(const AttentionShape& shape) {
  return std::to_string(shape.heads) + "x" + std::to_string(shape.kv_heads) + "x" + std::to_string(shape.head_dim);
}

template <class Body>
void add(const std::string& name, std::size_t keys, std::size_t threads, const Body& body) {
  const std::string full =
      "attention/" + name + "/keys:" + std::to_string(keys) + "/threads:" + std::to_string(threads);
  benchmark::RegisterBenchmark(full.c_str(), body)->UseRealTime()->MinTime(0.2)->Unit(benchmark::kMicrosecond);
}

/// Calls body(isa, threads) for each that there is.
template <class Body>
void for_each_isa(const Body& body) {
  for (const Isa isa : all_isas) {
    if (!supports(isa)) continue;
    for (const std::size_t threads : {std::size_t{1}, std::size_t{2}}) body(isa, threads);
  }
}

void add_case(const std::string& name, const Case& c) {
  for_each_isa([&](Isa isa, std::size_t threads) {
    const std::string prefix = name + "/" + shape_name(c.shape);
    const std::string suffix = "/" + std::string(lazyllm::name(isa));
    const auto add_element = [&](const char* element, const auto& body) {
      add(prefix + "/" + element + suffix, c.keys, threads, body);
    };
    add_element("float", [=](benchmark::State& state) { run<float>(state, c, isa, threads); });
    add_element("half", [=](benchmark::State& state) { run<Float16>(state, c, isa, threads); });
    add_element("bfloat16", [=](benchmark::State& state) { run<BFloat16>(state, c, isa, threads); });
    add_element("bfloat16_int8", [=](benchmark::State& state) { run<BFloat16, Int8>(state, c, isa, threads); });
    add_element("int8_half", [=](benchmark::State& state) { run<Int8, Float16>(state, c, isa, threads); });
    add_element("int8", [=](benchmark::State& state) { run<Int8>(state, c, isa, threads); });
  });
}

template <CacheLayout Layout>
void add_decode(const std::string& layout, const AttentionShape& shape) {
  constexpr std::size_t keys = 4096;
  for_each_isa([&](Isa isa, std::size_t threads) {
    add("decode/" + shape_name(shape) + "/" + layout + "/int8/" + std::string(lazyllm::name(isa)), keys, threads,
        [=](benchmark::State& state) { run_decode<Layout>(state, shape, keys, isa, threads); });
  });
}

const bool registered = [] {
  const AttentionShape smollm{9, 3, 64, 0.125f};  // SmolLM2-135M
  const AttentionShape llama1b{32, 8, 64, 0.125f};
  const AttentionShape llama8b{32, 8, 128, 0.088388f};
  for (const AttentionShape& shape : {smollm, llama1b, llama8b}) {
    add_case("prefill", {shape, 2048, 2048, 0});
    add_case("rows:1", {shape, 4096, 1, 0});
  }
  add_case("prefill", {smollm, 512, 512, 0});
  for (const std::size_t score_rows : {1u, 64u}) {
    add_case("scores:" + std::to_string(score_rows), {smollm, 2048, 2048, score_rows});
  }
  add_case("rows:1_scores:1", {smollm, 4096, 1, 1});
  add_case("prefill_sums", {smollm, 2048, 2048, 0, true});
  add_case("rows:1_sums", {smollm, 4096, 1, 0, true});
  for (const std::size_t rows : {8u, 64u}) add_case("rows:" + std::to_string(rows), {smollm, 4096, rows, 0});
  for (const AttentionShape& shape : {smollm, llama8b, AttentionShape{16, 4, 256, 0.0625f}}) {
    add_decode<HeadMajor>("head_major", shape);
  }
  add_decode<TokenMajor>("token_major", smollm);
  add_decode<Paged<64>>("paged64", smollm);
  add("prefill/" + shape_name(smollm) + "/eigen", 2048, 1,
      [=](benchmark::State& state) { run_eigen(state, smollm, 2048); });
  return true;
}();

}  // namespace
