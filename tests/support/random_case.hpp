// Random LazyLLM runs for tests: a model, schedules, prompts and generated tokens, with what the naive reference says
// must happen, and how far float arithmetic may stray from it.
#pragma once

#include <lazyllm/graph/revival_budget.hpp>

#include "support/naive_lazy.hpp"
#include "support/naive_llama.hpp"
#include "support/random_model.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace lazyllm::test {

struct Turn {
  bool decode = false;
  std::vector<std::size_t> ids;
  std::size_t cut_to = std::numeric_limits<std::size_t>::max();  // tokens of the session that stay before the turn
};

struct RandomCase {
  NaiveLlama model;
  NaiveSchedule prefill, decode;
  std::string prefill_text, decode_text;  // the same in the library's notation
  std::string eviction_text = "none";
  std::string before_text;  // the keep before layer 0, where it is random
  NaiveDecode mode = NaiveDecode::scheduled;
  NaiveEngine engine;
  std::vector<Turn> turns;
  std::size_t context_size = 0;
};

/// The engine's budget as the library has it.
inline RevivalBudget revival_budget(const NaiveEngine& engine) {
  return {.early = engine.early_revivals, .early_tokens = engine.early_steps, .later = engine.later_revivals};
}

/// One step of the reference, and the bound of a float implementation's error in its logits.
struct Expected {
  NaiveStep step;
  std::vector<std::size_t> depths;      // by token, after the step
  std::vector<std::vector<bool>> keys;  // by layer and token: K and V are there
  double logit_bound = 0;
};

inline NaiveKeep random_keep(Random& random, std::string& text) {
  char digits[16];
  NaiveKeep keep;
  switch (random.integer(0, 13)) {
    case 0:
      text += "0";
      keep = {NaiveKeep::Kind::tokens, 0};
      break;
    case 1:
      text += "1.0";
      keep = {NaiveKeep::Kind::thousandths, 1000};
      break;
    case 2:
      text += "0.0";
      keep = {NaiveKeep::Kind::thousandths, 0};
      break;
    case 3: [[fallthrough]];
    case 4: [[fallthrough]];
    case 5: [[fallthrough]];
    case 6:
      keep = {NaiveKeep::Kind::thousandths, random.integer(1, 999)};
      std::snprintf(digits, sizeof(digits), "0.%03u", static_cast<unsigned>(keep.value));
      text += digits;
      break;
    case 7: [[fallthrough]];
    case 8:
      keep = {NaiveKeep::Kind::tokens, random.integer(1, 20)};
      text += std::to_string(keep.value);
      break;
    case 9: [[fallthrough]];
    case 10:
      keep = {NaiveKeep::Kind::mass, random.integer(50, 950)};
      std::snprintf(digits, sizeof(digits), "m0.%03u", static_cast<unsigned>(keep.value));
      text += digits;
      break;
    default: keep = {NaiveKeep::Kind::percentile, random.integer(0, 99)}; text += "p" + std::to_string(keep.value);
  }
  if (random.chance(0.2)) {
    keep.least = random.integer(1, 12);
    text += "min" + std::to_string(keep.least);
  }
  return keep;
}

inline NaiveScore random_score(Random& random, std::size_t heads, std::string& text) {
  NaiveScore score;
  score.max_heads = random.chance(0.5);
  text += score.max_heads ? "/max" : "/mean";
  score.by_value = random.chance(0.3);
  if (score.by_value) text += "v";
  if (random.chance(0.3)) {
    for (std::size_t head = 0; head < heads; ++head) {
      if (head + 1 == heads ? score.heads.empty() : random.chance(0.5)) score.heads.push_back(head);
    }
    for (std::size_t i = 0; i < score.heads.size(); ++i) text += (i == 0 ? "@" : ".") + std::to_string(score.heads[i]);
  }
  if (random.chance(0.5)) {
    score.rows = random.integer(1, 6);
    score.max_rows = random.chance(0.5);
    text += "^" + std::to_string(score.rows) + (score.max_rows ? "max" : "mean");
  }
  if (random.chance(0.5)) {
    score.width = random.pick<std::size_t>({1, 3, 5, 7, 99});
    score.mean_pool = random.chance(0.5);
    text += "~" + std::to_string(score.width) + (score.mean_pool ? "mean" : "max");
  }
  return score;
}

/// Entries at about half of the layers; each layer, the first and the last too, has its turn. Half of the entries are
/// as plain as the paper's.
inline NaiveSchedule random_schedule(Random& random, const NaiveLlama& model, std::string& text) {
  NaiveSchedule schedule;
  for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
    if (!random.chance(0.5)) continue;
    text += (text.empty() ? "" : ",") + std::to_string(layer) + ":";
    NaiveEntry& entry = schedule[layer];
    entry.keep = random_keep(random, text);
    if (random.chance(0.15)) {
      entry.block = random.integer(2, 5);
      text += "b" + std::to_string(entry.block);
    }
    if (random.chance(0.4)) entry.score = random_score(random, model.heads, text);
  }
  if (text.empty()) text = "none";
  if (!schedule.empty() && random.chance(0.2)) {
    NaiveEntry protect;
    protect.first = random.integer(0, 3);
    protect.last = random.integer(0, 3);
    const std::size_t begin = random.integer(0, 12), end = begin + random.integer(1, 3);
    protect.ranges = {{begin, end}};
    text += ",first" + std::to_string(protect.first) + ",last" + std::to_string(protect.last) + ",tokens" +
            std::to_string(begin) + "-" + std::to_string(end - 1);
    for (auto& [layer, entry] : schedule) {
      entry.first = protect.first;
      entry.last = protect.last;
      entry.ranges = protect.ranges;
    }
  }
  return schedule;
}

