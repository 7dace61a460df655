#include <doctest/doctest.h>

#include <lazyllm/graph/session_graph.hpp>

using namespace lazyllm;

namespace {

struct Model {
  std::size_t layer_count() const { return 1; }
  std::size_t head_count() const { return 1; }
  std::size_t hidden_dim() const { return 1; }
  void run_layer(const LayerStep&) {}
};
/// The least that a graph adds.
struct Archetype : Model {
  void truncate(std::size_t) {}
  std::size_t token_bytes() const { return 1; }
  void export_token(LayerIndex, TokenIndex, std::span<std::byte>) const {}
  void import_token(LayerIndex, TokenIndex, std::span<const std::byte>) {}
  std::uint64_t fingerprint() const { return 1; }
};
struct ExportChanges : Archetype {
  void export_token(LayerIndex, TokenIndex, std::span<std::byte>) {}
};
struct NoModel {
  void truncate(std::size_t) {}
  std::size_t token_bytes() const { return 1; }
  void export_token(LayerIndex, TokenIndex, std::span<std::byte>) const {}
  void import_token(LayerIndex, TokenIndex, std::span<const std::byte>) {}
  std::uint64_t fingerprint() const { return 1; }
};
static_assert(SessionGraph<Archetype>);
static_assert(!SessionGraph<Model> && !SessionGraph<ExportChanges> && !SessionGraph<NoModel> && !SessionGraph<int>);

}  // namespace

TEST_CASE("A graph that gives K and V as bytes is still a graph") { CHECK(ModelGraph<Archetype>); }
