// What `lazyllm perplexity` measures: how well the model, dense or pruned, predicts a text.
#pragma once

#include "model_file.hpp"
#include "options.hpp"

#include <lazyllm/eval/continuation.hpp>
#include <lazyllm/eval/perplexity.hpp>
#include <lazyllm/simd/isa.hpp>

#include <cstddef>
#include <optional>
#include <string>

namespace program {

struct PerplexityReport {
  std::string model;
  std::string prune;
  std::string base;  // the base file's name; empty: compared with the dense model, or with nothing
  std::size_t threads = 0;
  lazyllm::Isa isa = lazyllm::Isa::portable;
  std::size_t chunks = 0;
  std::size_t chunk_tokens = 0;
  lazyllm::Perplexity perplexity;
  std::optional<lazyllm::Perplexity> reference;          // of the dense model or the base, where compared with one
  std::optional<lazyllm::ContinuationScore> divergence;  // over all scored tokens
};

/// Throws lazyllm::Error, before any work where the request is wrong.
PerplexityReport run_perplexity(const PerplexityCommand& command, const Progress& progress, const Note& on_note);

/// Lines for people, or one JSON object on one line.
std::string perplexity_report(const PerplexityReport& report, bool json);

}  // namespace program
