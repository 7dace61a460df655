// The whole contract between the engine and a model: run one layer for some tokens, which may attend to some keys.
// A graph keeps its own K and V: const shared weights plus one sequence's state. It never decides which tokens run.
#pragma once

#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>

#include <concepts>
#include <cstddef>
#include <span>

namespace lazyllm::inline v0 {

/// One layer of one step. The graph computes K and V for all rows and stores them; they are new at this layer.
struct LayerStep {
  LayerIndex layer;
  std::span<const TokenIndex> rows;  ///< compute these tokens now, ascending
  std::span<const TokenIndex> keys;  ///< they may attend to these, ascending, causally; rows is a subset
  std::size_t outputs;  ///< only the last `outputs` rows' output is used: all of them, except at the last layer
  Rows hidden;          ///< [rows, hidden_dim] in: input of this layer, out: its output
  ScoreView scores;     ///< [query_rows, heads, keys] out: attention probabilities of the last rows; empty: not wanted
};

/// layer_count(), head_count() (query heads), hidden_dim(), and run_layer(step), called once per layer and step, in
/// order. scores.query_rows() <= outputs; a key beyond a query row's position gets probability 0.
template <class G>
concept ModelGraph = requires(G& g, const G& c, const LayerStep& step) {
  { c.layer_count() } -> std::convertible_to<std::size_t>;
  { c.head_count() } -> std::convertible_to<std::size_t>;
  { c.hidden_dim() } -> std::convertible_to<std::size_t>;
  g.run_layer(step);
};

/// A graph whose layers come apart at the scores, so that tokens which do not go on are spared the second half:
/// project_kv(step): K and V of the rows from `hidden`, stored; hidden stays as it is.
/// score(step): the probabilities of the last rows; K and V of all keys are there; hidden stays as it is.
/// finish(step): the rest of the layer for the rows, any of the keys; hidden in: the layer's input, out: its output.
/// The session calls run_layer, or project_kv, score if scores are wanted, then finish, once per layer and step.
template <class G>
concept SplitGraph = ModelGraph<G> && requires(G& g, const LayerStep& step) {
  g.project_kv(step);
  g.score(step);
  g.finish(step);
};

/// A graph of a language model: embed(ids, hidden [ids, hidden_dim]) gives the input of layer 0;
/// project(hidden [rows, hidden_dim], logits [rows, vocab_size]) turns outputs of the last layer into logits.
template <class G>
concept LanguageGraph = ModelGraph<G> &&
    requires(G& g, const G& c, std::span<const TokenId> ids, Rows out, ConstRows in) {
  { c.vocab_size() } -> std::convertible_to<std::size_t>;
  g.embed(ids, out);
  g.project(in, out);
};

/// A graph that counts its K and V: kv_bytes(), what is in use; token_bytes(), of one token at one layer. A session's
/// byte budget asks it.
template <class G>
concept CountedGraph = ModelGraph<G> && requires(const G& c) {
  { c.kv_bytes() } -> std::convertible_to<std::size_t>;
  { c.token_bytes() } -> std::convertible_to<std::size_t>;
};

/// A graph that can forget: evict(layer, tokens) drops K and V of the tokens, which ran there, from the layer. They are
/// no keys there afterwards and never run there again.
template <class G>
concept EvictingGraph = ModelGraph<G> && requires(G& g, LayerIndex layer, std::span<const TokenIndex> tokens) {
  g.evict(layer, tokens);
};

/// A graph that tells how large values are: value_norms(layer, tokens, norms) fills norms [heads, tokens] with the sum
/// of the magnitudes of the value row that each query head reads; the tokens have K and V there.
template <class G>
concept ValueNormGraph = ModelGraph<G> &&
    requires(G& g, LayerIndex layer, std::span<const TokenIndex> tokens, Rows norms) {
  g.value_norms(layer, tokens, norms);
};

/// A graph that adds up attention: run_layer(step, column_sums) does what run_layer(step) does, and adds to column_sums
/// [heads, keys] what each row whose output is used attends to each key.
template <class G>
concept ColumnSumGraph = ModelGraph<G> && requires(G& g, const LayerStep& step, Rows column_sums) {
  g.run_layer(step, column_sums);
};

}  // namespace lazyllm::inline v0
