// A model graph made of naive_llama.hpp, to test the engine without the library's model: float rows in and out, double
// inside. It throws when a step breaks the engine's promises: no token twice at a layer, none skips one, keys have K
// and V, everything ascending.
#pragma once

#include <lazyllm/core/checksum.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/graph/session_graph.hpp>

#include "support/naive_llama.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace lazyllm::test {

class NaiveGraph {
 public:
  explicit NaiveGraph(const NaiveLlama& model) : model_(model) {}

  [[nodiscard]] std::size_t layer_count() const { return model_.layers.size(); }
  [[nodiscard]] std::size_t head_count() const { return model_.heads; }
  [[nodiscard]] std::size_t hidden_dim() const { return model_.hidden_dim; }
  [[nodiscard]] std::size_t vocab_size() const { return model_.vocab_size; }

  void embed(std::span<const TokenId> ids, Rows hidden) const {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      write(naive_embedding(model_, static_cast<std::size_t>(ids[i])), hidden.row(i));
    }
  }

  void project(ConstRows hidden, Rows logits) const {
    for (std::size_t r = 0; r < hidden.rows(); ++r) write(naive_logits(model_, read(hidden.row(r))), logits.row(r));
  }

  void run_layer(const LayerStep& step, Rows column_sums = {}) {
    project_kv(step);
    score(step);
    for (std::size_t r = step.rows.size() - step.outputs; r < step.rows.size() && !column_sums.empty(); ++r) {
      const NaiveOutput output = layer_output(step, r);
      for (std::size_t head = 0; head < model_.heads; ++head) {
        for (std::size_t k = 0; k < output.probs[head].size(); ++k) {
          column_sums.row(head)[k] += static_cast<float>(output.probs[head][k]);
        }
      }
    }
    finish_rows(step, step.outputs);
  }

  void project_kv(const LayerStep& step) {
    check(step);
    for (std::size_t r = 0; r < step.rows.size(); ++r) {
      key_values_[{step.layer, step.rows[r]}] =
          naive_key_value(model_, step.layer, read(step.hidden.row(r)), step.rows[r]);
    }
  }

  void score(const LayerStep& step) {
    for (std::size_t q = 0; q < step.scores.query_rows(); ++q) {
      const NaiveOutput output = layer_output(step, step.rows.size() - step.scores.query_rows() + q);
      for (std::size_t head = 0; head < model_.heads; ++head) {
        const std::span<float> probs = step.scores.row(q, head);
        std::fill(probs.begin(), probs.end(), 0.0f);
        write(output.probs[head], probs.first(output.probs[head].size()));
      }
    }
  }

  void value_norms(LayerIndex layer, std::span<const TokenIndex> tokens, Rows norms) const {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const Vector of_heads = naive_value_norms(model_, key_values_.at({layer, tokens[i]}));
      for (std::size_t head = 0; head < model_.heads; ++head) norms.row(head)[i] = static_cast<float>(of_heads[head]);
    }
  }

  void evict(LayerIndex layer, std::span<const TokenIndex> tokens) {
    for (const TokenIndex token : tokens) {
      if (key_values_.erase({layer, token}) != 1) throw std::logic_error("evict: the token is not there");
      evicted_.insert({layer, token});
    }
  }

  void truncate(std::size_t tokens) {
    std::erase_if(evicted_, [tokens](const auto& place) { return place.second >= tokens; });
    std::erase_if(key_values_, [tokens](const auto& entry) { return entry.first.second >= tokens; });
    std::erase_if(finished_, [tokens](const auto& place) { return place.second >= tokens; });
  }
  /// K, V, and whether the token is through with the layer.
  [[nodiscard]] std::size_t token_bytes() const { return (2 * model_.kv_heads * model_.head_dim + 1) * sizeof(double); }
  [[nodiscard]] std::size_t kv_bytes() const { return key_values_.size() * token_bytes(); }
  void export_token(LayerIndex layer, TokenIndex token, std::span<std::byte> out) const {
    const NaiveKeyValue& stored = key_values_.at({layer, token});
    Vector all = stored.key;
    all.insert(all.end(), stored.value.begin(), stored.value.end());
    all.push_back(finished_.contains({layer, token}) ? 1 : 0);
    if (out.size() != all.size() * sizeof(double)) throw std::logic_error("export_token: sizes disagree");
    std::memcpy(out.data(), all.data(), out.size());
  }
  void import_token(LayerIndex layer, TokenIndex token, std::span<const std::byte> in) {
    Vector all(in.size() / sizeof(double));
    std::memcpy(all.data(), in.data(), in.size());
    const auto values = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
    const bool is_new = key_values_.insert({{layer, token}, {{all.begin(), values}, {values, all.end() - 1}}}).second;
    if (!is_new) throw std::logic_error("import_token: the token is there");
    if (all.back() != 0) finished_.insert({layer, token});
    imported_ = true;
  }
  [[nodiscard]] std::uint64_t fingerprint() const {
    return checksum(std::as_bytes(std::span(model_.embedding)), model_.layers.size());
  }

  void finish(const LayerStep& step) {
    if (step.outputs != step.rows.size() || !step.scores.empty()) throw std::logic_error("finish: sizes disagree");
    finish_rows(step, step.rows.size());
  }

 private:
  [[nodiscard]] NaiveOutput layer_output(const LayerStep& step, std::size_t r) const {
    std::vector<const NaiveKeyValue*> keys;
    for (const TokenIndex key : step.keys) {
      if (key <= step.rows[r]) keys.push_back(&key_values_.at({step.layer, key}));
    }
    return naive_layer(model_, step.layer, read(step.hidden.row(r)), step.rows[r], keys);
  }

  /// The last `outputs` rows of the step; each token's half of a layer is done once.
  void finish_rows(const LayerStep& step, std::size_t outputs) {
    for (std::size_t r = step.rows.size() - outputs; r < step.rows.size(); ++r) {
      if (!finished_.insert({step.layer, step.rows[r]}).second) throw std::logic_error("a token is finished twice");
      write(layer_output(step, r).hidden, step.hidden.row(r));
    }
  }

  /// A session that was loaded or forked does not tell the graph of evicted tokens.
  [[nodiscard]] bool is_finished(LayerIndex layer, TokenIndex token) const {
    return finished_.contains({layer, token}) || (imported_ && !key_values_.contains({layer, token}));
  }

  static Vector read(std::span<const float> row) { return {row.begin(), row.end()}; }
  static void write(const Vector& values, std::span<float> row) {
    std::transform(values.begin(), values.end(), row.begin(), [](double v) { return static_cast<float>(v); });
  }

  void check(const LayerStep& step) const {
    const auto require = [&](bool condition, const char* what) {
      if (!condition) throw std::logic_error("layer " + std::to_string(step.layer) + ": " + what);
    };
    const auto ascending = [](std::span<const TokenIndex> tokens) {
      return std::adjacent_find(tokens.begin(), tokens.end(), std::greater_equal<>()) == tokens.end();
    };
    require(ascending(step.rows) && ascending(step.keys), "rows or keys do not ascend");
    require(!step.rows.empty() && step.rows.back() == step.keys.back(), "the last token does not run");
    require(std::includes(step.keys.begin(), step.keys.end(), step.rows.begin(), step.rows.end()),
            "a row is not among the keys");
    require(step.hidden.rows() == step.rows.size() && step.outputs >= 1 && step.outputs <= step.rows.size(),
            "sizes disagree");
    for (const TokenIndex row : step.rows) {
      require(!key_values_.contains({step.layer, row}), "a token is computed twice");
      require(!evicted_.contains({step.layer, row}), "an evicted token is computed again");
      require(step.layer == 0 || is_finished(step.layer - 1, row), "a token skips a layer");
    }
    for (const TokenIndex key : step.keys) {
      require(key_values_.contains({step.layer, key}) || std::binary_search(step.rows.begin(), step.rows.end(), key),
              "a key has no K and V");
    }
  }

  const NaiveLlama& model_;
  std::map<std::pair<LayerIndex, TokenIndex>, NaiveKeyValue> key_values_;
  std::set<std::pair<LayerIndex, TokenIndex>> finished_;  // whose output exists
  std::set<std::pair<LayerIndex, TokenIndex>> evicted_;
  bool imported_ = false;
};
static_assert(LanguageGraph<NaiveGraph> && SplitGraph<NaiveGraph> && SessionGraph<NaiveGraph> &&
              EvictingGraph<NaiveGraph> && ColumnSumGraph<NaiveGraph> && ValueNormGraph<NaiveGraph>);

