// The command line of the program lazyllm as a struct for each command.
#pragma once

#include <lazyllm/eval/calibration.hpp>
#include <lazyllm/eval/task.hpp>
#include <lazyllm/graph/session_options.hpp>
#include <lazyllm/llama/recommended.hpp>
#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/text/sampler.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace program {

/// A pruning schedule as the user names it: `none` and LAYER:KEEP lists are known at once, `safe`, `auto` and `fast`
/// only with the model.
using PruneSpec = std::variant<lazyllm::StepSchedule, lazyllm::Preset>;

/// How decode steps prune: the prefill's schedule, a schedule of their own, or the prefill's without revival.
struct SameAsPrefill {};
struct Cached {};
using DecodePruneSpec = std::variant<SameAsPrefill, Cached, PruneSpec>;

/// What a session is told of pruning beside the schedule, as SessionOptions has it, and which keys are evicted.
struct PruneLimits {
  lazyllm::AnyEviction eviction;
  std::optional<lazyllm::RevivalBudget> decode_revivals;  // none: no bound
  std::size_t dense_below = 0;
  lazyllm::RowFormat aux_rows = lazyllm::RowFormat::float32;

  void apply(lazyllm::SessionOptions& options) const {
    if (decode_revivals) options.decode_revivals = *decode_revivals;
    options.dense_below = dense_below;
    options.aux_rows = aux_rows;
  }
};

struct PromptText {
  std::string text;
};
struct PromptFile {
  std::filesystem::path path;  // "-" is standard input
};
struct PromptIds {
  std::filesystem::path path;
};

struct GenerateCommand {
  std::filesystem::path model;
  std::variant<PromptText, PromptFile, PromptIds> prompt;
  std::size_t max_tokens = 128;
  std::optional<std::size_t> threads;
  std::optional<std::size_t> context_size;
  lazyllm::SamplerOptions sampler;
  bool raw = false;
  bool ignore_end = false;
  PruneSpec prune;
  DecodePruneSpec decode_prune;
  PruneLimits limits;
  std::filesystem::path logits_file;  // empty: none
  bool trace = false;
  bool json = false;
};

enum class BenchFormat { markdown, csv, json };

struct BenchCommand {
  std::filesystem::path model;
  std::vector<std::size_t> prompt_tokens = {512};
  std::vector<std::size_t> generated_tokens = {128};
  std::vector<std::size_t> depths = {0};
  std::optional<std::size_t> threads;
  std::size_t repeats = 5;
  std::string prune_name = "none";
  PruneSpec prune;
  PruneLimits limits;
  BenchFormat format = BenchFormat::markdown;
};

/// Where in a document what is asked for stands.
inline const std::vector<double> default_depths = {0.1, 0.3, 0.5, 0.7, 0.9};

struct EvalCommand {
  std::filesystem::path model;
  std::vector<std::filesystem::path> texts;
  std::vector<lazyllm::Task> tasks = {lazyllm::Task::needle, lazyllm::Task::facts};
  std::vector<std::size_t> lengths = {1000, 2000, 4000};
  std::vector<double> depths = default_depths;
  std::vector<std::string> policies = {"auto"};
  std::size_t items = 20;
  std::uint64_t seed = 1;
  bool own_words = false;
  std::optional<std::size_t> threads;
  std::filesystem::path directory;  // empty: nothing is stored
};

struct PerplexityCommand {
  std::filesystem::path model;
  std::filesystem::path text;  // "-" is standard input
  std::size_t chunk_tokens = 512;
  std::optional<std::size_t> chunks;  // none: all
  std::string prune_name = "none";
  PruneSpec prune;
  PruneLimits limits;
  bool kl_divergence = false;
  std::filesystem::path base;       // compared with; empty: none
  std::filesystem::path save_base;  // empty: none
  bool json = false;
  std::optional<std::size_t> threads;
};

struct CalibrateCommand {
  std::filesystem::path model;
  std::vector<std::filesystem::path> texts;
  lazyllm::CalibrationOptions options;
  std::vector<lazyllm::Task> tasks = {lazyllm::Task::needle, lazyllm::Task::facts, lazyllm::Task::continuation};
  std::vector<std::size_t> lengths = {1000, 2000};
  std::size_t items = 5;     // of each task and length, that the search sees
  std::size_t held_out = 5;  // that it does not
  std::uint64_t seed = 1;
  std::optional<std::size_t> threads;
  std::filesystem::path output;  // empty: beside the model
};

using Command = std::variant<int, GenerateCommand, BenchCommand, EvalCommand, PerplexityCommand, CalibrateCommand>;

/// The command, or the exit status when the command line is already the end of it (help, version, wrong usage).
Command parse_options(int argc, const char* const* argv);

}  // namespace program
