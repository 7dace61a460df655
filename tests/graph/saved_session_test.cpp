// Sessions that are cut back, forked, saved and loaded, on the naive graph of tests/support.
#include <lazyllm/core/checksum.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/graph/saved_session.hpp>
#include <lazyllm/prune/baselines.hpp>
#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/top_k_policy.hpp>

#include <doctest/doctest.h>

#include "support/build_kind.hpp"
#include "support/naive_graph.hpp"
#include "support/random_case.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

using Bytes = std::vector<std::byte>;
using Logits = std::vector<float>;

/// A session and its graph.
template <class Policy>
struct Session {
  Session(const NaiveLlama& model, const Policy& policy, const SessionOptions& options)
      : graph(std::make_unique<NaiveGraph>(model)), session(*graph, policy, options) {}
  explicit Session(const Session& other, const NaiveLlama& model)
      : graph(std::make_unique<NaiveGraph>(model)), session(other.session.fork(*graph)) {}
  std::unique_ptr<NaiveGraph> graph;
  LazySession<NaiveGraph, Policy> session;
};

Logits run(auto& session, const Turn& turn) {
  const std::vector<TokenId> ids(turn.ids.begin(), turn.ids.end());
  if (turn.cut_to < session.context_size()) session.truncate(turn.cut_to);
  const std::span<const float> logits = turn.decode ? session.decode(ids[0]) : session.prefill(ids);
  return {logits.begin(), logits.end()};
}

using Both = WithEviction<TopKPolicy<>, AnyEviction>;

Both policy_of(const char* schedule, const char* eviction) {
  return {TopKPolicy<>(MeanOverHeads{}, parse_schedule(schedule)), parse_eviction(eviction)};
}
Both policy_of(const RandomCase& c) {
  return {TopKPolicy<>(MeanOverHeads{}, parse_schedule(c.prefill_text), parse_schedule(c.decode_text)),
          parse_eviction(c.eviction_text)};
}
SessionOptions options_of(const RandomCase& c, RowFormat aux_rows) {
  SessionOptions options{.context_size = c.context_size};
  options.revive_in_decode = c.mode != NaiveDecode::cached;
  options.decode_revivals = revival_budget(c.engine);
  options.dense_below = c.engine.dense_below;
  options.aux_rows = aux_rows;
  return options;
}

/// A pruned prompt of 9 tokens, some of them parked, some half-way.
struct Small {
  Small() {
    while (model.layers.size() < 3 || model.layers.size() > 4) model = random_llama(random);
    options.context_size = 12;
    for (std::size_t i = 0; i < 9; ++i) ids.push_back(static_cast<TokenId>(random.integer(0, model.vocab_size - 1)));
  }
  [[nodiscard]] Session<Both> session(const char* eviction = "none") const {
    return {model, policy_of("0:6,1:3", eviction), options};
  }
  Random random{21};
  NaiveLlama model;
  SessionOptions options;
  std::vector<TokenId> ids;
};

std::uint64_t word(const Bytes& bytes, std::size_t index) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data() + index * sizeof(value), sizeof(value));
  return value;
}
/// Overwrites a number of the header, and makes the checksum right again.
Bytes forged(Bytes bytes, std::size_t index, std::uint64_t value) {
  std::memcpy(bytes.data() + index * sizeof(value), &value, sizeof(value));
  const std::uint64_t sum = checksum(std::span(bytes).subspan(16));
  if (index != 1) std::memcpy(bytes.data() + 8, &sum, sizeof(sum));
  return bytes;
}

}  // namespace

