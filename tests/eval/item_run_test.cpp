// One item under one policy: scores of a model that is known to look answers up, what dropping them does, and costs.
#include <doctest/doctest.h>
#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/item_run.hpp>

#include "support/eval_text.hpp"
#include "support/lookup_graph.hpp"
#include "support/naive_graph.hpp"
#include "support/random_model.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

const PresetSchedules nothing;

LookupGraph make_lookup(std::size_t) { return LookupGraph(byte_tokenizer().vocab_size()); }

/// Drops a stretch of tokens after layer 0, in every step.
struct DropTokens {
  TokenSpan span;
  [[nodiscard]] static std::size_t query_rows(LayerIndex, Phase) { return 0; }
  void select(const PruneContext& context, std::span<bool> keep) const {
    if (context.layer != 0) return;
    for (std::size_t i = 0; i < keep.size(); ++i) {
      keep[i] = context.tokens[i] < span.begin || context.tokens[i] >= span.end;
    }
  }
};

std::vector<Item> items(Task task, ItemOptions options) {
  static const SourceText source(natural_text, byte_tokenizer());
  const ItemMaker maker(source, byte_tokenizer(), nullptr, options);
  std::vector<Item> made;
  for (std::size_t index = 0; index < 6; ++index) made.push_back(maker.make({task, 1000, 0.5, index}));
  return made;
}

std::string answer_of(const Item& item) { return byte_tokenizer().decode(item.turns.back().answer).substr(1); }

}  // namespace

TEST_CASE("a model that looks answers up is right on all tasks that repeat the fact's words") {
  auto make = make_lookup;
  for (const bool own_words : {false, true}) {
    for (const Task task : {Task::needle, Task::keys, Task::facts, Task::second}) {
      for (const Item& item : items(task, {.own_words = own_words})) {
        CAPTURE(name(task));
        CHECK(run_item(make, parse_policy("none", nothing), item).score.right());
      }
    }
  }
}

TEST_CASE("a policy that drops the needle scores at chance") {
  auto make = make_lookup;
  for (const bool own_words : {false, true}) {
    for (const Task task : {Task::needle, Task::keys}) {
      for (const Item& item : items(task, {.own_words = own_words})) {
        const TokenSpan span = find_tokens(byte_tokenizer(), item.turns[0].prompt, answer_of(item));
        REQUIRE(span.end > span.begin);
        const SessionOptions options{.context_size = item.context_size()};
        // A number of four digits is guessed once in 9,000 times.
        const ItemResult result = run_item(make, DropTokens{span}, options, item);
        CHECK_FALSE(result.score.right());
        CHECK(result.score.tokens == item.turns[0].answer.size());
        // What is beside the needle does no harm.
        CHECK(run_item(make, DropTokens{{0, 20}}, options, item).score.right());
      }
    }
  }
}

TEST_CASE("a policy that keeps everything scores exactly as dense") {
  Random random(11);
  for (int i = 0; i < 5; ++i) {
    const NaiveLlama model = random_llama(random);
    const auto ids = [&](std::size_t count) {
      std::vector<TokenId> drawn(count);
      for (TokenId& id : drawn) id = static_cast<TokenId>(random.integer(0, model.vocab_size - 1));
      return drawn;
    };
    const Item item{{}, {{ids(12), ids(2), ids(3)}, {ids(4), {}, ids(5)}}};
    auto make = [&](std::size_t) { return NaiveGraph(model); };
    const ItemResult dense = run_item(make, parse_policy("none", nothing), item);
    for (const char* policy : {"0:1.0", "0:1.0/max~3", "random=1.0", "first_and_recent=0,1000", "fast_kv=0:1.0"}) {
      CAPTURE(policy);
      const ItemResult result = run_item(make, parse_policy(policy, nothing), item);
      CHECK(result.score.log_probability == dense.score.log_probability);
      CHECK(result.score.worst_rank == dense.score.worst_rank);
      CHECK(result.costs.rows_computed == dense.costs.rows_computed);
    }
  }
}

TEST_CASE("scores are those of the logits before each of the last turn's answer tokens") {
  const Item item = items(Task::second, {})[0];
  auto make = make_lookup;
  std::vector<TokenId> scored;
  AnswerScore score;
  const ItemResult result =
      run_item(make, parse_policy("none", nothing), item, [&](std::span<const float> logits, TokenId id) {
        scored.push_back(id);
        score.add(logits, id);
      });
  CHECK(scored == item.turns[1].answer);
  CHECK(result.score.log_probability == score.log_probability);
  CHECK(result.score.tokens == scored.size());
}

TEST_CASE("rows are counted over all turns, prefills and decode steps apart") {
  const Item item{{}, {{{1, 2, 3, 4, 5, 6, 7, 8}, {9, 9}, {1, 2}}, {{3, 3, 3, 3}, {}, {4, 5, 6}}}};
  auto make = [](std::size_t) { return LookupGraph(100); };
  const ItemCosts dense = run_item(make, parse_policy("none", nothing), item).costs;
  CHECK(dense.prompt_tokens == 8);
  CHECK(dense.rows_dense == 3 * (8 + 4));
  CHECK(dense.rows_computed == 3 * (8 + 4));
  CHECK(dense.decode_rows_computed == 3 * (2 + 2 + 2));  // the last answer token does not run
  CHECK(dense.ttft_ms > 0);
  CHECK(dense.total_ms >= dense.ttft_ms);
  CHECK(dense.cache_bytes == 0);

  // Half of 8 after layer 0, then of 16; the second turn revives what it selects, which the first one dropped.
  const ItemCosts pruned = run_item(make, parse_policy("0:4+cached", nothing), item).costs;
  CHECK(pruned.rows_dense == dense.rows_dense);
  CHECK(pruned.rows_computed < dense.rows_computed);
  CHECK(pruned.cache_bytes > 0);
}

TEST_CASE("GemFilter's first pass counts, and its second runs the chosen tokens only") {
  const Item item{{}, {{{1, 2, 3, 4, 5, 6, 7, 8}, {}, {1, 2}}}};
  auto make = [](std::size_t) { return LookupGraph(100); };
  const ItemCosts costs = run_item(make, parse_policy("gem_filter=1:3", nothing), item).costs;
  CHECK(costs.prompt_tokens == 8);
  CHECK(costs.rows_dense == 3 * 8);
  CHECK(costs.rows_computed == 2 * 8 + 3 * 3);
}

TEST_CASE("an item without turns or without an answer is refused") {
  auto make = make_lookup;
  CHECK_THROWS_AS(run_item(make, KeepAll{}, {.context_size = 4}, Item{}), Error);
  CHECK_THROWS_AS(run_item(make, KeepAll{}, {.context_size = 4}, Item{{}, {{{1}, {}, {}}}}), Error);
}