inline NaiveEviction random_eviction(Random& random, std::string& text) {
  NaiveEviction eviction;
  eviction.evicts = true;
  NaiveEntry& entry = eviction.entry;
  switch (random.integer(0, 3)) {
    case 0:
      entry.keep = {NaiveKeep::Kind::tokens, 0};
      entry.first = random.integer(0, 4);
      entry.last = random.integer(0, 12);
      text = "window:" + std::to_string(entry.first) + "," + std::to_string(entry.last);
      break;
    case 1:
      eviction.by_score = true;
      text = "tova:";
      entry.keep = random_keep(random, text);
      break;
    case 2:
      eviction.by_score = eviction.by_sums = true;
      entry.score.by_value = random.chance(0.5);
      text = entry.score.by_value ? "vatp:" : "h2o:";
      if (entry.score.by_value) entry.first = 20;
      entry.keep = random_keep(random, text);
      eviction.half_recent = entry.keep.kind != NaiveKeep::Kind::mass && random.chance(0.5);
      if (eviction.half_recent) break;
      entry.last = random.integer(0, 12);
      text += "," + std::to_string(entry.last);
      break;
    default:
      eviction.by_score = true;
      eviction.in_decode = false;
      text = "snapkv:";
      entry.keep = random_keep(random, text);
      entry.score.rows = entry.last = random.integer(1, 8);
      entry.score.width = random.pick<std::size_t>({1, 3, 7});
      text += "^" + std::to_string(entry.score.rows) + "~" + std::to_string(entry.score.width);
  }
  return eviction;
}

/// What is selected before layer 0. Masses are of no use there: random ranks have none.
inline NaiveBefore random_before(Random& random, std::string& keep_text) {
  NaiveBefore before;
  if (random.chance(0.5)) {
    before.kind = NaiveBefore::Kind::window;
    before.first = random.integer(0, 4);
    before.recent = random.integer(0, 25);
    return before;
  }
  before.kind = NaiveBefore::Kind::random;
  before.seed = random.integer(0, 1000);
  do {
    keep_text.clear();
    before.keep = random_keep(random, keep_text);
  } while (before.keep.kind == NaiveKeep::Kind::mass);
  return before;
}

inline RandomCase random_case(std::uint64_t seed) {
  Random random(seed);
  RandomCase result;
  result.model = random_llama(random);
  result.prefill = random_schedule(random, result.model, result.prefill_text);
  switch (random.integer(0, 7)) {
    case 0: result.decode_text = "none"; break;
    case 1: result.mode = NaiveDecode::cached; [[fallthrough]];
    case 2: [[fallthrough]];
    case 3: [[fallthrough]];
    case 4: result.decode = random_schedule(random, result.model, result.decode_text); break;
    case 5: result.mode = NaiveDecode::cached; [[fallthrough]];
    default: result.decode = result.prefill; result.decode_text = result.prefill_text;
  }

  std::size_t tokens = 0;
  const auto add_turn = [&](bool decode, std::size_t count) {
    Turn turn{decode, {}};
    tokens += count;
    for (std::size_t i = 0; i < count; ++i) turn.ids.push_back(random.integer(0, result.model.vocab_size - 1));
    result.turns.push_back(turn);
    result.context_size = std::max(result.context_size, tokens);
  };
  add_turn(false, random.chance(0.3) ? random.integer(1, 3) : random.integer(4, 40));
  if (random.chance(0.08)) return result;  // the prompt alone fills the context
  for (std::size_t i = random.integer(4, 9); i > 0; --i) add_turn(true, 1);
  if (random.chance(0.25)) {  // a second question in the same session
    add_turn(false, random.integer(1, 6));
    for (std::size_t i = random.integer(1, 3); i > 0; --i) add_turn(true, 1);
  }
  if (random.chance(0.25)) {  // another end for the same start
    const std::size_t cut_to = random.integer(0, tokens);
    tokens = cut_to;
    const bool decode = random.chance(0.3);
    add_turn(decode, decode ? 1 : random.integer(1, 6));
    result.turns.back().cut_to = cut_to;
    for (std::size_t i = random.integer(1, 3); i > 0; --i) add_turn(true, 1);
  }
  if (random.chance(0.5)) result.context_size += random.integer(1, 10);
  if (random.chance(0.3)) result.engine.early_revivals = random.integer(0, 4);
  if (random.chance(0.3)) {
    result.engine.early_steps = random.integer(0, 3);
    result.engine.later_revivals = random.integer(0, 2);
  }
  if (random.chance(0.1)) result.engine.dense_below = random.integer(1, 40);
  if (random.chance(0.25)) result.engine.eviction = random_eviction(random, result.eviction_text);
  if (random.chance(0.25)) result.engine.before = random_before(random, result.before_text);
  return result;
}

