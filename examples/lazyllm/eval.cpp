#include "eval.hpp"

#include "eval_file.hpp"
#include "eval_report.hpp"
#include "formatted.hpp"
#include "input.hpp"
#include "task_source.hpp"

#include <lazyllm/eval/any_policy.hpp>
#include <lazyllm/eval/comparison.hpp>
#include <lazyllm/eval/item.hpp>
#include <lazyllm/eval/summary.hpp>
#include <lazyllm/llama/recommended.hpp>
#include <lazyllm/parallel/cpu_count.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

namespace program {
namespace {

using namespace lazyllm;

/// The dense model first; a policy that is named twice runs once.
std::vector<PolicySpec> policy_specs(const EvalCommand& command, const ModelFile& model,
                                     const PresetSchedules& presets) {
  std::vector<PolicySpec> specs = {{.text = dense_policy}};
  for (const std::string& text : command.policies) {
    if (std::ranges::find(specs, text, &PolicySpec::text) == specs.end()) {
      specs.push_back(parse_policy(text, presets, command.seed));
    }
  }
  const PruningShape shape{model.config.layers, model.config.heads, 1};
  for (const PolicySpec& spec : specs) {
    AnyPolicy(spec.policy).prepare(shape);
    if (spec.filter) StepSchedule({*spec.filter}).check(shape.layer_count, shape.head_count);
  }
  return specs;
}

/// What must be the same for records to stand in one file.
std::string run_line(const EvalCommand& command, const ModelFile& model, const PresetSchedules& presets,
                     const TaskSource& source, std::size_t threads) {
  std::string schedules;
  for (const StepSchedule& schedule : presets.schedules) {
    schedules += (schedules.empty() ? "" : "; ") + schedule_text(schedule);
  }
  const nlohmann::ordered_json object = {{"run", "lazyllm eval 1"},
                                         {"model", command.model.filename().string()},
                                         {"model_bytes", model.file.bytes().size()},
                                         {"text", hexadecimal(source.text_checksum())},
                                         {"seed", command.seed},
                                         {"own_words", command.own_words},
                                         {"presets", schedules},
                                         {"isa", name(active_isa())},
                                         {"threads", threads}};
  return object.dump();
}

/// Tells how far the run is and how long the rest will take, from the time that each token of a prompt took so far.
class Pace {
 public:
  Pace(const Progress& progress, std::uint64_t tokens) : progress_(progress), total_(tokens) {}

  void show() const {
    if (done_ == 0) return progress_("measuring", 0, total_);
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    const double left = seconds / static_cast<double>(done_) * static_cast<double>(total_ - done_);
    progress_(formatted("measuring, about %.0f min left", left / 60), done_, total_);
  }
  void add(std::uint64_t tokens) { done_ += tokens; }

 private:
  using Clock = std::chrono::steady_clock;
  const Progress& progress_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
  Clock::time_point start_ = Clock::now();
};

}  // namespace

EvalReport run_eval(const EvalCommand& command, const Progress& progress, const Note& on_note) {
  const ModelFile model(command.model);
  const ModelPresets presets = model.presets();
  const std::vector<PolicySpec> specs = policy_specs(command, model, presets.schedules);
  const TaskSource source(model, command.texts, {.seed = command.seed, .own_words = command.own_words}, on_note);
  const std::vector<ItemKey> keys = source.keys(command.tasks, command.lengths, command.depths, command.items);
  for (const PolicySpec& spec : specs) {
    if (spec.preset) on_note(spec.text + ": " + presets.source);
  }
  ThreadPool pool(command.threads.value_or(cpu_count()));
  RecordFile file;
  if (!command.directory.empty()) {
    std::filesystem::create_directories(command.directory);
    file = RecordFile(command.directory / "records.jsonl",
                      run_line(command, model, presets.schedules, source, pool.concurrency()));
  }

  const auto missing = [&](const ItemKey& key, const PolicySpec& spec) { return file.find(key, spec.text) == nullptr; };
  std::uint64_t tokens_left = 0;
  for (const ItemKey& key : keys) {
    for (const PolicySpec& spec : specs) tokens_left += missing(key, spec) ? key.length : 0;
  }
  if (tokens_left != 0) {
    ModelMaker make_graph{model.load_weights(pool, progress), pool};
    Pace pace(progress, tokens_left);
    for (const ItemKey& key : keys) {
      pace.show();
      run_policies(
          make_graph, source.make(key), std::span(specs), [&](const PolicySpec& spec) { return missing(key, spec); },
          [&](Record record) {
            file.append(std::move(record));
            pace.add(key.length);
            pace.show();
          });
    }
    progress("measuring", tokens_left, tokens_left);
  }

  EvalReport report{command.model.filename().string(),
                    pool.concurrency(),
                    active_isa(),
                    summary_rows(file.records(), specs, command.tasks),
                    {}};
  for (const std::size_t length : command.lengths) {
    for (SummaryRow& row : summary_rows(file.records(), specs, command.tasks, length)) {
      report.by_length.push_back(std::move(row));
    }
  }
  if (!command.directory.empty()) {
    write_text(command.directory / "table.md", eval_markdown(report));
    write_text(command.directory / "table.csv", eval_csv(report));
  }
  return report;
}

}  // namespace program
