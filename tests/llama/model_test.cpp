#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/io/gguf_parse.hpp>
#include <lazyllm/io/mapped_file.hpp>
#include <lazyllm/llama/model.hpp>
#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/top_k_policy.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/attention_oracle.hpp"
#include "support/naive_graph.hpp"
#include "support/random_model.hpp"
#include "support/temporary_directory.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

constexpr std::size_t tile = Llama<>::tile_rows;

using Shared = std::shared_ptr<const LlamaWeights<AsStored>>;

static_assert(LanguageGraph<Llama<>> && SplitGraph<Llama<>> && SessionGraph<Llama<>> && EvictingGraph<Llama<>> &&
              ColumnSumGraph<Llama<>> && ValueNormGraph<Llama<>>);
static_assert(LanguageGraph<Llama<Q4_1, SerialExecutor, KvCache<HeadMajor, float>>>);

Shared load(const GgufWriter& writer) {
  const TemporaryDirectory directory;
  writer.save(directory.path() / "model.gguf");
  const MappedFile file(directory.path() / "model.gguf");
  SerialExecutor executor;
  return LlamaWeights<AsStored>::load(file, parse_gguf(file.bytes()), executor);
}

/// A model whose matrices are Q4_1 and Q8_0, wide enough for integer kernels: 64 hidden, 4 heads over 2.
Shared quantised_model(std::size_t context = 2048) {
  Random random(5);
  GgufWriter writer;
  writer.add("general.architecture", std::string("llama"));
  const auto number = [&](const char* key, std::size_t value) {
    writer.add(std::string("llama.") + key, static_cast<std::uint32_t>(value));
  };
  number("block_count", 3);
  number("context_length", context);
  number("embedding_length", 64);
  number("feed_forward_length", 96);
  number("attention.head_count", 4);
  number("attention.head_count_kv", 2);
  writer.add("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  std::vector<std::unique_ptr<std::vector<std::byte>>> storage;
  const auto matrix = [&]<class F>(F, GgufType type, const std::string& name, std::size_t rows, std::size_t cols) {
    const Weights weights = random_matrix(random, rows, cols, 1.2);
    std::vector<typename F::Block> blocks(weights.size() / F::block_size);
    F::quantize(weights, blocks);
    storage.push_back(std::make_unique<std::vector<std::byte>>(blocks.size() * sizeof(typename F::Block)));
    std::memcpy(storage.back()->data(), blocks.data(), storage.back()->size());
    writer.add_tensor(name, type, {cols, rows}, *storage.back());
  };
  const Weights ones(64, 1.0f);
  const auto norm = [&](const std::string& name) {
    writer.add_tensor(name, GgufType::f32, {64}, std::as_bytes(std::span(ones)));
  };
  matrix(Q8_0{}, GgufType::q8_0, "token_embd.weight", 96, 64);
  norm("output_norm.weight");
  for (int layer = 0; layer < 3; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    norm(prefix + "attn_norm.weight");
    matrix(Q4_1{}, GgufType::q4_1, prefix + "attn_q.weight", 64, 64);
    matrix(Q4_1{}, GgufType::q4_1, prefix + "attn_k.weight", 32, 64);
    matrix(Q4_0{}, GgufType::q4_0, prefix + "attn_v.weight", 32, 64);
    matrix(Q4_1{}, GgufType::q4_1, prefix + "attn_output.weight", 64, 64);
    norm(prefix + "ffn_norm.weight");
    matrix(Q4_1{}, GgufType::q4_1, prefix + "ffn_gate.weight", 96, 64);
    matrix(Q4_1{}, GgufType::q4_1, prefix + "ffn_up.weight", 96, 64);
    matrix(F16{}, GgufType::f16, prefix + "ffn_down.weight", 64, 96);
  }
  return load(writer);
}

std::vector<TokenId> prompt(std::size_t size, std::size_t vocab = 96) {
  std::vector<TokenId> ids(size);
  for (std::size_t i = 0; i < size; ++i) ids[i] = static_cast<TokenId>((i * i * 7 + i * 3 + 1) % vocab);
  return ids;
}

SessionOptions options(std::size_t context) {
  SessionOptions result;
  result.context_size = context;
  return result;
}

std::vector<float> copy(std::span<const float> values) { return {values.begin(), values.end()}; }

/// Logits of a prefill and four decode steps.
template <class Graph, class Policy>
std::vector<std::vector<float>> run(Graph& graph, Policy policy, std::span<const TokenId> ids) {
  LazySession session(graph, std::move(policy), options(ids.size() + 4));
  std::vector<std::vector<float>> logits{copy(session.prefill(ids))};
  for (TokenId id = 1; id < 5; ++id) logits.push_back(copy(session.decode(id)));
  return logits;
}

/// The dense model without the engine: every layer over all tokens at once.
std::vector<float> plain_loop(const Shared& weights, std::span<const TokenId> ids) {
  ThreadPool pool(2);
  Llama graph(weights, pool, ids.size());
  std::vector<TokenIndex> all(ids.size());
  std::iota(all.begin(), all.end(), TokenIndex{0});
  std::vector<float> hidden(ids.size() * graph.hidden_dim()), logits(graph.vocab_size());
  const Rows rows(hidden.data(), ids.size(), graph.hidden_dim());
  graph.embed(ids, rows);
  for (LayerIndex layer = 0; layer < graph.layer_count(); ++layer) {
    graph.run_layer({.layer = layer, .rows = all, .keys = all, .outputs = ids.size(), .hidden = rows, .scores = {}});
  }
  graph.project(rows.middle_rows(ids.size() - 1, 1), Rows(logits.data(), 1, logits.size()));
  return logits;
}

TopKPolicy<> top_k(const char* schedule) { return TopKPolicy<>(MeanOverHeads{}, parse_schedule(schedule)); }

struct FirstLayer {
  std::vector<float> hidden, probabilities;
};

/// Layer 0 over all tokens of a fresh graph, with the probabilities of the last `query_rows` rows. At most `outputs`
/// rows have their output.
FirstLayer run_first_layer(const Shared& weights, const std::vector<TokenId>& ids, std::size_t threads,
                           std::size_t query_rows, Rows column_sums = {}, std::size_t outputs = SIZE_MAX) {
  std::vector<TokenIndex> all(ids.size());
  std::iota(all.begin(), all.end(), TokenIndex{0});
  ThreadPool pool(threads);
  Llama graph(weights, pool, ids.size());
  FirstLayer result{.hidden = std::vector<float>(ids.size() * graph.hidden_dim()),
                    .probabilities = std::vector<float>(query_rows * graph.head_count() * ids.size())};
  const Rows rows(result.hidden.data(), ids.size(), graph.hidden_dim());
  graph.embed(ids, rows);
  graph.run_layer({.layer = 0,
                   .rows = all,
                   .keys = all,
                   .outputs = std::min(outputs, ids.size()),
                   .hidden = rows,
                   .scores = ScoreView(result.probabilities.data(), query_rows, graph.head_count(), ids.size())},
                  column_sums);
  return result;
}

}  // namespace

