// A pruning policy of one's own: two functions. This one needs no scores: it keeps the most recent tokens and every
// n-th of the older ones. LazySession runs it like any other; what it drops waits in the Aux Cache. And an eviction
// policy of one's own: what it drops leaves the layer's keys for good.
#include <lazyllm/lazy.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <span>
#include <vector>

namespace {

// The policy.
struct WindowAndStride {
  lazyllm::LayerIndex layer;  // prunes after this layer
  std::size_t window;         // the most recent tokens that stay
  std::size_t stride;         // of the older ones every stride-th stays

  [[nodiscard]] static std::size_t query_rows(lazyllm::LayerIndex, lazyllm::Phase) { return 0; }
  void select(const lazyllm::PruneContext& context, std::span<bool> keep) const {
    if (context.layer != layer) return;
    for (std::size_t i = 0; i < keep.size(); ++i) {
      keep[i] = context.tokens[i] + window >= context.context_size || context.tokens[i] % stride == 0;
    }
  }
};
static_assert(lazyllm::PruningPolicy<WindowAndStride>);

// The eviction policy: the keys of a layer whose highest probability among the heads is small leave it.
struct EvictWeak {
  float least;  // probability that keeps a key

  [[nodiscard]] static std::optional<std::size_t> eviction_rows(lazyllm::LayerIndex, lazyllm::Phase) { return 1; }
  void evict(const lazyllm::PruneContext& context, std::span<bool> keep) const {
    std::ranges::fill(keep, false);
    for (std::size_t head = 0; head < context.probs.heads(); ++head) {
      const std::span<const float> probabilities = context.probs.row(0, head);
      for (std::size_t i = 0; i < keep.size(); ++i) keep[i] = keep[i] || probabilities[i] >= least;
    }
  }
};
static_assert(lazyllm::EvictionPolicy<EvictWeak>);

/// The smallest graph that shows it: a layer gives each row the mean of what it may attend to.
class MeanGraph {
 public:
  MeanGraph(std::size_t layers, std::size_t context_size)
      : layers_(layers), values_(layers, std::vector<float>(context_size)) {}
  [[nodiscard]] std::size_t layer_count() const { return layers_; }
  [[nodiscard]] static std::size_t head_count() { return 1; }
  [[nodiscard]] static std::size_t hidden_dim() { return 1; }
  void run_layer(const lazyllm::LayerStep& step) {
    std::vector<float>& values = values_[step.layer];
    for (std::size_t r = 0; r < step.rows.size(); ++r) values[step.rows[r]] = step.hidden.row(r)[0];
    for (std::size_t r = 0; r < step.rows.size(); ++r) {
      float sum = 0;
      std::size_t count = 0;
      for (; count < step.keys.size() && step.keys[count] <= step.rows[r]; ++count) sum += values[step.keys[count]];
      step.hidden.row(r)[0] = sum / static_cast<float>(count);
    }
    for (std::size_t q = 0; q < step.scores.query_rows(); ++q) {
      std::ranges::fill(step.scores.row(q, 0), 1.0f / static_cast<float>(step.keys.size()));
    }
  }
  void evict(lazyllm::LayerIndex, std::span<const lazyllm::TokenIndex>) {}  // they are among the keys no more

 private:
  std::size_t layers_;
  std::vector<std::vector<float>> values_;  // [layers][context]
};

}  // namespace

int main() {
  using lazyllm::TokenIndex;
  constexpr std::size_t tokens = 20;
  MeanGraph graph(3, tokens + 1);
  std::vector<std::vector<TokenIndex>> kept;
  const auto remember = [&](const lazyllm::Selection& s) { kept.emplace_back(s.kept.begin(), s.kept.end()); };
  lazyllm::LazySession session(graph, WindowAndStride{.layer = 1, .window = 4, .stride = 8},
                               {.context_size = tokens + 1, .on_select = remember});
  std::vector<float> inputs(tokens + 1, 1.0f);
  static_cast<void>(session.step({inputs.data(), tokens, 1}, lazyllm::Phase::prefill));
  static_cast<void>(session.step({inputs.data() + tokens, 1, 1}, lazyllm::Phase::decode));

  for (const auto& selection : kept) {
    for (const TokenIndex token : selection) std::printf("%u ", token);
    std::printf("go on after layer 1\n");
  }
  const std::vector<std::vector<TokenIndex>> expected = {{0, 8, 16, 17, 18, 19}, {0, 8, 16, 17, 18, 19, 20}};

  // The same under the eviction policy: after layer 2, which 6 tokens entered, each has a sixth of the attention.
  MeanGraph other(3, tokens + 1);
  lazyllm::LazySession evicting(
      other, lazyllm::WithEviction(WindowAndStride{.layer = 1, .window = 4, .stride = 8}, EvictWeak{.least = 0.1f}),
      {.context_size = tokens + 1});
  static_cast<void>(evicting.step({inputs.data(), tokens, 1}, lazyllm::Phase::prefill));
  const bool weak_are_gone = !evicting.has_key(0, 0) && evicting.has_key(2, 0) && evicting.has_key(2, 19);
  std::printf("a twentieth of the attention %s a key, a sixth does\n", weak_are_gone ? "does not keep" : "KEEPS");
  return kept == expected && weak_are_gone ? 0 : 1;
}
