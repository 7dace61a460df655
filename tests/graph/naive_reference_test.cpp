// The engine and the Llama graph against the naive double-precision LazyLLM of tests/support, on random tiny models.
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/io/gguf_parse.hpp>
#include <lazyllm/io/mapped_file.hpp>
#include <lazyllm/llama/model.hpp>
#include <lazyllm/llama/weights.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/prune/baselines.hpp>
#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/top_k_policy.hpp>

#include <doctest/doctest.h>

#include "support/build_kind.hpp"
#include "support/naive_graph.hpp"
#include "support/naive_lazy.hpp"
#include "support/naive_llama.hpp"
#include "support/random_case.hpp"
#include "support/random_model.hpp"
#include "support/temporary_directory.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace lazyllm;
using namespace lazyllm::test;

/// What the cases covered, for the printed summary and for the test's own promises.
struct Coverage {
  std::size_t cases = 0, redrawn = 0, steps = 0, revived = 0, cuts = 0, short_prompts = 0, full_contexts = 0;
  std::size_t first_layer = 0, last_layer = 0, cached = 0, cut_back = 0, evicting = 0, ties = 0;
  std::size_t dropped = 0;  // tokens that did not enter layer 0 of a step
  std::size_t evicted = 0;  // pairs of layer and token
  double worst_logit = 0;   // largest error of a logit, as a share of its bound

  void add(const RandomCase& c, const std::vector<Expected>& run) {
    ++cases;
    steps += run.size();
    std::size_t most_tokens = 0;
    for (const Expected& expected : run) most_tokens = std::max(most_tokens, expected.depths.size());
    full_contexts += most_tokens == c.context_size ? 1 : 0;
    cut_back += std::ranges::any_of(c.turns, [&](const Turn& turn) { return turn.cut_to < c.context_size; }) ? 1 : 0;
    short_prompts += c.turns[0].ids.size() <= 3 ? 1 : 0;
    first_layer += c.prefill.contains(0) ? 1 : 0;
    last_layer += c.prefill.contains(c.model.layers.size() - 1) ? 1 : 0;
    evicting += c.engine.eviction.evicts ? 1 : 0;
    cached += c.mode == NaiveDecode::cached ? 1 : 0;
    for (const Expected& expected : run) {
      revived += expected.step.revived.size();
      dropped += expected.depths.size() - expected.step.entering.size();
      for (const auto& tokens : expected.step.evicted) evicted += tokens.size();
      for (const double gap : expected.step.gap) cuts += std::isfinite(gap) ? 1 : 0;
      ties += expected.step.ties;
    }
  }
};

/// The policy that selects before layer 0: of the two one keeps everything.
Composed<FirstAndRecent, RandomDrop> before_policy(const RandomCase& c) {
  FirstAndRecent window{.recent = c.context_size};
  StepSchedule random;
  const NaiveBefore& before = c.engine.before;
  if (before.kind == NaiveBefore::Kind::window) window = {.first = before.first, .recent = before.recent};
  if (before.kind == NaiveBefore::Kind::random) {
    random = StepSchedule({{before_first_layer, parse_keep_rule(c.before_text)}});
  }
  return compose(window, RandomDrop(random, before.seed));
}