/// What float arithmetic makes of a model is, to first order, what exact arithmetic makes of a slightly other model: a
/// float dot product of n terms equals an exact one whose weights are off by about sqrt(n) u relative (u = 2^-24;
/// roundings add up like a random walk: Higham and Mary, SIAM J. Sci. Comput. 41, 2019). So this model has every weight
/// off by a random amount of up to sqrt(n) u, n its longest dot product, and every RoPE angle by up to 4 u (frequency,
/// factor, product, table).
inline NaiveLlama perturbed(NaiveLlama model, std::size_t context, Random& random) {
  constexpr double u = 0x1p-24;
  const std::size_t longest = std::max({model.hidden_dim, model.ffn_dim, model.heads * model.head_dim, context});
  const double relative = std::sqrt(static_cast<double>(longest)) * u;
  const auto shake = [&](Weights& weights, double by) {
    for (float& w : weights) w = static_cast<float>(static_cast<double>(w) * (1 + by * random.uniform()));
  };
  shake(model.embedding, relative);
  shake(model.output_norm, relative);
  shake(model.head, relative);
  if (model.rope_factors.empty()) model.rope_factors.assign(model.rope_dim / 2, 1.0f);
  shake(model.rope_factors, 4 * u);
  for (NaiveLayer& layer : model.layers) {
    for (Weights* weights : {&layer.attention_norm, &layer.q, &layer.k, &layer.v, &layer.o, &layer.ffn_norm,
                             &layer.gate, &layer.up, &layer.down}) {
      shake(*weights, relative);
    }
  }
  return model;
}

/// Eight times the largest deviation seen in two perturbed runs (a float run is one more draw of the same kind; eight
/// times a typical one is out of reach for a sum of many roundings), and 16 u of the largest value for what comes after
/// the last product: the exponential, its division, the mean over heads.
inline double float_error_bound(const Vector& exact, const Vector& first, const Vector& second) {
  double deviation = 0;
  double largest = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    deviation = std::max({deviation, std::abs(first[i] - exact[i]), std::abs(second[i] - exact[i])});
    largest = std::max(largest, std::abs(exact[i]));
  }
  return 8 * deviation + 16 * 0x1p-24 * largest;
}

/// Whether float arithmetic could decide otherwise: two scores on different sides of the cut lie closer than both their
/// errors. Scores that are all the same number come from zero queries, where float is exact too.
inline bool too_close(const NaiveStep& exact, const NaiveStep& first, const NaiveStep& second) {
  const auto close = [](double gap, const Vector& scores, const Vector& one, const Vector& other) {
    if (scores.empty()) return false;
    const auto [least, greatest] = std::minmax_element(scores.begin(), scores.end());
    return *least != *greatest && gap <= 2 * float_error_bound(scores, one, other);
  };
  for (std::size_t layer = 0; layer < exact.gap.size(); ++layer) {
    if (close(exact.gap[layer], exact.importance[layer], first.importance[layer], second.importance[layer]))
      return true;
    if (close(exact.eviction_gap[layer], exact.eviction_importance[layer], first.eviction_importance[layer],
              second.eviction_importance[layer])) {
      return true;
    }
  }
  return false;
}

/// The reference's run of a case; nothing if one of its cuts is too close for float arithmetic to be sure.
inline std::optional<std::vector<Expected>> expected_run(const RandomCase& c, std::uint64_t seed) {
  Random random(seed);
  const NaiveLlama first_model = perturbed(c.model, c.context_size, random);
  const NaiveLlama second_model = perturbed(c.model, c.context_size, random);
  NaiveLazy exact(c.model, c.engine), first(first_model, c.engine), second(second_model, c.engine);
  std::vector<Expected> result;
  for (const Turn& turn : c.turns) {
    const auto run = [&](NaiveLazy& lazy, const NaiveStep* forced) {
      if (turn.cut_to < lazy.context()) lazy.truncate(turn.cut_to);
      return turn.decode ? lazy.decode(turn.ids[0], c.decode, c.mode, forced)
                         : lazy.prefill(turn.ids, c.prefill, forced);
    };
    Expected expected{run(exact, nullptr), {}, {}, 0};
    const NaiveStep first_step = run(first, &expected.step);
    const NaiveStep second_step = run(second, &expected.step);
    if (too_close(expected.step, first_step, second_step)) return std::nullopt;
    expected.logit_bound = float_error_bound(expected.step.logits, first_step.logits, second_step.logits);
    for (std::size_t token = 0; token < exact.context(); ++token) expected.depths.push_back(exact.depth(token));
    for (std::size_t layer = 0; layer < c.model.layers.size(); ++layer) {
      expected.keys.emplace_back();
      for (std::size_t token = 0; token < exact.context(); ++token) {
        expected.keys.back().push_back(exact.has_key(layer, token));
      }
    }
    result.push_back(std::move(expected));
  }
  return result;
}

}  // namespace lazyllm::test