TEST_CASE("Forked, saved and loaded sessions go on bit for bit as the one that was not touched, over random runs") {
  std::size_t parked = 0, cut_back = 0, evicting = 0;
  const std::uint64_t cases = sanitized_build ? 40 : 300;
  for (std::uint64_t seed = 0; seed < cases; ++seed) {
    CAPTURE(seed);
    const RandomCase c = random_case(seed);
    evicting += c.engine.eviction.evicts ? 1 : 0;
    Random random(seed);
    const SessionOptions options = options_of(c, static_cast<RowFormat>(seed % 4));
    Session<Both> untouched(c.model, policy_of(c), options);
    std::vector<Session<Both>> others;  // that began as it at some turn
    for (const Turn& turn : c.turns) {
      if (random.chance(0.3)) others.emplace_back(untouched, c.model);
      if (random.chance(0.3)) {
        Session<Both>& loaded = others.emplace_back(c.model, policy_of(c), options);
        if (random.chance(0.5)) loaded.session.prefill(std::vector<TokenId>{1});  // load forgets it
        loaded.session.load(untouched.session.save());
      }
      parked += untouched.session.aux_bytes() != 0 ? 1 : 0;
      cut_back += turn.cut_to < untouched.session.context_size() ? 1 : 0;
      const Logits expected = run(untouched.session, turn);
      for (Session<Both>& other : others) {
        REQUIRE(run(other.session, turn) == expected);
        REQUIRE(other.session.step_count() == untouched.session.step_count());
        for (const Phase phase : {Phase::prefill, Phase::decode}) {
          REQUIRE(other.session.totals(phase).rows_computed == untouched.session.totals(phase).rows_computed);
          REQUIRE(other.session.totals(phase).rows_finished == untouched.session.totals(phase).rows_finished);
          REQUIRE(other.session.totals(phase).revived == untouched.session.totals(phase).revived);
        }
        REQUIRE(other.session.save() == untouched.session.save());
      }
    }
  }
  CHECK(parked > cases);
  CHECK(cut_back * 10 > cases);
  CHECK(evicting * 10 > cases);
}

TEST_CASE("A fork leaves the session alone") {
  Small small;
  Session<Both> session = small.session();
  session.session.prefill(small.ids);
  const Bytes before = session.session.save();
  Session<Both> fork(session, small.model);
  fork.session.decode(3);
  CHECK(session.session.save() == before);
  CHECK(fork.session.save() != before);
}

TEST_CASE("RandomDrop knows the generated tokens in a loaded session, too") {
  Small small;
  const RandomDrop policy(parse_schedule("0:4"), 5);
  Session<RandomDrop> first(small.model, policy, small.options), second(small.model, policy, small.options);
  first.session.prefill(small.ids);
  first.session.decode(1);
  second.session.load(first.session.save());
  CHECK(run(second.session, Turn{.decode = true, .ids = {2}}) == run(first.session, Turn{.decode = true, .ids = {2}}));
  CHECK(second.session.depth(9) == small.model.layers.size());
}

TEST_CASE("Every flipped byte of a saved session is an error, and the session that refuses it goes on") {
  Small small;
  Session<Both> saved = small.session("h2o:5"), target = small.session("h2o:5"), untouched = small.session("h2o:5");
  saved.session.prefill(small.ids);
  for (auto* session : {&target, &untouched}) session->session.prefill(std::vector<TokenId>{1, 2, 3, 4});
  Bytes bytes = saved.session.save();
  MESSAGE(bytes.size(), " bytes");
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] ^= std::byte{0x41};
    REQUIRE_THROWS_AS(target.session.load(bytes), Error);
    bytes[i] ^= std::byte{0x41};
  }
  for (std::size_t size = 0; size < bytes.size(); size += size < 200 ? 1 : 97) {
    REQUIRE_THROWS_AS(target.session.load(std::span(bytes).first(size)), Error);
  }
  CHECK(target.session.save() == untouched.session.save());
  const Turn turn{.decode = true, .ids = {5}};
  CHECK(run(target.session, turn) == run(untouched.session, turn));
  target.session.load(bytes);
  CHECK(target.session.save() == bytes);
}