TEST_CASE("KeepAll, an empty schedule, keep 1.0 and a plain loop without the engine give the same bits") {
  const Shared weights = quantised_model();
  for (const std::size_t size :
       {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{40}, tile, tile + 1, tile + 40}) {
    CAPTURE(size);
    const std::vector<TokenId> ids = prompt(size);
    ThreadPool pool(2);
    Llama a(weights, pool, size + 4), b(weights, pool, size + 4), c(weights, pool, size + 4);
    const auto dense = run(a, KeepAll{}, ids);
    CHECK(dense == run(b, top_k("none"), ids));
    CHECK(dense == run(c, top_k("0:1.0,1:p0,2:1.0"), ids));
    CHECK(dense[0] == plain_loop(weights, ids));
  }
}

TEST_CASE("Pruning before the work gives the first token's logits of pruning after it, bit for bit") {
  const Shared weights = quantised_model();
  for (const std::size_t size : {std::size_t{2}, std::size_t{40}, tile + 40}) {
    const std::vector<TokenId> ids = prompt(size);
    for (const char* schedule : {"0:0.4,1:0.2", "1:0.3/max^48~7", "0:9,2:1", "0:1.0,1:0"}) {
      CAPTURE(size);
      CAPTURE(schedule);
      ThreadPool pool(2);
      Llama split_graph(weights, pool, size), whole_graph(weights, pool, size);
      Unsplit unsplit(whole_graph);
      LazySession split(split_graph, top_k(schedule), options(size));
      LazySession whole(unsplit, top_k(schedule), options(size));
      CHECK(copy(split.prefill(ids)) == copy(whole.prefill(ids)));
      CHECK(split.last_step().rows_computed == whole.last_step().rows_computed);
      CHECK(whole.last_step().rows_finished[0] == size);
      CHECK(split.last_step().rows_finished[0] == split.last_step().rows_computed[1]);
      CHECK(split_graph.kv_bytes() == whole_graph.kv_bytes());
      CHECK(split.aux_bytes() == whole.aux_bytes());
    }
  }
}