/// A graph whose layers do not come apart.
template <LanguageGraph Graph>
requires SessionGraph<Graph> && EvictingGraph<Graph>
class Unsplit {
 public:
  explicit Unsplit(Graph& graph) : graph_(graph) {}
  [[nodiscard]] std::size_t layer_count() const { return graph_.layer_count(); }
  [[nodiscard]] std::size_t head_count() const { return graph_.head_count(); }
  [[nodiscard]] std::size_t hidden_dim() const { return graph_.hidden_dim(); }
  [[nodiscard]] std::size_t vocab_size() const { return graph_.vocab_size(); }
  void embed(std::span<const TokenId> ids, Rows hidden) { graph_.embed(ids, hidden); }
  void project(ConstRows hidden, Rows logits) { graph_.project(hidden, logits); }
  void run_layer(const LayerStep& step, Rows column_sums = {}) requires ColumnSumGraph<Graph> {
    graph_.run_layer(step, column_sums);
  }
  void evict(LayerIndex layer, std::span<const TokenIndex> tokens) { graph_.evict(layer, tokens); }
  void value_norms(LayerIndex layer, std::span<const TokenIndex> tokens, Rows norms) requires ValueNormGraph<Graph> {
    graph_.value_norms(layer, tokens, norms);
  }
  void truncate(std::size_t tokens) { graph_.truncate(tokens); }
  [[nodiscard]] std::size_t token_bytes() const { return graph_.token_bytes(); }
  void export_token(LayerIndex layer, TokenIndex token, std::span<std::byte> out) const {
    graph_.export_token(layer, token, out);
  }
  void import_token(LayerIndex layer, TokenIndex token, std::span<const std::byte> in) {
    graph_.import_token(layer, token, in);
  }
  [[nodiscard]] std::uint64_t fingerprint() const { return graph_.fingerprint(); }

 private:
  Graph& graph_;
};
static_assert(LanguageGraph<Unsplit<NaiveGraph>> && !SplitGraph<Unsplit<NaiveGraph>>);

}  // namespace lazyllm::test
