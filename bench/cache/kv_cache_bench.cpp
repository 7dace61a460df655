// A layer of the KV cache: storing tokens, reading all their rows as attention does (head by head, by token index), the
// norms of their values.
// Named kv_cache/<what>/<kv_heads>x<head_dim>/<layout>/<element>/tokens:<n>, one thread. GB/s counts the stored bytes;
// the twin `plain` copies or reads the same bytes in one array.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <lazyllm/cache/kv_cache.hpp>
#include <lazyllm/nn/value_norms.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace {

using namespace lazyllm;

void set_rate(benchmark::State& state, std::size_t bytes) {
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(bytes) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

/// Reads whole words of memory, so that no conversion counts.
std::uint64_t sum_words(const void* memory, std::size_t bytes) {
  std::uint64_t sum = 0;
  const auto* at = static_cast<const std::byte*>(memory);
  for (std::size_t i = 0; i + sizeof sum <= bytes; i += sizeof sum) {
    std::uint64_t word;
    std::memcpy(&word, at + i, sizeof word);
    sum += word;
  }
  return sum;
}

template <CacheLayout Layout, RowElement Element>
void store(benchmark::State& state, CacheShape shape) {
  LayerCache<Layout, Element> cache(shape);
  std::vector<float> row(shape.kv_heads * shape.head_dim);
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i % 97) - 48.0f;
  for (auto _ : state) {
    for (TokenIndex token = 0; token < shape.slots; ++token) cache.store(token, row, row);
    state.PauseTiming();
    cache.truncate(0);
    state.ResumeTiming();
  }
  set_rate(state, shape.slots * cache.token_bytes());
}

template <CacheLayout Layout, RowElement Element>
void read(benchmark::State& state, CacheShape shape) {
  LayerCache<Layout, Element> cache(shape);
  const std::vector<float> row(shape.kv_heads * shape.head_dim, 1.0f);
  for (TokenIndex token = 0; token < shape.slots; ++token) cache.store(token, row, row);
  const std::size_t bytes = row_bytes<Element>(shape.head_dim);
  for (auto _ : state) {
    std::uint64_t sum = 0;
    for (std::size_t head = 0; head < shape.kv_heads; ++head) {
      for (TokenIndex token = 0; token < shape.slots; ++token) {
        sum += sum_words(cache.key(head, token), bytes) + sum_words(cache.value(head, token), bytes);
      }
    }
    benchmark::DoNotOptimize(sum);
  }
  set_rate(state, shape.slots * cache.token_bytes());
}

template <CacheLayout Layout, RowElement Element>
void norms_of_values(benchmark::State& state, CacheShape shape) {
  LayerCache<Layout, Element> cache(shape);
  const std::vector<float> row(shape.kv_heads * shape.head_dim, 1.0f);
  for (TokenIndex token = 0; token < shape.slots; ++token) cache.store(token, row, row);
  std::vector<TokenIndex> tokens(shape.slots);
  std::iota(tokens.begin(), tokens.end(), TokenIndex{0});
  std::vector<float> norms(shape.kv_heads * shape.slots);
  SerialExecutor executor;
  for (auto _ : state) {
    value_norms(cache, tokens, Rows(norms.data(), shape.kv_heads, shape.slots), executor);
    benchmark::ClobberMemory();
  }
  set_rate(state, shape.slots * shape.kv_heads * row_bytes<Element>(shape.head_dim));
}

template <RowElement Element>
void store_plain(benchmark::State& state, CacheShape shape) {
  const std::size_t bytes = 2 * shape.kv_heads * row_bytes<Element>(shape.head_dim);
  const std::vector<std::byte> token(bytes, std::byte{1});
  std::vector<std::byte> all(shape.slots * bytes);
  for (auto _ : state) {
    for (std::size_t i = 0; i < shape.slots; ++i) std::copy_n(token.data(), bytes, all.data() + i * bytes);
    benchmark::ClobberMemory();
  }
  set_rate(state, all.size());
}

template <RowElement Element>
void read_plain(benchmark::State& state, CacheShape shape) {
  const std::vector<std::byte> all(shape.slots * 2 * shape.kv_heads * row_bytes<Element>(shape.head_dim));
  for (auto _ : state) benchmark::DoNotOptimize(sum_words(all.data(), all.size()));
  set_rate(state, all.size());
}

template <class Body>
void add(const std::string& what, CacheShape shape, const std::string& layout, const std::string& element, Body body) {
  const std::string name = "kv_cache/" + what + "/" + std::to_string(shape.kv_heads) + "x" +
                           std::to_string(shape.head_dim) + "/" + layout + "/" + element +
                           "/tokens:" + std::to_string(shape.slots);
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { body(state, shape); })
      ->MinTime(0.05)
      ->Unit(benchmark::kMicrosecond);
}

template <CacheLayout Layout, RowElement Element>
void add_layout(CacheShape shape, const std::string& layout, const std::string& element) {
  add("store", shape, layout, element, store<Layout, Element>);
  add("read", shape, layout, element, read<Layout, Element>);
}

template <RowElement Element>
void add_element(CacheShape shape, const std::string& element) {
  add_layout<HeadMajor, Element>(shape, "head_major", element);
  add("value_norms", shape, "head_major", element, norms_of_values<HeadMajor, Element>);
  add_layout<TokenMajor, Element>(shape, "token_major", element);
  add_layout<Paged<64>, Element>(shape, "paged64", element);
  add_layout<Paged<64, TokenMajor>, Element>(shape, "paged64_token_major", element);
  add("store", shape, "plain", element, store_plain<Element>);
  add("read", shape, "plain", element, read_plain<Element>);
}

const bool registered = [] {
  for (const CacheShape shape : {CacheShape{3, 64, 4096}, CacheShape{8, 128, 4096}}) {
    add_element<float>(shape, "float");
    add_element<Float16>(shape, "half");
    add_element<BFloat16>(shape, "bfloat16");
    add_element<Int8>(shape, "int8");
  }
  return true;
}();

}  // namespace