TEST_CASE("1, 2 and 3 threads, and both cache layouts, give the same bits, dense and pruned") {
  const Shared weights = quantised_model();
  const std::vector<TokenId> ids = prompt(tile + 44);
  using Texts = std::pair<const char*, const char*>;
  for (const auto& [schedule, eviction] :
       {Texts{"none", "none"}, Texts{"0:0.4,1:20", "none"}, Texts{"1:0.4", "h2o:99"}}) {
    const WithEviction policy(top_k(schedule), parse_eviction(eviction));
    SerialExecutor serial;
    Llama reference(weights, serial, tile + 48);
    const auto expected = run(reference, policy, ids);
    for (const std::size_t threads : {1u, 2u, 3u}) {
      ThreadPool pool(threads);
      Llama graph(weights, pool, tile + 48);
      CHECK(run(graph, policy, ids) == expected);
      Llama<AsStored, ThreadPool, KvCache<Paged<16>>> other(weights, pool, tile + 48);
      CHECK(run(other, policy, ids) == expected);
    }
  }
}

TEST_CASE("A row's output does not depend on the rows that share the call") {
  const Shared weights = quantised_model();
  const std::vector<TokenId> ids = prompt(tile + 14);
  ThreadPool pool(2);
  Llama together(weights, pool, tile + 14), apart(weights, pool, tile + 14);
  const auto expected = run(together, KeepAll{}, std::span(ids).first(tile + 10));
  LazySession session(apart, KeepAll{}, options(tile + 14));
  std::size_t done = 0;
  std::vector<float> logits;
  for (const std::size_t part :
       {std::size_t{1}, std::size_t{2}, std::size_t{5}, std::size_t{12}, std::size_t{33}, tile - 43}) {
    logits = copy(session.prefill(std::span(ids).subspan(done, part)));
    done += part;
  }
  REQUIRE(done == tile + 10);
  CHECK(logits == expected[0]);
}

TEST_CASE("Scores of the last rows are the same probabilities on both sides of a tile's border") {
  const Shared weights = quantised_model();
  const std::vector<TokenId> ids = prompt(tile + 2);  // the last tile has two rows
  const auto scores = [&](std::size_t query_rows) {
    return run_first_layer(weights, ids, 2, query_rows).probabilities;
  };
  const std::vector<float> five = scores(5), one = scores(1);
  CHECK(std::equal(one.begin(), one.end(), five.end() - static_cast<std::ptrdiff_t>(one.size())));
  for (std::size_t row = 0; row < five.size() / ids.size(); ++row) {
    const auto begin = five.begin() + static_cast<std::ptrdiff_t>(row * ids.size());
    // As many rounded probabilities and one rounded reciprocal, of a sum of weights.
    const bool codes = operand_rounding<Int8, Int8>(active_isa(), weights->config().head_dim).weight_codes;
    CHECK(std::abs(std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(ids.size()), 0.0) - 1.0) <
          static_cast<double>(ids.size() + 2) * 0x1p-24 + (codes ? code_weight_error : 0.0));
  }
  const std::size_t future = ids.size() - 4;  // the first of the five rows sees nothing after itself
  CHECK(std::all_of(five.begin() + static_cast<std::ptrdiff_t>(future),
                    five.begin() + static_cast<std::ptrdiff_t>(ids.size()), [](float p) { return p == 0.0f; }));
}

