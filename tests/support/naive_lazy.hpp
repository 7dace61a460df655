// LazyLLM token by token: the method of arXiv 2407.14057 with this project's rules (docs/design.md), slow and obvious.
// Every vector has a name of its own in a map: K and V under (layer, token), the input of a layer under (layer, token).
// Shares no code with the library: the oracle for kept sets, revivals, depths and logits.
#pragma once

#include "support/naive_llama.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace lazyllm::test {

/// How many tokens an entry keeps: a share of the context in thousandths, a number of tokens, or the paper's
/// percentile.
struct NaiveKeep {
  enum class Kind { thousandths, tokens, percentile } kind = Kind::tokens;
  std::size_t value = 0;
};
using NaiveSchedule = std::map<std::size_t, NaiveKeep>;  // by layer: its scores decide who enters layer + 1

enum class NaiveDecode { scheduled, cached };  // cached: no token is revived

/// What one step did; kept and rows have an entry for every layer.
struct NaiveStep {
  std::vector<std::vector<std::size_t>> rows;  // tokens whose K and V were computed at the layer
  std::vector<std::vector<std::size_t>> kept;  // tokens that went on after the layer (to layer + 1, or nowhere)
  std::set<std::size_t> revived;               // older tokens that were computed at some layer
  std::vector<Vector> importance;              // the candidates' scores at the layer; empty without an entry
  std::vector<double> gap;                     // least score kept minus greatest score dropped; infinity: no cut
  Vector logits;
};

inline std::size_t naive_keep_count(NaiveKeep keep, std::size_t candidates, std::size_t context) {
  std::size_t count = keep.value;
  if (keep.kind == NaiveKeep::Kind::thousandths) count = (keep.value * context + 999) / 1000;        // rounded up
  if (keep.kind == NaiveKeep::Kind::percentile) count = candidates - keep.value * candidates / 100;  // drops the floor
  return std::min(std::max<std::size_t>(count, 1), candidates);
}

class NaiveLazy {
 public:
  /// `forced`, if given, replaces every selection by that of another run (to compare scores under equal decisions).
  explicit NaiveLazy(const NaiveLlama& model) : model_(model) {}

  NaiveStep prefill(const std::vector<std::size_t>& ids, const NaiveSchedule& schedule,
                    const NaiveStep* forced = nullptr) {
    return step(ids, schedule, false, forced);
  }
  NaiveStep decode(std::size_t id, const NaiveSchedule& schedule, NaiveDecode mode, const NaiveStep* forced = nullptr) {
    return step({id}, schedule, mode == NaiveDecode::cached, forced);
  }

  [[nodiscard]] std::size_t context() const { return context_; }
  /// Layers at which the token has K and V. They have no gaps, so this counts them.
  [[nodiscard]] std::size_t depth(std::size_t token) const {
    std::size_t count = 0;
    while (count < model_.layers.size() && key_values_.contains({count, token})) ++count;
    return count;
  }

 private:
  using Place = std::pair<std::size_t, std::size_t>;  // layer, token

  NaiveStep step(const std::vector<std::size_t>& ids, const NaiveSchedule& schedule, bool cached,
                 const NaiveStep* forced) {
    NaiveStep result;
    const std::size_t first_new = context_;
    for (const std::size_t id : ids) inputs_[{0, context_++}] = naive_embedding(model_, id);
    const std::size_t last = context_ - 1;

    std::vector<std::size_t> entering;  // every step starts again from the full context
    for (std::size_t token = 0; token < context_; ++token) entering.push_back(token);

    for (std::size_t layer = 0; layer < model_.layers.size(); ++layer) {
      // Who has no K and V here is computed now; K and V of an earlier step are reused as they are.
      std::vector<std::size_t> rows;
      for (const std::size_t token : entering) {
        if (key_values_.contains({layer, token})) continue;
        rows.push_back(token);
        if (token < first_new) result.revived.insert(token);
        key_values_[{layer, token}] = naive_key_value(model_, layer, inputs_.at({layer, token}), token);
      }
      Vector importance;
      for (const std::size_t token : rows) {
        std::vector<const NaiveKeyValue*> keys;
        for (const std::size_t key : entering) {
          if (key <= token) keys.push_back(&key_values_.at({layer, key}));
        }
        const NaiveOutput output = naive_layer(model_, layer, inputs_.at({layer, token}), token, keys);
        inputs_[{layer + 1, token}] = output.hidden;
        if (token != last) continue;
        for (std::size_t key = 0; key < entering.size(); ++key) {
          double sum = 0;
          for (const Vector& head : output.probs) sum += head[key];
          importance.push_back(sum / static_cast<double>(model_.heads));
        }
      }

      // Candidates for the next layer, with their scores.
      std::vector<std::pair<std::size_t, double>> candidates;
      const bool next_layer = layer + 1 < model_.layers.size();
      for (std::size_t i = 0; i < entering.size(); ++i) {
        const bool runs = std::find(rows.begin(), rows.end(), entering[i]) != rows.end();
        if (cached && next_layer && !runs && !key_values_.contains({layer + 1, entering[i]})) continue;
        candidates.push_back({entering[i], importance[i]});
      }
      result.rows.push_back(rows);
      result.gap.push_back(infinity);
      result.importance.emplace_back();
      entering.clear();
      if (const auto entry = schedule.find(layer); entry != schedule.end()) {
        for (const auto& candidate : candidates) result.importance.back().push_back(candidate.second);
        if (forced != nullptr) {
          entering = forced->kept[layer];
        } else {
          entering =
              select(candidates, naive_keep_count(entry->second, candidates.size(), context_), result.gap.back());
        }
      } else {
        for (const auto& candidate : candidates) entering.push_back(candidate.first);
      }
      result.kept.push_back(entering);
    }
    result.logits = naive_logits(model_, inputs_.at({model_.layers.size(), last}));
    return result;
  }

  /// The `count` best candidates, ascending; the last one is always among them; of equal scores the lower index stays.
  static std::vector<std::size_t> select(std::vector<std::pair<std::size_t, double>> candidates, std::size_t count,
                                         double& gap) {
    const std::size_t last = candidates.back().first;
    candidates.pop_back();
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    std::vector<std::size_t> kept{last};
    for (std::size_t i = 0; i + 1 < count; ++i) kept.push_back(candidates[i].first);
    if (count >= 2 && count - 1 < candidates.size()) gap = candidates[count - 2].second - candidates[count - 1].second;
    std::sort(kept.begin(), kept.end());
    return kept;
  }

  static constexpr double infinity = std::numeric_limits<double>::infinity();

  const NaiveLlama& model_;
  std::size_t context_ = 0;
  std::map<Place, NaiveKeyValue> key_values_;
  std::map<Place, Vector> inputs_;  // inputs of layers; of layer L: the outputs of the last one
};

}  // namespace lazyllm::test