TEST_CASE("What is whole but wrong or foreign is refused by name") {
  Small small;
  Session<Both> saved = small.session();
  saved.session.prefill(small.ids);
  const Bytes bytes = saved.session.save();
  const auto load = [&](const Bytes& what) {
    Session<Both> target = small.session();
    target.session.load(what);
  };
  CHECK_NOTHROW(load(forged(bytes, 0, word(bytes, 0))));
  CHECK_THROWS_WITH_AS(load(forged(bytes, 0, 1)), doctest::Contains("do not start"), Error);
  CHECK_THROWS_WITH_AS(load(forged(bytes, 1, 1)), doctest::Contains("checksum"), Error);
  CHECK_THROWS_WITH_AS(load(forged(bytes, 2, 7)), doctest::Contains("version 7"), Error);
  CHECK_THROWS_WITH_AS(load(forged(bytes, 3, 99)), doctest::Contains("header says 99"), Error);
  CHECK_THROWS_WITH_AS(load(forged(bytes, 4, 99)), doctest::Contains("same model"), Error);
  CHECK_THROWS_WITH_AS(load(forged(bytes, 5, 99)), doctest::Contains("99 layers"), Error);
  CHECK_THROWS_WITH_AS(load(forged(bytes, 6, 99)), doctest::Contains("99 hidden"), Error);
  CHECK_THROWS_WITH_AS(load(forged(bytes, 7, 99)), doctest::Contains("99 bytes"), Error);
  CHECK_THROWS_WITH_AS(load(forged(bytes, 8, 13)), doctest::Contains("13 tokens"), Error);
  CHECK_THROWS_WITH_AS(load(forged(bytes, 8, ~std::uint64_t{0})), doctest::Contains("context of 12"), Error);
  CHECK_THROWS_WITH_AS(load(forged(forged(bytes, 9, 8), 8, 8)), doctest::Contains("go on after"), Error);
  CHECK_THROWS_WITH_AS(load(forged(bytes, 8, 10)), doctest::Contains("saved session"), Error);
  CHECK_THROWS_WITH_AS(load(forged(bytes, 9, 10)), doctest::Contains("a prompt longer"), Error);
  CHECK_THROWS_WITH_AS(load(forged(bytes, 11, 3)), doctest::Contains("rows of format 3"), Error);

  const std::size_t layers = small.model.layers.size(), first_token = 13 + 4 * layers + 2;  // words before the tokens
  const auto token = [](std::uint32_t depth, std::uint32_t unfinished) {
    return depth | static_cast<std::uint64_t>(unfinished) << 32;
  };
  for (const std::uint64_t wrong : {token(static_cast<std::uint32_t>(layers + 1), 0), token(1, 2), token(0, 1),
                                    token(static_cast<std::uint32_t>(layers), 1), token(~0u, 0)}) {
    CHECK_THROWS_WITH_AS(load(forged(bytes, first_token, wrong)), doctest::Contains("cannot be"), Error);
  }
  CHECK_THROWS_WITH_AS(load(forged(bytes, first_token + 8, token(1, 0))), doctest::Contains("saved session"), Error);
  // The word of evictions after the tokens: a token from the last layer, which it has not run; then a bit of no token.
  const std::size_t evictions = first_token + 9;
  REQUIRE(9 * layers < 62);
  TokenIndex shallow = 0;
  while (saved.session.depth(shallow) == layers) ++shallow;
  for (const std::size_t bit : {9 * (layers - 1) + shallow, 9 * layers}) {
    CHECK_THROWS_WITH_AS(load(forged(bytes, evictions, word(bytes, evictions) | std::uint64_t{1} << bit)),
                         doctest::Contains("eviction"), Error);
  }

  Session<Both> sums = small.session("h2o:5");
  CHECK_THROWS_WITH_AS(sums.session.load(bytes), doctest::Contains("0 heads with column sums"), Error);
  CHECK_THROWS_WITH_AS(load(forged(bytes, 12, 99)), doctest::Contains("99 heads with column sums"), Error);

  Random other_random(22);
  NaiveLlama other = random_llama(other_random);
  Session<Both> foreign(other, policy_of("none", "none"), small.options);
  CHECK_THROWS_AS(foreign.session.load(bytes), Error);
  Session<Both> twin = small.session();
  NaiveLlama changed = small.model;
  changed.embedding[0] += 1;
  NaiveGraph changed_graph(changed);
  CHECK_THROWS_WITH_AS(static_cast<void>(twin.session.fork(changed_graph)), doctest::Contains("same model"), Error);
}

TEST_CASE("A session is cut back to at most what it has, also to nothing, and not after an interruption") {
  Small small;
  Session<Both> session = small.session(), fresh = small.session();
  session.session.prefill(small.ids);
  CHECK_THROWS_WITH_AS(session.session.truncate(10), doctest::Contains("9 tokens back to 10"), Error);
  session.session.truncate(9);
  session.session.truncate(0);
  CHECK(session.session.context_size() == 0);
  CHECK(session.session.aux_bytes() == 0);
  const Turn prompt{.decode = false, .ids = {small.ids.begin(), small.ids.end()}};
  CHECK(run(session.session, prompt) == run(fresh.session, prompt));
  const auto stop = [](LayerIndex, std::size_t) { return false; };
  CHECK_THROWS_AS(session.session.prefill(std::vector<TokenId>{1}, stop), Cancelled);
  CHECK_THROWS_WITH_AS(session.session.truncate(1), doctest::Contains("interrupted"), Error);
  CHECK_THROWS_WITH_AS((void)session.session.save(), doctest::Contains("interrupted"), Error);
  session.session.load(fresh.session.save());  // what was interrupted is gone
  CHECK(session.session.save() == fresh.session.save());
}
