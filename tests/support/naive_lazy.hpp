// LazyLLM token by token: the method of arXiv 2407.14057 with this project's rules (docs/design.md), slow and obvious.
// Every vector has a name of its own in a map: K and V under (layer, token), the input of a layer under (layer, token).
// Shares no code with the library: the oracle for kept sets, revivals, depths and logits.
#pragma once

#include "support/naive_llama.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace lazyllm::test {

/// How many tokens an entry keeps: a share of the context in thousandths, a number of tokens, the paper's percentile,
/// or as many as cover a share of the attention, in thousandths; and never fewer than `least`.
struct NaiveKeep {
  enum class Kind { thousandths, tokens, percentile, mass } kind = Kind::tokens;
  std::size_t value = 0;
  std::size_t least = 0;
};

/// From probabilities to importance: over heads, then over the last rows, then over neighbours.
struct NaiveScore {
  bool max_heads = false;
  std::vector<std::size_t> heads = {};  // none: all
  std::size_t rows = 1;
  bool max_rows = false;
  std::size_t width = 1;
  bool mean_pool = false;
  bool by_value = false;  // probabilities count times the norms of the keys' values
};

/// One pruning point.
struct NaiveEntry {
  NaiveKeep keep;
  std::size_t block = 1;
  std::size_t first = 0, last = 0;                               // protected tokens
  std::vector<std::pair<std::size_t, std::size_t>> ranges = {};  // protected tokens [begin, end)
  NaiveScore score = {};
};
using NaiveSchedule = std::map<std::size_t, NaiveEntry>;  // by layer: its scores decide who enters layer + 1

/// Which keys of a layer stay after a step: those that an entry's score and keep choose among all that are stored
/// there, or, without scores, the protected ones. by_sums: the score is of what all rows so far attended to each key,
/// and half of the kept may be the most recent ones.
struct NaiveEviction {
  bool evicts = false, by_score = false, in_decode = true, by_sums = false, half_recent = false;
  NaiveEntry entry = {};
};

/// What is selected before layer 0, in every step: the first and the recent tokens, or as many as `keep` says of those
/// that splitmix64 (Steele, Lea and Flood, OOPSLA 2014) ranks highest; generated tokens rank above all of the prompt.
struct NaiveBefore {
  enum class Kind { nothing, window, random } kind = Kind::nothing;
  std::size_t first = 0, recent = 0;
  NaiveKeep keep = {};
  std::uint64_t seed = 0;
};

