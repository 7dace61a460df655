// What `lazyllm generate` does between the command line and the report.
#pragma once

#include "model_file.hpp"
#include "options.hpp"

#include <lazyllm/core/types.hpp>
#include <lazyllm/simd/isa.hpp>
#include <lazyllm/text/generator.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace program {

/// One decision of the policy: how many tokens, and with --trace which, entered layer + 1.
struct Kept {
  std::size_t step;
  lazyllm::LayerIndex layer;
  std::size_t count;
  std::vector<lazyllm::TokenIndex> indices;
};

struct GenerateReport {
  std::size_t prompt_tokens = 0;
  lazyllm::Generation generation;
  std::size_t rows_computed = 0;  // in the prefill, over all layers
  std::size_t rows_dense = 0;
  std::size_t decode_rows_computed = 0;
  std::vector<Kept> kept;
  std::size_t aux_bytes = 0;
  std::size_t kv_bytes = 0;
  std::uint64_t peak_rss_bytes = 0;
  lazyllm::Isa isa = lazyllm::Isa::portable;
  std::size_t threads = 0;
};

/// Where the run's output goes while it runs.
struct Output {
  std::function<bool(std::string_view)> on_text;
  std::function<void(std::string_view)> on_note;
  Progress on_progress;
};

/// Loads the model and generates. Throws lazyllm::Error.
GenerateReport run_generate(const GenerateCommand& options, const Output& output);

}  // namespace program
