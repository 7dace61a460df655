#include <doctest/doctest.h>

#include <lazyllm/graph/model_graph.hpp>

using namespace lazyllm;

namespace {

/// The least that a graph can be.
struct Archetype {
  std::size_t layer_count() const { return 1; }
  std::size_t head_count() const { return 1; }
  std::size_t hidden_dim() const { return 1; }
  void run_layer(const LayerStep&) {}
};
struct LanguageArchetype : Archetype {
  std::size_t vocab_size() const { return 1; }
  void embed(std::span<const TokenId>, Rows) {}
  void project(ConstRows, Rows) {}
};
struct NoRunLayer {
  std::size_t layer_count() const { return 1; }
  std::size_t head_count() const { return 1; }
  std::size_t hidden_dim() const { return 1; }
};
static_assert(ModelGraph<Archetype> && !LanguageGraph<Archetype>);
static_assert(ModelGraph<LanguageArchetype> && LanguageGraph<LanguageArchetype>);
static_assert(!ModelGraph<NoRunLayer> && !ModelGraph<int>);

}  // namespace

TEST_CASE("A step that wants no scores has an empty score view") {
  const LayerStep step{.layer = 0, .rows = {}, .keys = {}, .outputs = 0, .hidden = {}, .scores = {}};
  CHECK(step.scores.empty());
}
