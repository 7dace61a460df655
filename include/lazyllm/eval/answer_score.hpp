// How a model does on a known answer: log-probability, rank, and whether greedy generation gives exactly it.
// The answer is teacher-forced, token by token; greedy generation gives it if and only if every token is the likeliest.
// Source: this library's.
#pragma once

#include <lazyllm/core/types.hpp>
#include <lazyllm/eval/logits.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace lazyllm::inline v0 {

struct AnswerScore {
  std::size_t tokens = 0;
  double log_probability = 0;  ///< of the whole answer, in nats
  std::size_t worst_rank = 0;  ///< of any of its tokens; 0: greedy generation gives the answer

  /// Greedy generation gives the answer.
  [[nodiscard]] bool right() const { return tokens != 0 && worst_rank == 0; }

  /// The answer's next token, and the logits before it.
  void add(std::span<const float> logits, TokenId id) {
    ++tokens;
    log_probability += lazyllm::log_probability(logits, id);
    worst_rank = std::max(worst_rank, rank_of(logits, id));
  }
};

}  // namespace lazyllm::inline v0
