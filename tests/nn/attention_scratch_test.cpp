#include <doctest/doctest.h>

#include <cstddef>
#include <lazyllm/nn/attention.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <numeric>
#include <span>
#include <vector>

#include "support/attention_oracle.hpp"

using namespace lazyllm;
using namespace lazyllm::test;

TEST_CASE("attention keeps its buffers once they are reserved") {
  const AttentionShape shape{6, 2, 32, 0.25f};
  const ArrayKv<> kv(2, 600, 32);
  std::vector<TokenIndex> keys(600);
  std::iota(keys.begin(), keys.end(), TokenIndex{0});
  std::vector<float> queries(600 * 192, 0.5f);
  std::vector<float> probabilities(6 * 600);
  SerialExecutor executor;
  AttentionScratch scratch;
  scratch.reserve(shape, 600, 600, 1, executor.concurrency());
  const float* const split_states = scratch.split_states();
  const std::size_t* const limits = scratch.limits();
  const float* const score_stats = scratch.score_stats();
  for (const std::size_t rows : {std::size_t{1}, std::size_t{8}, std::size_t{600}, std::size_t{3}}) {
    const Rows view(queries.data(), rows, 192);
    attention(shape, view, std::span(keys).last(rows), keys, kv, view, ScoreView(probabilities.data(), 1, 6, 600),
              scratch, executor);
    CHECK(scratch.split_states() == split_states);
    CHECK(scratch.limits() == limits);
    CHECK(scratch.score_stats() == score_stats);
  }
}

TEST_CASE("attention scratch serves layers of different shapes in turn") {
  AttentionScratch scratch;
  SerialExecutor executor;
  for (const std::size_t head_dim : {std::size_t{8}, std::size_t{128}, std::size_t{64}}) {
    const AttentionShape shape{2, 1, head_dim, 1.0f};
    ArrayKv<> kv(1, 3, head_dim);
    for (float& v : kv.values) v = 2.0f;
    const std::vector<TokenIndex> keys{0, 1, 2};
    std::vector<float> rows(3 * 2 * head_dim);
    const Rows view(rows.data(), 3, 2 * head_dim);
    attention(shape, view, keys, keys, kv, view, ScoreView{}, scratch, executor);
    for (const float x : rows) CHECK(x == doctest::Approx(2.0).epsilon(1e-6));
  }
}
