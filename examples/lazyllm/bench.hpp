// What `lazyllm bench` measures: tokens per second of prompts and of generated tokens, as llama-bench does.
#pragma once

#include "model_file.hpp"
#include "options.hpp"

#include <lazyllm/simd/isa.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace program {

enum class BenchKind { prefill, decode };

/// One line of the result.
struct BenchRow {
  BenchKind kind = BenchKind::prefill;
  std::size_t tokens = 0;                 // timed
  std::size_t depth = 0;                  // context before them
  std::string prune;                      // as the user named it
  std::vector<double> tokens_per_s = {};  // one a repeat
  std::size_t rows_computed = 0;          // by one repeat's timed steps, over all layers
  std::uint64_t peak_rss_bytes = 0;       // where the system can forget an older peak, else of all rows so far
};

struct BenchReport {
  std::string model;
  std::size_t threads = 0;
  lazyllm::Isa isa = lazyllm::Isa::portable;
  std::vector<BenchRow> rows;
};

/// Loads the model once and measures every row: random token ids, one warm-up, then the repeats, each on a fresh graph
/// and session. Dense and pruned take turns. Throws lazyllm::Error, before any work where a row exceeds the context.
BenchReport run_bench(const BenchCommand& command, const Progress& progress, const Note& on_note);

}  // namespace program