/// Runs the case on a graph of the library's kind and compares every step with the reference.
template <class Graph>
void compare(Graph& graph, const RandomCase& c, const std::vector<Expected>& run, Coverage& coverage) {
  std::size_t current = 0;
  std::map<std::size_t, std::vector<std::size_t>> kept;  // this step's selections by layer
  auto pruning = compose(before_policy(c),
                         TopKPolicy(MeanOverHeads{}, parse_schedule(c.prefill_text), parse_schedule(c.decode_text)));
  LazySession session(graph, WithEviction(std::move(pruning), parse_eviction(c.eviction_text)),
                      SessionOptions{.context_size = c.context_size,
                                     .revive_in_decode = c.mode != NaiveDecode::cached,
                                     .decode_revivals = revival_budget(c.engine),
                                     .dense_below = c.engine.dense_below,
                                     .on_select =
                                         [&](const Selection& selection) {
                                           REQUIRE(selection.step == current);
                                           kept[selection.layer].assign(selection.kept.begin(), selection.kept.end());
                                         },
                                     .on_prefill_layer = {}});
  for (std::size_t step = 0; step < run.size(); ++step) {
    CAPTURE(step);
    const Turn& turn = c.turns[step];
    const NaiveStep& want = run[step].step;
    kept.clear();
    current = step;
    const std::vector<TokenId> ids(turn.ids.begin(), turn.ids.end());
    if (turn.cut_to < session.context_size()) session.truncate(turn.cut_to);
    const std::span<const float> logits = turn.decode ? session.decode(ids[0]) : session.prefill(ids);

    std::size_t parked = 0;
    for (std::size_t token = 0; token < run[step].depths.size(); ++token) {
      CAPTURE(token);
      REQUIRE(session.depth(static_cast<TokenIndex>(token)) == run[step].depths[token]);
      for (std::size_t layer = 0; layer < c.model.layers.size(); ++layer) {
        CAPTURE(layer);
        REQUIRE(session.has_key(layer, static_cast<TokenIndex>(token)) == run[step].keys[layer][token]);
      }
      parked += run[step].depths[token] < c.model.layers.size() ? 1 : 0;
    }
    REQUIRE(session.aux_bytes() == parked * c.model.hidden_dim * sizeof(float));
    for (const auto& entry : turn.decode ? c.decode : c.prefill) {
      const std::size_t layer = entry.first;
      CAPTURE(layer);
      if (session.context_size() >= c.engine.dense_below) REQUIRE(kept.contains(layer));
      if (kept.contains(layer)) REQUIRE(kept[layer] == want.kept[layer]);
    }
    if (kept.contains(before_first_layer)) REQUIRE(kept[before_first_layer] == want.entering);
    REQUIRE(session.last_step().revived == want.revived.size());
    for (std::size_t layer = 0; layer < want.rows.size(); ++layer) {
      REQUIRE(session.last_step().rows_computed[layer] == want.rows[layer].size());
      REQUIRE(session.last_step().rows_finished[layer] == want.finished[layer]);
    }
    double worst = 0;
    REQUIRE(logits.size() == want.logits.size());
    for (std::size_t i = 0; i < logits.size(); ++i) {
      worst = std::max(worst, std::abs(double{logits[i]} - want.logits[i]) / run[step].logit_bound);
    }
    REQUIRE(worst <= 1);
    coverage.worst_logit = std::max(coverage.worst_logit, worst);
  }
}

/// Draws cases, again where a cut is too close, and hands each to `check(case, run, coverage)`.
template <class Check>
void for_each_case(std::size_t cases, const char* what, bool split, Check check) {
  Coverage coverage;
  for (std::uint64_t i = 0; i < cases; ++i) {
    for (std::uint64_t draw = 0;; ++draw) {
      const std::uint64_t seed = i * 1000 + draw;
      RandomCase c = random_case(seed);
      c.engine.split = split;
      const auto run = expected_run(c, seed);
      if (!run) {
        ++coverage.redrawn;
        continue;
      }
      CAPTURE(seed);
      CAPTURE(c.prefill_text);
      CAPTURE(c.decode_text);
      CAPTURE(c.eviction_text);
      coverage.add(c, *run);
      check(c, *run, coverage);
      break;
    }
  }
  std::ostringstream summary;
  summary << what << ": " << coverage.cases << " cases" << (sanitized_build ? " (fewer: sanitized build)" : "") << ", "
          << coverage.redrawn << " drawn again, " << coverage.steps << " steps, " << coverage.cuts << " cuts ("
          << coverage.ties << " through ties), " << coverage.revived << " tokens revived, " << coverage.short_prompts
          << " prompts of 1 to 3 tokens, " << coverage.full_contexts << " full contexts, pruned after the first layer "
          << coverage.first_layer << ", after the last " << coverage.last_layer << ", without revival "
          << coverage.cached << ", cut back " << coverage.cut_back << ", " << coverage.evicting << " with evictions ("
          << coverage.evicted << " keys), " << coverage.dropped
          << " tokens left out of a step before layer 0; largest logit error " << coverage.worst_logit
          << " of its bound";
  MESSAGE(summary.str());
  CHECK(coverage.redrawn * 20 <= cases);
  CHECK(coverage.revived > 2 * cases);
  CHECK(coverage.ties * 20 > cases);
  CHECK(coverage.evicted > 5 * cases);
  CHECK(coverage.dropped > 5 * cases);
  for (const std::size_t covered : {coverage.short_prompts, coverage.full_contexts, coverage.first_layer,
                                    coverage.last_layer, coverage.cached, coverage.cut_back}) {
    CHECK(covered * 10 > cases);
  }
}

}  // namespace

TEST_CASE("The engine on a foreign graph agrees with the naive LazyLLM in kept sets, revivals, depths and logits") {
  for_each_case(sanitized_build ? 60 : 500, "engine, split", true,
                [](const RandomCase& c, const std::vector<Expected>& run, Coverage& coverage) {
                  NaiveGraph graph(c.model);
                  compare(graph, c, run, coverage);
                });
}

TEST_CASE("The engine agrees with the naive LazyLLM on a graph whose layers do not come apart") {
  for_each_case(sanitized_build ? 60 : 500, "engine, unsplit", false,
                [](const RandomCase& c, const std::vector<Expected>& run, Coverage& coverage) {
                  NaiveGraph graph(c.model);
                  Unsplit unsplit(graph);
                  compare(unsplit, c, run, coverage);
                });
}