TEST_CASE("Column sums are those of all rows, over several tiles, and asking for them changes nothing else") {
  const Shared weights = quantised_model();
  const std::vector<TokenId> ids = prompt(tile + 3);
  std::vector<float> one(4 * ids.size()), three(one.size());
  const FirstLayer whole = run_first_layer(weights, ids, 2, ids.size());
  CHECK(run_first_layer(weights, ids, 1, 1, Rows(one.data(), 4, ids.size())).hidden == whole.hidden);
  const FirstLayer summed = run_first_layer(weights, ids, 3, 1, Rows(three.data(), 4, ids.size()));
  CHECK(summed.hidden == whole.hidden);
  CHECK(one == three);
  const std::vector<float>&probs = whole.probabilities, &last = summed.probabilities;
  CHECK(std::equal(last.begin(), last.end(), probs.end() - static_cast<std::ptrdiff_t>(last.size())));
  for (std::size_t i = 0; i < one.size(); ++i) {
    double sum = 0;
    for (std::size_t r = 0; r < ids.size(); ++r) sum += double{probs[r * one.size() + i]};
    // The reported probabilities are rounded once more, each added one rounds the sum.
    CHECK(std::abs(double{one[i]} - sum) <= static_cast<double>(ids.size() + 1) * 0x1p-24 * sum);
  }
}

TEST_CASE("Threads that take blocks through a layer give the bits of threads that share each tile") {
  const Shared weights = quantised_model();
  const std::vector<TokenId> ids = prompt(430);
  const FirstLayer tiles = run_first_layer(weights, ids, 3, 40);  // too few rows for blocks of three threads
  for (const std::size_t threads : {std::size_t{1}, std::size_t{2}}) {
    for (const std::size_t outputs : {std::size_t{200}, std::size_t{400}, ids.size()}) {
      CAPTURE(threads);
      CAPTURE(outputs);
      const FirstLayer blocks = run_first_layer(weights, ids, threads, 40, {}, outputs);
      CHECK(blocks.probabilities == tiles.probabilities);
      const auto skipped = static_cast<std::ptrdiff_t>((ids.size() - outputs) * 64);
      CHECK(std::equal(blocks.hidden.begin() + skipped, blocks.hidden.end(), tiles.hidden.begin() + skipped));
    }
  }
}

TEST_CASE("Value norms are the sums of magnitudes of what is stored, for each query head its KV head's") {
  const Shared weights = quantised_model();
  ThreadPool pool(2);
  Llama<AsStored, ThreadPool, KvCache<TokenMajor, Int8>> graph(weights, pool, 9);
  LazySession session(graph, KeepAll{}, options(9));
  session.prefill(prompt(9));
  const std::vector<TokenIndex> tokens{1, 4, 8};
  std::vector<float> norms(4 * tokens.size()), dim(16);
  graph.value_norms(1, tokens, Rows(norms.data(), 4, tokens.size()));
  std::vector<std::byte> stored(graph.token_bytes());  // rows of keys, then of values: a scale, and a code a number
  const std::size_t row_bytes = stored.size() / 4;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    graph.export_token(1, tokens[i], stored);
    for (std::size_t head = 0; head < 4; ++head) {
      std::vector<Int8> row(row_bytes);
      std::memcpy(row.data(), stored.data() + (2 + head / 2) * row_bytes, row_bytes);
      decode_row(row.data(), std::span(dim));
      double sum = 0;
      for (const float x : dim) sum += std::abs(double{x});
      CHECK(sum > 0);
      CHECK(std::abs(double{norms[head * tokens.size() + i]} - sum) <= 16 * 0x1p-24 * sum);  // a rounding an addition
    }
  }
}

TEST_CASE("Sessions that share weights do not disturb each other") {
  const Shared weights = quantised_model();
  const std::vector<TokenId> ids = prompt(50);
  ThreadPool pool(2);
  Llama alone(weights, pool, 54), first(weights, pool, 60), second(weights, pool, 60);
  const auto expected = run(alone, top_k("0:0.5"), ids);
  LazySession a(first, top_k("0:0.5"), options(60)), b(second, top_k("1:3"), options(60));
  b.prefill(prompt(20));
  CHECK(copy(a.prefill(ids)) == expected[0]);
  for (TokenId id = 1; id < 5; ++id) {
    b.decode(id);
    CHECK(copy(a.decode(id)) == expected[static_cast<std::size_t>(id)]);
  }
}

