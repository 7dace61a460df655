// Counted multiply-adds against a count of every row and pair of a step, one by one.
#include <doctest/doctest.h>
#include <lazyllm/eval/prefill_work.hpp>

#include <cstddef>
#include <vector>

using namespace lazyllm;

namespace {

const LlamaConfig config{.layers = 4, .hidden_dim = 6, .heads = 4, .kv_heads = 2, .head_dim = 3, .ffn_dim = 10};

}  // namespace

TEST_CASE("a dense prefill's work is that of all products") {
  const std::size_t tokens = 5;
  double expected = 0;
  for (std::size_t layer = 0; layer < 4; ++layer) {
    for (std::size_t row = 0; row < tokens; ++row) {
      expected += 2 * 6 * (2 * 3);                    // k, v
      if (layer == 3 && row + 1 != tokens) continue;  // only the last row leaves the last layer
      expected += 6 * (4 * 3) + (4 * 3) * 6;          // q, output
      expected += 3 * 6 * 10;                         // gate, up, down
      const std::size_t keys = layer == 3 ? 0 : row + 1;
      expected += static_cast<double>(keys) * 2 * 4 * 3;
    }
  }
  expected += 3.0 * 2 * 4 * 3;  // the last layer's one row counts half of its keys, as rows do on average
  CHECK(PrefillWork(config).multiply_adds({}, tokens) == doctest::Approx(expected));
}

TEST_CASE("a layer that selects finishes only who goes on, and the next ones run only them") {
  const PrefillWork work(config);
  const double dense = work.multiply_adds({}, 100);
  const double pruned = work.multiply_adds(parse_schedule("1:0.2"), 100);
  // Layers 0 whole; 1 with K and V of 100 and the rest of 20; 2 of 20; 3 with K and V of 20.
  const double expected = 100 * work.key_value + 100 * (work.finish + work.pair * 50.5) + 100 * work.key_value +
                          20 * (work.finish + work.pair * 50.5) + 20 * work.key_value +
                          20 * (work.finish + work.pair * 10.5) + 20 * work.key_value + work.finish + work.pair * 10.5;
  CHECK(pruned == doctest::Approx(expected));
  CHECK(pruned < dense);
  CHECK(work.multiply_adds(parse_schedule("1:1.0"), 100) == dense);
  CHECK(work.multiply_adds(parse_schedule("1:0.2,first30"), 100) > pruned);  // protected tokens count
  CHECK(work.multiply_adds(parse_schedule("1:m0.5"), 100) == dense);         // not known before the scores
}
