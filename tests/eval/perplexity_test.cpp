// Perplexity: the number, the chunks, and which positions of a chunk are scored, dense and through a session.
#include <doctest/doctest.h>
#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/perplexity.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/top_k_policy.hpp>

#include "support/eval_text.hpp"
#include "support/naive_graph.hpp"
#include "support/naive_llama.hpp"
#include "support/random_model.hpp"
#include "support/tokenizer_files.hpp"

#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

std::vector<TokenId> random_ids(Random& random, const NaiveLlama& model, std::size_t count) {
  std::vector<TokenId> ids(count);
  for (TokenId& id : ids) id = static_cast<TokenId>(random.integer(0, model.vocab_size - 1));
  return ids;
}

}  // namespace

TEST_CASE("perplexity is the inverse of the geometric mean of the probabilities, with its standard error") {
  Perplexity perplexity;
  CHECK(perplexity.value() == 1);
  CHECK(perplexity.error() == 0);
  for (const double p : {0.5, 0.125, 0.5, 0.125}) perplexity.add(std::log(p));
  CHECK(perplexity.tokens() == 4);
  CHECK(perplexity.value() == doctest::Approx(4));
  // Mean 2 ln 2, variance ln^2 2; the error of the mean of 4 over 4 - 1, times the value.
  CHECK(perplexity.error() == doctest::Approx(4 * std::log(2.0) / std::sqrt(3.0)));
}

TEST_CASE("chunks are whole, follow each other, and start with the begin token where the file has one") {
  const std::vector<TokenId> ids = byte_tokenizer().encode(natural_text);
  const auto chunks = text_chunks(natural_text, byte_tokenizer(), 50);
  REQUIRE(chunks.size() == ids.size() / 50);
  for (std::size_t c = 0; c < chunks.size(); ++c) {
    for (std::size_t i = 0; i < 50; ++i) REQUIRE(chunks[c][i] == ids[c * 50 + i]);
  }
  auto metadata = ::test::tokenizer_metadata(::test::synthetic_vocabulary(), "gpt-2");
  metadata.set("tokenizer.ggml.add_bos_token", true).set("tokenizer.ggml.bos_token_id", std::uint32_t{7});
  const auto begun = text_chunks(natural_text, Tokenizer::from_gguf(metadata.file()), 50);
  REQUIRE(begun.size() == (ids.size() + 1) / 50);
  for (std::size_t c = 0; c < begun.size(); ++c) {
    CHECK(begun[c][0] == 7);
    for (std::size_t i = 1; i < 50; ++i) REQUIRE(begun[c][i] == ids[c * 50 + i - 1]);
  }
}

TEST_CASE("a text shorter than a chunk, and chunks of less than 4 tokens, are refused with their numbers") {
  CHECK_THROWS_WITH_AS(text_chunks("one", byte_tokenizer(), 512), doctest::Contains("512"), Error);
  CHECK_THROWS_WITH_AS(text_chunks(natural_text, byte_tokenizer(), 3), doctest::Contains("3 tokens"), Error);
}

TEST_CASE("the second half of a chunk is scored, and dense logits are those of the naive model") {
  Random random(5);
  for (const std::size_t size : {4u, 9u, 40u, 75u}) {
    const NaiveLlama model = random_llama(random);
    const std::vector<TokenId> chunk = random_ids(random, model, size);
    const std::vector<Vector> expected = naive_dense(model, {chunk.begin(), chunk.end()});
    NaiveGraph graph(model);
    std::size_t position = size / 2;
    score_chunk(graph, chunk, [&](std::span<const float> logits, TokenId next) {
      REQUIRE(position + 1 < size);
      CHECK(next == chunk[position + 1]);
      for (std::size_t i = 0; i < logits.size(); ++i) {
        // The graph hands float rows from layer to layer: 6 layers round a sum of that many terms to 2^-24.
        REQUIRE(std::abs(static_cast<double>(logits[i]) - expected[position][i]) <= 1e-4);
      }
      ++position;
    });
    CHECK(position + 1 == size);
  }
}

TEST_CASE("under a policy that keeps everything a session gives the dense logits bit for bit, under another not") {
  Random random(6);
  for (int i = 0; i < 4; ++i) {
    NaiveLlama model = random_llama(random);
    while (model.layers.size() < 2) model = random_llama(random);
    const std::vector<TokenId> chunk = random_ids(random, model, 24);
    NaiveGraph graph(model);
    std::vector<std::vector<float>> dense;
    score_chunk(graph, chunk,
                [&](std::span<const float> logits, TokenId) { dense.emplace_back(logits.begin(), logits.end()); });
    for (const char* text : {"0:1.0", "0:3"}) {
      NaiveGraph other(model);
      LazySession session(other, TopKPolicy<>(MeanOverHeads{}, parse_schedule(text)), {.context_size = 24});
      std::size_t at = 0;
      std::size_t equal = 0;
      score_chunk(session, chunk, [&](std::span<const float> logits, TokenId next) {
        CHECK(next == chunk[13 + at]);
        equal += std::ranges::equal(logits, dense[at++]) ? 1 : 0;
      });
      CHECK(at == dense.size());
      CHECK((equal == at) == (std::string(text) == "0:1.0"));
    }
  }
}