TEST_CASE("The Llama graph under the engine agrees with the naive LazyLLM in kept sets, revivals, depths and logits") {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "model.gguf";
  SerialExecutor executor;
  for_each_case(sanitized_build ? 60 : 500, "llama", true,
                [&](const RandomCase& c, const std::vector<Expected>& run, Coverage& coverage) {
                  gguf_of(c.model, c.context_size).save(path);
                  const MappedFile file(path);
                  const auto weights = LlamaWeights<>::load(file, parse_gguf(file.bytes()), executor);
                  Llama<AsStored, SerialExecutor, KvCache<TokenMajor, float>> graph(weights, executor, c.context_size);
                  compare(graph, c, run, coverage);
                });
}

TEST_CASE("The naive LazyLLM that keeps everything equals a plain dense run, however the tokens are cut into steps") {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    const NaiveLlama model = random_llama(random);
    std::vector<std::size_t> ids;
    for (std::size_t i = 0; i < 12; ++i) ids.push_back(random.integer(0, model.vocab_size - 1));
    const std::vector<Vector> dense = naive_dense(model, ids);

    NaiveSchedule everything;
    for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
      everything[layer].keep = {NaiveKeep::Kind::thousandths, 1000};
    }
    for (const NaiveSchedule& schedule : {NaiveSchedule{}, everything}) {
      NaiveLazy lazy(model);
      CHECK(lazy.prefill({ids.begin(), ids.begin() + 5}, schedule).logits == dense[4]);
      for (std::size_t i = 5; i < 8; ++i) {
        CHECK(lazy.decode(ids[i], schedule, NaiveDecode::scheduled).logits == dense[i]);
      }
      CHECK(lazy.decode(ids[8], schedule, NaiveDecode::cached).logits == dense[8]);
      CHECK(lazy.prefill({ids.begin() + 9, ids.end()}, schedule).logits == dense[11]);
      for (std::size_t token = 0; token < ids.size(); ++token) CHECK(lazy.depth(token) == model.layers.size());
    }
  }
}

TEST_CASE("The naive LazyLLM revives every pruned token when a decode step prunes nothing") {
  Random random(3);
  NaiveLlama model;
  do {
    model = random_llama(random);
  } while (model.layers.size() < 3);
  NaiveLazy lazy(model);
  const NaiveStep prompt = lazy.prefill({1, 2, 3, 4, 5, 6}, {{0, NaiveEntry{.keep = {NaiveKeep::Kind::tokens, 2}}}});
  CHECK(prompt.kept[0].size() == 2);
  CHECK(prompt.kept[0].back() == 5);
  CHECK(lazy.depth(5) == model.layers.size());
  const NaiveStep cached = lazy.decode(7, {}, NaiveDecode::cached);
  CHECK(cached.revived.empty());
  CHECK(cached.kept[0].size() == 3);  // the two that have K and V at layer 1, and the new token
  const NaiveStep next = lazy.decode(8, {}, NaiveDecode::scheduled);
  CHECK(next.revived.size() == 4);
  for (std::size_t token = 0; token < 8; ++token) CHECK(lazy.depth(token) == model.layers.size());
}

TEST_CASE("The two RoPE pairings of the naive Llama agree when the rows of q and k are permuted accordingly") {
  Random random(11);
  NaiveLlama model;
  do {
    model = random_llama(random);
  } while (model.pairing != NaivePairing::neighbours);
  model.rope_dim = model.head_dim;
  model.rope_factors.clear();
  NaiveLlama halves = model;
  halves.pairing = NaivePairing::halves;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    const auto permute = [&](const Weights& from, Weights& to) {
      for (std::size_t row = 0; row < from.size() / model.hidden_dim; ++row) {
        const std::size_t in_head = row % model.head_dim;  // element 2i moves to i, 2i + 1 to i + dim / 2
        const std::size_t target = row - in_head + in_head / 2 + in_head % 2 * (model.head_dim / 2);
        std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(row * model.hidden_dim), model.hidden_dim,
                    to.begin() + static_cast<std::ptrdiff_t>(target * model.hidden_dim));
      }
    };
    permute(model.layers[i].q, halves.layers[i].q);
    permute(model.layers[i].k, halves.layers[i].k);
  }
  const std::vector<std::size_t> ids{1, 5, 2, 8, 13, 21};
  const std::vector<Vector> a = naive_dense(model, ids);
  const std::vector<Vector> b = naive_dense(halves, ids);
  for (std::size_t t = 0; t < ids.size(); ++t) {
    for (std::size_t i = 0; i < a[t].size(); ++i) CHECK(std::abs(a[t][i] - b[t][i]) < 1e-10);  // double, reordered sums
  }
}