TEST_CASE("K and V take memory for the tokens computed at each layer") {
  const Shared weights = quantised_model();
  ThreadPool pool(1);
  Llama graph(weights, pool, 100);
  Llama<AsStored, ThreadPool, KvCache<Paged<16>>> paged(weights, pool, 100);
  LazySession session(graph, top_k("0:10,1:5"), options(100));
  LazySession in_pages(paged, top_k("0:10,1:5"), options(100));
  CHECK(paged.kv_reserved_bytes() == 0);
  session.prefill(prompt(40));
  in_pages.prefill(prompt(40));
  constexpr std::size_t token_bytes = 2 * 2 * row_bytes<Int8>(16);  // K and V of 2 heads of 16
  for (const std::size_t bytes : {graph.kv_bytes(), paged.kv_bytes()}) CHECK(bytes == (40 + 10 + 5) * token_bytes);
  // The values of a layer begin at a cache line.
  CHECK(graph.kv_reserved_bytes() == 3 * ((100 * token_bytes / 2 + 63) / 64 * 64 + 100 * token_bytes / 2));
  CHECK(paged.kv_reserved_bytes() == (3 + 1 + 1) * 16 * token_bytes);
  CHECK(session.aux_bytes() == 35 * 64 * sizeof(float));
}

TEST_CASE("Forked, saved and loaded sessions go on bit for bit, also in another layout; other bits are refused") {
  const Shared weights = quantised_model();
  ThreadPool pool(2);
  const std::vector<TokenId> ids = prompt(70);
  Llama graph(weights, pool, 100), fork_graph(weights, pool, 100);
  Llama<AsStored, ThreadPool, KvCache<HeadMajor>> other_layout(weights, pool, 100);
  Llama<AsStored, ThreadPool, KvCache<TokenMajor, float>> floats(weights, pool, 100);
  LazySession session(graph, top_k("0:0.4,1:12"), options(100));
  session.prefill(ids);
  LazySession fork = session.fork(fork_graph);
  LazySession loaded(other_layout, top_k("0:0.4,1:12"), options(100));
  loaded.load(session.save());
  CHECK(fork_graph.kv_bytes() == graph.kv_bytes());
  for (TokenId id = 1; id < 6; ++id) {
    const std::vector<float> expected = copy(session.decode(id));
    CHECK(copy(fork.decode(id)) == expected);
    CHECK(copy(loaded.decode(id)) == expected);
  }
  session.truncate(40);
  CHECK(graph.kv_bytes() < fork_graph.kv_bytes());
  fork.truncate(40);
  CHECK(copy(session.prefill(std::span(ids).first(9))) == copy(fork.prefill(std::span(ids).first(9))));

  LazySession wide(floats, top_k("none"), options(100));
  CHECK_THROWS_WITH_AS(wide.load(session.save()), doctest::Contains("K and V"), Error);
  CHECK(graph.fingerprint() == fork_graph.fingerprint());
  CHECK(graph.fingerprint() != Llama(quantised_model(1024), pool, 100).fingerprint());  // another context length
}

TEST_CASE("No step allocates, whatever it prunes, revives and evicts") {
  if (!counts_allocations) {
    MESSAGE("skipped: allocations are not counted under the thread sanitizer");
    return;
  }
  const Shared weights = quantised_model();
  SerialExecutor executor;  // the count sees this thread only
  using Texts = std::pair<const char*, const char*>;
  for (const auto& [schedule, eviction] :
       {Texts{"none", "none"}, Texts{"0:0.3,1:7", "tova:0.5"}, Texts{"2:1", "window:2,30"},
        Texts{"0:m0.8b4/max@1.3^48~7,1:7,first2", "none"}, Texts{"1:0.5", "snapkv:40"}, Texts{"0:0.5", "h2o:40"},
        Texts{"0:0.5/maxv^3~5", "vatp:40"}}) {
    Llama graph(weights, executor, 400);
    TopKPolicy<> policy(MeanOverHeads{}, parse_schedule(schedule),
                        StepSchedule());  // decode revives everything at once
    LazySession session(graph, WithEviction(policy, parse_eviction(eviction)), options(400));
    const std::vector<TokenId> ids = prompt(300);
    const AllocationCount count;
    session.prefill(ids);
    for (TokenId id = 0; id < 60; ++id) session.decode(id);
    CHECK(count.calls() == 0);
  }
}

TEST_CASE("A context beyond the model's is an error that names both") {
  const Shared weights = quantised_model(128);
  ThreadPool pool(1);
  CHECK_THROWS_WITH_AS((Llama(weights, pool, 129)), doctest::Contains("128"), Error);
  CHECK_THROWS_AS((Llama(weights, pool, 0)), Error);
  CHECK_NOTHROW((Llama(weights, pool, 128)));
}
