// A language model made by hand that answers by looking up: it says what followed where its last tokens stood before.
// Only tokens that enter the last layer count, so what a policy drops is not found. hidden [id, prediction].
#pragma once

#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/model_graph.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace lazyllm::test {

class LookupGraph {
 public:
  explicit LookupGraph(std::size_t vocab_size) : vocab_size_(vocab_size) {}

  [[nodiscard]] static std::size_t layer_count() { return 3; }
  [[nodiscard]] static std::size_t head_count() { return 1; }
  [[nodiscard]] static std::size_t hidden_dim() { return 2; }
  [[nodiscard]] std::size_t vocab_size() const { return vocab_size_; }

  static void embed(std::span<const TokenId> ids, Rows hidden) {
    for (std::size_t r = 0; r < ids.size(); ++r) hidden.row(r)[0] = static_cast<float>(ids[r]);
  }
  void run_layer(const LayerStep& step, Rows column_sums = {}) {
    if (!column_sums.empty()) {  // each row attends to all keys alike
      std::ranges::fill(column_sums.row(0),
                        static_cast<float>(step.rows.size()) / static_cast<float>(step.keys.size()));
    }
    for (std::size_t q = 0; q < step.scores.query_rows(); ++q) {
      std::ranges::fill(step.scores.row(q, 0), 1.0f / static_cast<float>(step.keys.size()));
    }
    for (std::size_t r = 0; r < step.rows.size(); ++r) {
      if (step.layer == 0) remember(step.rows[r], static_cast<TokenId>(step.hidden.row(r)[0]));
      if (step.layer + 1 == layer_count()) step.hidden.row(r)[1] = static_cast<float>(look_up(step.keys, step.rows[r]));
    }
  }
  static void evict(LayerIndex, std::span<const TokenIndex>) {}  // who is evicted is among the keys no more
  void project(ConstRows hidden, Rows logits) const {
    for (std::size_t r = 0; r < hidden.rows(); ++r) {
      std::ranges::fill(logits.row(r), 0.0f);
      logits.row(r)[static_cast<std::size_t>(hidden.row(r)[1])] = 8;
    }
  }

 private:
  void remember(TokenIndex token, TokenId id) {
    ids_.resize(std::max<std::size_t>(ids_.size(), token + 1));
    ids_[token] = id;
  }
  /// The token after the longest earlier match of the tokens up to `row`; of equal ones the latest. Token 0 for none.
  [[nodiscard]] TokenId look_up(std::span<const TokenIndex> keys, TokenIndex row) const {
    std::size_t longest = 0;
    TokenId next = 0;
    for (std::size_t k = 0; k + 1 < keys.size() && keys[k + 1] <= row; ++k) {
      if (keys[k] + 1 != keys[k + 1]) continue;
      std::size_t length = 0;
      while (length <= k && length < row && keys[k - length] + length == keys[k] &&
             ids_[keys[k] - length] == ids_[row - length]) {
        ++length;
      }
      if (length != 0 && length >= longest) {
        longest = length;
        next = ids_[keys[k + 1]];
      }
    }
    return next;
  }

  std::size_t vocab_size_;
  std::vector<TokenId> ids_;  // by token
};
static_assert(LanguageGraph<LookupGraph>);

}  // namespace lazyllm::test
