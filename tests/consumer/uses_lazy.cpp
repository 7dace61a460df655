// A consumer of lazyllm::lazy: a toy graph, driven by the engine and pruned after its first layer.
#include <lazyllm/lazy.hpp>

#include <array>
#include <cstddef>
#include <iostream>
#include <numeric>

namespace {

/// Two layers that change nothing; the probability of a key grows with its position.
struct ToyGraph {
  static std::size_t layer_count() { return 2; }
  static std::size_t head_count() { return 1; }
  static std::size_t hidden_dim() { return 4; }
  static void run_layer(const lazyllm::LayerStep& step) {
    for (std::size_t row = 0; row < step.scores.query_rows(); ++row) {
      const auto probabilities = step.scores.row(row, 0);
      std::iota(probabilities.begin(), probabilities.end(), 1.0f);
    }
  }
};
static_assert(lazyllm::ModelGraph<ToyGraph>);

}  // namespace

int main() {
  ToyGraph graph;
  const lazyllm::TopKPolicy policy({}, lazyllm::parse_schedule("0:2"));
  lazyllm::LazySession session(graph, policy, {.context_size = 8});
  const std::array<float, 20> prompt{};
  session.step(lazyllm::ConstRows(prompt.data(), 5, 4), lazyllm::Phase::prefill);
  const auto& rows = session.last_step().rows_computed;
  std::cout << "lazyllm::lazy " << lazyllm::version << ": rows computed " << rows[0] << ", " << rows[1] << '\n';
  return rows[0] == 5 && rows[1] == 2 ? 0 : 1;
}