inline double naive_random_rank(std::uint64_t seed, std::size_t token, std::size_t prompt_size) {
  if (token >= prompt_size) return 1;
  std::uint64_t z = seed + (token + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return static_cast<double>((z ^ (z >> 31)) >> 40) / 0x1p24;
}

enum class NaiveDecode { scheduled, cached };  // cached: no token is revived

/// How the engine works: what a graph, and a session's options, make of it.
struct NaiveEngine {
  bool split = false;  // a layer's second half runs only for tokens that go on, or are revived for the next layer
  // Most revived for a layer in a decode step: in the first early_steps after a prompt, and in those after them.
  std::size_t early_revivals = std::numeric_limits<std::size_t>::max();
  std::size_t early_steps = std::numeric_limits<std::size_t>::max();
  std::size_t later_revivals = std::numeric_limits<std::size_t>::max();
  std::size_t dense_below = 0;  // of fewer tokens nothing is pruned and nothing evicted
  NaiveEviction eviction = {};
  NaiveBefore before = {};
};

/// What one step did; kept and rows have an entry for every layer.
struct NaiveStep {
  std::vector<std::size_t> entering;           // tokens that entered layer 0
  std::vector<std::vector<std::size_t>> rows;  // tokens whose K and V were computed at the layer
  std::vector<std::size_t> finished;           // by layer: tokens whose output was computed
  std::vector<std::vector<std::size_t>> kept;  // tokens that went on after the layer (to layer + 1, or nowhere)
  std::vector<std::set<std::size_t>> evicted;  // by layer: tokens whose K and V left it
  std::set<std::size_t> revived;               // older tokens that were computed at some layer
  std::vector<Vector> importance;              // the candidates' scores at the layer; empty without an entry
  std::vector<double> gap;  // how far the nearest score, or sum of scores, is from another decision; infinity: none is
  std::vector<Vector> eviction_importance;  // of the stored keys at the layer
  std::vector<double> eviction_gap;
  std::size_t ties = 0;  // cuts between scores that are exactly the same
  Vector logits;
};

inline std::size_t naive_keep_count(NaiveKeep keep, std::size_t candidates, std::size_t context) {
  std::size_t count = keep.value;
  if (keep.kind == NaiveKeep::Kind::thousandths) count = (keep.value * context + 999) / 1000;  // rounded up
  if (keep.kind == NaiveKeep::Kind::mass) count = candidates;
  if (keep.kind == NaiveKeep::Kind::percentile) count = candidates - keep.value * candidates / 100;  // drops the floor
  return std::min(std::max<std::size_t>({count, keep.least, 1}), candidates);
}

/// The mean or the maximum.
inline double naive_reduce(const Vector& values, bool maximum) {
  double sum = 0;
  for (const double value : values) sum += value;
  return maximum ? *std::max_element(values.begin(), values.end()) : sum / static_cast<double>(values.size());
}

/// probs [query rows][heads][keys that the row sees], the last row sees all; norms [keys][heads] of the keys' values.
inline Vector naive_importance(const NaiveScore& score, const std::vector<std::vector<Vector>>& probs,
                               const std::vector<Vector>& norms) {
  Vector importance;
  for (std::size_t key = 0; key < probs.back()[0].size(); ++key) {
    Vector rows;
    for (std::size_t r = probs.size() - std::min(score.rows, probs.size()); r < probs.size(); ++r) {
      Vector heads;
      for (std::size_t head = 0; head < probs[r].size(); ++head) {
        const bool chosen = std::find(score.heads.begin(), score.heads.end(), head) != score.heads.end();
        if (!chosen && !score.heads.empty()) continue;
        heads.push_back(key < probs[r][head].size() ? probs[r][head][key] : 0.0);
        if (score.by_value) heads.back() *= norms[key][head];
      }
      rows.push_back(naive_reduce(heads, score.max_heads));
    }
    importance.push_back(naive_reduce(rows, score.max_rows));
  }
  Vector pooled;
  for (std::size_t key = 0; key < importance.size(); ++key) {
    Vector neighbours;
    for (std::size_t other = 0; other < importance.size(); ++other) {
      if (std::max(other, key) - std::min(other, key) <= score.width / 2) neighbours.push_back(importance[other]);
    }
    pooled.push_back(naive_reduce(neighbours, !score.mean_pool));
  }
  return pooled;
}

struct NaiveSelection {
  std::vector<std::size_t> kept;  // ascending
  double gap = std::numeric_limits<double>::infinity();
  bool tie = false;
};

/// The entry's choice among candidates (token, score). The last one is always kept; of equal scores the lower index
/// stays; kept blocks are whole.
inline NaiveSelection naive_select(const NaiveEntry& entry,
                                   const std::vector<std::pair<std::size_t, double>>& candidates, std::size_t context) {
  struct Block {
    std::vector<std::size_t> tokens;
    double best = 0, mass = 0;
    bool stays = false;
  };
  std::map<std::size_t, Block> by_place;
  double total_mass = 0;
  for (const auto& [token, score] : candidates) {
    Block& block = by_place[token / entry.block];
    block.best = block.tokens.empty() ? score : std::max(block.best, score);
    block.mass += score;
    total_mass += score;
    block.tokens.push_back(token);
    block.stays |= token == candidates.back().first || token < entry.first || token + entry.last >= context;
    for (const auto& [begin, end] : entry.ranges) block.stays |= begin <= token && token < end;
  }
  std::vector<Block> order;
  for (const auto& [place, block] : by_place) order.push_back(block);
  std::stable_sort(order.begin(), order.end(), [](const Block& a, const Block& b) {
    return a.stays != b.stays ? a.stays : !a.stays && a.best > b.best;
  });

  NaiveSelection result;
  const std::size_t wanted = naive_keep_count(entry.keep, candidates.size(), context);
  const double wanted_mass = total_mass * static_cast<double>(entry.keep.value) / 1000;
  double mass = 0;
  std::vector<Block> chosen, dropped;
  for (const Block& block : order) {
    bool enough = result.kept.size() >= wanted;
    if (entry.keep.kind == NaiveKeep::Kind::mass && !block.stays) {
      enough = mass >= wanted_mass && result.kept.size() >= std::min(entry.keep.least, candidates.size());
      result.gap = std::min(result.gap, std::abs(mass - wanted_mass) / static_cast<double>(candidates.size()));
    }
    if (enough && !block.stays) {
      dropped.push_back(block);
      continue;
    }
    if (!block.stays) chosen.push_back(block);
    mass += block.mass;
    result.kept.insert(result.kept.end(), block.tokens.begin(), block.tokens.end());
  }
  // Scores that are the same in double precision are so by construction (zero queries, one number pooled into many).
  for (const Block& in : chosen) {
    for (const Block& out : dropped) {
      result.tie = result.tie || in.best == out.best;
      if (in.best != out.best) result.gap = std::min(result.gap, in.best - out.best);
    }
  }
  std::sort(result.kept.begin(), result.kept.end());
  return result;
}

class NaiveLazy {
 public:
  /// `forced`, if given, replaces every selection by that of another run (to compare scores under equal decisions).
  explicit NaiveLazy(const NaiveLlama& model, NaiveEngine engine = {}) : model_(model), engine_(engine) {}

  NaiveStep prefill(const std::vector<std::size_t>& ids, const NaiveSchedule& schedule,
                    const NaiveStep* forced = nullptr) {
    return step(ids, schedule, Phase::prefill, false, forced);
  }
  NaiveStep decode(std::size_t id, const NaiveSchedule& schedule, NaiveDecode mode, const NaiveStep* forced = nullptr) {
    return step({id}, schedule, Phase::decode, mode == NaiveDecode::cached, forced);
  }

  [[nodiscard]] bool has_key(std::size_t layer, std::size_t token) const {
    return key_values_.contains({layer, token});
  }
  /// Forgets the tokens from index `tokens` on.
  void truncate(std::size_t tokens) {
    context_ = tokens;
    prompt_size_ = std::min(prompt_size_, tokens);
    std::erase_if(key_values_, [tokens](const auto& entry) { return entry.first.second >= tokens; });
    std::erase_if(inputs_, [tokens](const auto& entry) { return entry.first.second >= tokens; });
    std::erase_if(evicted_, [tokens](const Place& place) { return place.second >= tokens; });
    std::erase_if(sums_, [tokens](const auto& entry) { return entry.first.second >= tokens; });
  }

  [[nodiscard]] std::size_t context() const { return context_; }
  /// Layers that the token has run. They have no gaps, so this counts them.
  [[nodiscard]] std::size_t depth(std::size_t token) const {
    std::size_t count = 0;
    while (count < model_.layers.size() && has_run(count, token)) ++count;
    return count;
  }

 private:
  enum class Phase { prefill, decode };
  using Place = std::pair<std::size_t, std::size_t>;  // layer, token

  NaiveStep step(const std::vector<std::size_t>& ids, const NaiveSchedule& schedule, Phase phase, bool cached,
                 const NaiveStep* forced) {
    NaiveStep result;
    const std::size_t first_new = context_;
    for (const std::size_t id : ids) inputs_[{0, context_++}] = naive_embedding(model_, id);
    const std::size_t last = context_ - 1;
    const std::size_t layers = model_.layers.size();

    std::vector<std::size_t> entering;  // every step starts again from the full context
    for (std::size_t token = 0; token < context_; ++token) entering.push_back(token);
    if (phase == Phase::prefill) prompt_size_ = context_;
    entering = before_first_layer(entering, first_new, phase, cached);
    result.entering = entering;

    for (std::size_t layer = 0; layer < layers; ++layer) {
      // Who has no K and V here is computed now; K and V of an earlier step are reused as they are.
      std::vector<std::size_t> rows;
      for (const std::size_t token : entering) {
        if (has_run(layer, token)) continue;
        rows.push_back(token);
        if (token < first_new) result.revived.insert(token);
        key_values_[{layer, token}] = naive_key_value(model_, layer, inputs_.at({layer, token}), token);
      }
      // An evicted token is no key; as a candidate it has probability 0.
      const auto output = [&](std::size_t token) {
        std::vector<const NaiveKeyValue*> keys;
        for (const std::size_t key : entering) {
          if (key <= token && !evicted_.contains({layer, key})) keys.push_back(&key_values_.at({layer, key}));
        }
        NaiveOutput made = naive_layer(model_, layer, inputs_.at({layer, token}), token, keys);
        for (Vector& head : made.probs) {
          for (std::size_t i = 0; i < entering.size() && entering[i] <= token; ++i) {
            if (evicted_.contains({layer, entering[i]}))
              head.insert(head.begin() + static_cast<std::ptrdiff_t>(i), 0.0);
          }
        }
        return made;
      };
      std::vector<std::vector<Vector>>
          probs;  // of the new tokens that run here, at consecutive positions up to the last
      for (const std::size_t token : rows) {
        if (token < first_new) continue;  // revived rows are never queries
        if (std::find(rows.begin(), rows.end(), token - 1) == rows.end()) probs.clear();
        probs.push_back(output(token).probs);
      }
      for (std::size_t r = 0; r < rows.size() && engine_.eviction.by_sums; ++r) {
        const std::vector<Vector> row = output(rows[r]).probs;
        for (std::size_t head = 0; head < row.size(); ++head) {
          for (std::size_t i = 0; i < row[head].size(); ++i) sums_[{layer, entering[i]}][head] += row[head][i];
        }
      }

      const std::set<std::size_t> leaving =
          evictions(layer, phase, entering, probs, result);  // decided now, carried out when the layer is done
      const auto entry = context_ < engine_.dense_below ? schedule.end() : schedule.find(layer);
      const std::vector<std::size_t> candidates = candidates_of(entering, rows, layer + 1, cached, probs);
      std::vector<std::size_t> kept = candidates;
      Vector importance;
      result.gap.push_back(infinity);
      if (entry != schedule.end()) {
        importance = naive_importance(entry->second.score, probs, value_norms(layer, candidates));
        std::vector<std::pair<std::size_t, double>> scored;
        for (std::size_t i = 0; i < candidates.size(); ++i) scored.push_back({candidates[i], importance[i]});
        const NaiveSelection selection = naive_select(entry->second, scored, context_);
        result.gap.back() = selection.gap;
        result.ties += selection.tie ? 1 : 0;
        kept = selection.kept;
      }
      if (phase == Phase::decode && layer + 1 < layers) {
        limit_revivals(kept, rows, layer + 1, candidates, importance, result.gap.back());
      }
      if (forced != nullptr) kept = forced->kept[layer];

      // The layer's second half. Who was spared it in an earlier step, and goes on now, makes up for it.
      result.finished.push_back(0);
      if (layer + 1 == layers) {  // query rows' outputs come with their scores
        std::size_t query_rows = engine_.split && !engine_.eviction.evicts ? 0 : 1;
        if (entry != schedule.end()) query_rows *= entry->second.score.rows;
        query_rows = std::min(std::max(query_rows, eviction_rows(phase)), probs.size());
        if (engine_.eviction.by_sums) query_rows = rows.size();
        result.finished.back() = std::max<std::size_t>(1, query_rows) - 1;
      }
      const bool whole = entry == schedule.end() || !engine_.split || engine_.eviction.evicts;
      for (const std::size_t token : entering) {
        const bool goes_on = std::find(kept.begin(), kept.end(), token) != kept.end();
        const bool runs = std::find(rows.begin(), rows.end(), token) != rows.end();
        const bool waits = !inputs_.contains({layer + 1, token}) && layer + 1 < layers;
        if (layer + 1 == layers ? token != last : !((whole && runs) || (goes_on && waits))) continue;
        inputs_[{layer + 1, token}] = output(token).hidden;
        ++result.finished.back();
        if (token < first_new) result.revived.insert(token);
      }
      result.evicted.push_back({});
      for (const std::size_t token : forced != nullptr ? forced->evicted[layer] : leaving) {
        if (layer + 1 < layers && !inputs_.contains({layer + 1, token})) continue;  // it has yet to finish the layer
        key_values_.erase({layer, token});
        evicted_.insert({layer, token});
        result.evicted.back().insert(token);
      }
      result.rows.push_back(rows);
      result.importance.push_back(importance);
      result.kept.push_back(kept);
      entering = kept;
    }
    result.logits = naive_logits(model_, inputs_.at({layers, last}));
    return result;
  }

  [[nodiscard]] bool has_run(std::size_t layer, std::size_t token) const {
    return key_values_.contains({layer, token}) || evicted_.contains({layer, token});
  }

  /// [tokens][heads], zeros for tokens that were evicted.
  std::vector<Vector> value_norms(std::size_t layer, const std::vector<std::size_t>& tokens) const {
    std::vector<Vector> norms;
    for (const std::size_t token : tokens) {
      const auto stored = key_values_.find({layer, token});
      norms.push_back(stored == key_values_.end() ? Vector(model_.heads, 0.0)
                                                  : naive_value_norms(model_, stored->second));
    }
    return norms;
  }

  /// How many last rows the eviction reads in this phase.
  [[nodiscard]] std::size_t eviction_rows(Phase phase) const {
    const NaiveEviction& eviction = engine_.eviction;
    const bool asked =
        eviction.evicts && context_ >= engine_.dense_below && (phase == Phase::prefill || eviction.in_decode);
    return asked && eviction.by_score ? eviction.entry.score.rows : 0;
  }

  /// Whom the eviction does not keep of all tokens with K and V at the layer; probs are over the entering ones.
  std::set<std::size_t> evictions(std::size_t layer, Phase phase, const std::vector<std::size_t>& entering,
                                  const std::vector<std::vector<Vector>>& probs, NaiveStep& result) const {
    const NaiveEviction& eviction = engine_.eviction;
    result.eviction_gap.push_back(infinity);
    result.eviction_importance.push_back({});
    if (!eviction.evicts || context_ < engine_.dense_below || (phase == Phase::decode && !eviction.in_decode))
      return {};
    std::vector<std::size_t> stored;
    for (std::size_t token = 0; token < context_; ++token) {
      if (key_values_.contains({layer, token})) stored.push_back(token);
    }
    std::vector<std::vector<Vector>> stored_probs = probs;
    for (std::size_t r = 0; r < probs.size(); ++r) {
      for (std::size_t head = 0; head < probs[r].size(); ++head) {
        stored_probs[r][head].assign(stored.size(), 0.0);
        for (std::size_t i = 0; i < probs[r][head].size(); ++i) {
          const auto place = std::find(stored.begin(), stored.end(), entering[i]) - stored.begin();
          if (key_values_.contains({layer, entering[i]})) {
            stored_probs[r][head][static_cast<std::size_t>(place)] = probs[r][head][i];
          }
        }
      }
    }
    NaiveEntry entry = eviction.entry;
    if (eviction.by_sums) {
      stored_probs = {std::vector<Vector>(model_.heads)};
      for (const std::size_t token : stored) {
        for (std::size_t head = 0; head < model_.heads; ++head) {
          stored_probs[0][head].push_back(sums_.at({layer, token}).at(head));
        }
      }
      if (eviction.half_recent) entry.last = naive_keep_count(entry.keep, stored.size(), context_) / 2;
    }
    Vector importance(stored.size(), 0.0);
    if (eviction.by_score)
      importance = naive_importance(eviction.entry.score, stored_probs, value_norms(layer, stored));
    std::vector<std::pair<std::size_t, double>> scored;
    for (std::size_t i = 0; i < stored.size(); ++i) scored.push_back({stored[i], importance[i]});
    const NaiveSelection selection = naive_select(entry, scored, context_);
    result.eviction_gap.back() = selection.gap;
    result.eviction_importance.back() = importance;
    result.ties += selection.tie && eviction.by_score ? 1 : 0;
    std::set<std::size_t> leaving(stored.begin(), stored.end());
    for (const std::size_t token : selection.kept) leaving.erase(token);
    return leaving;
  }

  /// Who of all tokens enters layer 0.
  std::vector<std::size_t> before_first_layer(const std::vector<std::size_t>& all, std::size_t first_new, Phase phase,
                                              bool cached) const {
    const NaiveBefore& before = engine_.before;
    std::vector<std::size_t> in_flight;
    for (const std::size_t token : all) {
      if (token >= first_new) in_flight.push_back(token);
    }
    std::vector<std::vector<Vector>> no_probs;
    const std::vector<std::size_t> candidates = candidates_of(all, in_flight, 0, cached, no_probs);
    std::vector<std::size_t> kept = candidates;
    Vector ranks;
    if (before.kind == NaiveBefore::Kind::window && context_ >= engine_.dense_below) {
      std::erase_if(kept, [&](std::size_t token) {
        return token >= before.first && token + before.recent < context_ && token + 1 != context_;
      });
    } else if (before.kind == NaiveBefore::Kind::random && context_ >= engine_.dense_below) {
      std::vector<std::pair<std::size_t, double>> ranked;
      for (const std::size_t token : candidates) {
        ranks.push_back(naive_random_rank(before.seed, token, prompt_size_));
        ranked.push_back({token, ranks.back()});
      }
      kept = naive_select(NaiveEntry{.keep = before.keep}, ranked, context_).kept;
    }
    double no_gap = infinity;  // ranks are exact
    if (phase == Phase::decode) limit_revivals(kept, in_flight, 0, candidates, ranks, no_gap);
    return kept;
  }

  /// Candidates for layer `next`: all, or without revival those in flight or with K and V there. Leaves in `probs`
  /// theirs alone.
  std::vector<std::size_t> candidates_of(const std::vector<std::size_t>& entering, const std::vector<std::size_t>& rows,
                                         std::size_t next, bool cached, std::vector<std::vector<Vector>>& probs) const {
    std::vector<std::size_t> candidates;
    for (std::size_t i = entering.size(); i-- > 0;) {
      const std::size_t token = entering[i];
      const bool runs = std::find(rows.begin(), rows.end(), token) != rows.end();
      if (!cached || next == model_.layers.size() || runs || has_run(next, token)) {
        candidates.insert(candidates.begin(), token);
        continue;
      }
      for (std::vector<Vector>& row : probs) {
        for (Vector& head : row) {
          if (i < head.size()) head.erase(head.begin() + static_cast<std::ptrdiff_t>(i));
        }
      }
    }
    return candidates;
  }

  /// Of the kept tokens that do not run here and lack K and V at layer `next`, the best stay; unranked ones by index.
  void limit_revivals(std::vector<std::size_t>& kept, const std::vector<std::size_t>& rows, std::size_t next,
                      const std::vector<std::size_t>& candidates, const Vector& importance, double& gap) const {
    const auto rank = [&](std::size_t token) {
      const auto place = std::find(candidates.begin(), candidates.end(), token) - candidates.begin();
      return importance.empty() ? 0.0 : importance[static_cast<std::size_t>(place)];
    };
    std::vector<std::size_t> revived;
    for (const std::size_t token : kept) {
      const bool runs = std::find(rows.begin(), rows.end(), token) != rows.end();
      if (!runs && !has_run(next, token)) revived.push_back(token);
    }
    std::stable_sort(revived.begin(), revived.end(), [&](std::size_t a, std::size_t b) { return rank(a) > rank(b); });
    const std::size_t step = context_ - prompt_size_;
    const std::size_t most = step <= engine_.early_steps ? engine_.early_revivals : engine_.later_revivals;
    for (std::size_t i = most; i < revived.size(); ++i) {
      kept.erase(std::find(kept.begin(), kept.end(), revived[i]));
      for (std::size_t j = 0; j < most; ++j) {
        if (rank(revived[j]) != rank(revived[i])) gap = std::min(gap, rank(revived[j]) - rank(revived[i]));
      }
    }
  }

  static constexpr double infinity = std::numeric_limits<double>::infinity();

  const NaiveLlama& model_;
  NaiveEngine engine_;
  std::size_t context_ = 0;
  std::size_t prompt_size_ = 0;  // tokens up to the end of the last prefill
  std::map<Place, NaiveKeyValue> key_values_;
  std::set<Place> evicted_;
  std::map<Place, std::map<std::size_t, double>> sums_;  // by head: what all rows attended to the key
  std::map<Place, Vector> inputs_;                       // inputs of layers; of layer L: the outputs of the last one
};

}  // namespace lazyllm::test
