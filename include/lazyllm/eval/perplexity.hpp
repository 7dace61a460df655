// Perplexity of a text in chunks: how well a model, dense or pruned, predicts each token from those before it.
// The text is cut into chunks of one size, each a context of its own; the second half of each is scored.
// Source: the definition; chunks, halves and the begin token as in llama.cpp's perplexity program.
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/eval/logits.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/text/tokenizer.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lazyllm::inline v0 {

/// exp of the mean negative log-probability, over any number of tokens.
class Perplexity {
 public:
  void add(double log_probability) {
    ++tokens_;
    sum_ -= log_probability;
    squares_ += log_probability * log_probability;
  }

  [[nodiscard]] std::size_t tokens() const { return tokens_; }
  /// 1 for no tokens.
  [[nodiscard]] double value() const { return tokens_ == 0 ? 1 : std::exp(mean()); }
  /// One standard error, taking the tokens as independent; 0 for fewer than 2.
  [[nodiscard]] double error() const {
    if (tokens_ < 2) return 0;
    const double variance = squares_ / static_cast<double>(tokens_) - mean() * mean();
    return variance > 0 ? std::sqrt(variance / static_cast<double>(tokens_ - 1)) * value() : 0;
  }

 private:
  [[nodiscard]] double mean() const { return sum_ / static_cast<double>(tokens_); }

  std::size_t tokens_ = 0;
  double sum_ = 0;
  double squares_ = 0;
};

/// The text's tokens in whole chunks of `chunk_tokens`; what is left over is not used. Where the tokenizer puts a begin
/// token before texts, it stands in the place of each chunk's first token. Control tokens spelled out in the text are
/// text. Throws Error (invalid_argument) for chunks of fewer than 4 tokens or a text shorter than one.
[[nodiscard]] inline std::vector<std::vector<TokenId>> text_chunks(std::string_view text, const Tokenizer& tokenizer,
                                                                   std::size_t chunk_tokens) {
  if (chunk_tokens < 4) {
    throw Error(ErrorCode::invalid_argument, "chunks of " + std::to_string(chunk_tokens) + " tokens: the least are 4");
  }
  const std::vector<TokenId> ids = tokenizer.encode(text, {.parse_special = false});
  if (ids.size() < chunk_tokens) {
    throw Error(ErrorCode::invalid_argument, "the text has " + std::to_string(ids.size()) +
                                                 " tokens, fewer than a chunk of " + std::to_string(chunk_tokens));
  }
  const std::vector<TokenId> empty = tokenizer.encode("");
  const bool begins = !empty.empty() && tokenizer.bos() == empty.front();
  std::vector<std::vector<TokenId>> chunks;
  for (auto at = ids.begin(); ids.end() - at >= static_cast<std::ptrdiff_t>(chunk_tokens);) {
    const auto end = at + static_cast<std::ptrdiff_t>(chunk_tokens);
    chunks.emplace_back(at, end);
    if (begins) chunks.back().front() = *tokenizer.bos();
    at = end;
  }
  return chunks;
}

/// The first scored position of a chunk: the token after it is the first one that is predicted.
[[nodiscard]] constexpr std::size_t first_scored(std::size_t chunk_tokens) { return chunk_tokens / 2; }

/// Called for each scored position in order, with the logits [vocab_size] after it and the token that follows.
template <class F>
concept ScoredCallback = std::invocable<F&, std::span<const float>, TokenId>;

/// A chunk under the dense model, all rows at once, without a session. The graph must be fresh.
template <LanguageGraph Graph, ScoredCallback OnScored>
void score_chunk(Graph& graph, std::span<const TokenId> chunk, OnScored&& on_scored) {
  const std::size_t first = first_scored(chunk.size());
  std::vector<TokenIndex> tokens(chunk.size());
  std::iota(tokens.begin(), tokens.end(), TokenIndex{0});
  AlignedBuffer<float> buffer(chunk.size() * graph.hidden_dim());
  const Rows hidden(buffer.data(), chunk.size(), graph.hidden_dim());
  graph.embed(chunk, hidden);
  for (LayerIndex layer = 0; layer < graph.layer_count(); ++layer) {
    const bool last = layer + 1 == graph.layer_count();
    graph.run_layer(LayerStep{.layer = layer,
                              .rows = tokens,
                              .keys = tokens,
                              .outputs = last ? chunk.size() - first : chunk.size(),
                              .hidden = hidden,
                              .scores = {}});
  }
  constexpr std::size_t tile = 32;  // rows whose logits are held at once
  AlignedBuffer<float> logits(tile * graph.vocab_size());
  for (std::size_t begin = first; begin + 1 < chunk.size(); begin += tile) {
    const std::size_t count = std::min(tile, chunk.size() - 1 - begin);
    const Rows rows(logits.data(), count, graph.vocab_size());
    graph.project(hidden.middle_rows(begin, count), rows);
    for (std::size_t r = 0; r < count; ++r) on_scored(std::span<const float>(rows.row(r)), chunk[begin + r + 1]);
  }
}

/// A chunk under a policy: the first half is a prompt, the rest is decoded token by token. The session must be fresh
/// and hold the chunk. Under a policy that keeps everything the logits are those of the dense model, bit for bit.
template <LanguageGraph Graph, PruningPolicy Policy, ScoredCallback OnScored>
void score_chunk(LazySession<Graph, Policy>& session, std::span<const TokenId> chunk, OnScored&& on_scored) {
  const std::size_t first = first_scored(chunk.size());
  std::span<const float> logits = session.prefill(chunk.first(first + 1));
  for (std::size_t position = first; position + 1 < chunk.size(); ++position) {
    if (position != first) logits = session.decode(chunk[position]);
    on_scored(logits, chunk[position + 1]);
  }
}

}  // namespace lazyllm::inline v0
