#include <lazyllm/graph/filter_prompt.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

using namespace lazyllm;

namespace {

/// Scores grow with the distance from token 3; remembers the last layer that ran.
struct DistanceGraph {
  std::size_t layers_run = 0;
  static std::size_t layer_count() { return 5; }
  static std::size_t head_count() { return 1; }
  static std::size_t hidden_dim() { return 1; }
  static std::size_t vocab_size() { return 100; }
  static void embed(std::span<const TokenId>, Rows) {}
  static void project(ConstRows, Rows) {}
  void run_layer(const LayerStep& step) {
    layers_run = step.layer + 1;
    if (step.scores.empty()) return;
    for (std::size_t i = 0; i < step.keys.size(); ++i) {
      const TokenIndex token = step.keys[i];
      step.scores.row(0, 0)[i] = static_cast<float>(token < 3 ? 3 - token : token - 3);
    }
  }
};

}  // namespace

TEST_CASE("filter_prompt gives the ids that a middle layer picks and runs nothing after it") {
  const std::vector<TokenId> ids{10, 11, 12, 13, 14, 15, 16};
  DistanceGraph graph;
  CHECK(filter_prompt(graph, ids, {2, KeepRule::count(4)}) == std::vector<TokenId>{10, 11, 15, 16});
  CHECK(graph.layers_run == 3);
}

TEST_CASE("filter_prompt may ask the last layer, and refuses layers that the model does not have") {
  const std::vector<TokenId> ids{10, 11, 12};
  DistanceGraph graph, other;
  CHECK(filter_prompt(graph, ids, {4, KeepRule::count(2)}) == std::vector<TokenId>{10, 12});
  CHECK_THROWS_AS((void)filter_prompt(other, ids, {5, KeepRule::count(2)}), Error);
  CHECK_THROWS_AS((void)filter_prompt(other, {}, {4, KeepRule::count(2)}), Error);
}
