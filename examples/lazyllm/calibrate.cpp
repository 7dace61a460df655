#include "calibrate.hpp"

#include "eval_report.hpp"
#include "formatted.hpp"
#include "input.hpp"
#include "task_source.hpp"

#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/any_policy.hpp>
#include <lazyllm/eval/calibration.hpp>
#include <lazyllm/eval/comparison.hpp>
#include <lazyllm/eval/summary.hpp>
#include <lazyllm/parallel/cpu_count.hpp>
#include <lazyllm/simd/isa.hpp>

#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace program {
namespace {

using namespace lazyllm;

/// Opened at once, so that a wrong path shows before any work; the old file stays until a new one is whole.
class PresetsWriter {
 public:
  explicit PresetsWriter(std::filesystem::path path) : path_(std::move(path)), part_(path_) {
    part_ += ".part";
    write_text(part_, "");
  }
  ~PresetsWriter() {
    std::error_code ignored;
    std::filesystem::remove(part_, ignored);
  }
  PresetsWriter(const PresetsWriter&) = delete;
  PresetsWriter& operator=(const PresetsWriter&) = delete;

  void write(const CalibrationReport& report) {
    write_text(part_, presets_json(report));
    std::filesystem::rename(part_, path_);
  }

 private:
  std::filesystem::path path_;
  std::filesystem::path part_;
};

/// The dense model and the presets on the items; nothing where it was interrupted.
std::vector<SummaryRow> measure_held_out(const CalibrationReport& report, ModelMaker& make_graph,
                                         std::span<const Item> items, const Progress& progress,
                                         const std::function<bool()>& interrupted) {
  std::vector<PolicySpec> specs = {{.text = dense_policy}};
  for (const auto& [preset, word] : preset_names) specs.push_back(parse_policy(word, report.calibration.presets));
  std::vector<Record> records;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (interrupted()) return {};
    progress("measuring on other items", i, items.size());
    run_policies(
        make_graph, items[i], std::span<const PolicySpec>(specs), [](const PolicySpec&) { return true; },
        [&](Record record) { records.push_back(std::move(record)); });
  }
  progress("measuring on other items", items.size(), items.size());
  return summary_rows(records, specs, report.tasks);
}

}  // namespace

CalibrationReport run_calibrate(const CalibrateCommand& command, const Progress& progress, const Note& on_note,
                                const std::function<bool()>& interrupted) {
  const ModelFile model(command.model);
  const TaskSource source(model, command.texts, {.seed = command.seed, .continuation_tokens = 32}, on_note);
  std::vector<Item> items;
  for (const ItemKey& key :
       source.keys(command.tasks, command.lengths, default_depths, command.items + command.held_out)) {
    items.push_back(source.make(key));
  }
  const std::size_t kinds = command.tasks.size() * command.lengths.size();
  const std::span<const Item> seen(items.data(), kinds * command.items);
  const std::span<const Item> held_out = std::span<const Item>(items).subspan(seen.size());
  PresetsWriter writer(command.output.empty() ? presets_path(command.model) : command.output);

  ThreadPool pool(command.threads.value_or(cpu_count()));
  ModelMaker make_graph{model.load_weights(pool, progress), pool};
  CalibrationReport report{.model = command.model.filename().string(),
                           .fingerprint = model.fingerprint(),
                           .options = command.options,
                           .tasks = command.tasks,
                           .lengths = command.lengths,
                           .seed = command.seed,
                           .threads = pool.concurrency(),
                           .calibration = {},
                           .held_out = {}};
  report.options.probe_items = kinds;  // one of each kind
  std::size_t tried = 0;
  const auto on_dense_item = [&](std::size_t done) {
    progress("running the dense model", done, seen.size());
    if (interrupted()) throw Error(ErrorCode::limit, "interrupted before a schedule was tried; nothing was stored");
  };
  const auto on_trial = [&](const Trial& trial) {
    progress("trying " + schedule_text(trial.schedule), ++tried, report.options.most_trials + 1);
    return !interrupted();
  };
  report.calibration = calibrate(make_graph, model.config, seen, report.options, on_trial, on_dense_item);
  progress("trying", 1, 1);
  report.finished = !interrupted();
  writer.write(report);
  if (report.finished && !held_out.empty()) {
    report.held_out = measure_held_out(report, make_graph, held_out, progress, interrupted);
    writer.write(report);
  }
  return report;
}

std::string calibration_markdown(const CalibrationReport& report) {
  const Calibration& calibration = report.calibration;
  std::string text = formatted(
      "%zu schedules tried on %zu items%s\n\n| preset | schedule | work | loss | limit |\n|---|---|---|---|---|\n",
      calibration.trials.size(), calibration.items, report.finished ? "" : ", interrupted");
  for (const auto& [preset, word] : preset_names) {
    const double limit = loss_limit(report.options, preset);
    const Trial best = best_within(calibration.trials, limit, calibration.items);
    text += "| " + std::string(word) + " | `" + schedule_text(best.schedule) +
            formatted("` | %.1f %% | %.4f | %.4f |\n", 100 * best.work, best.loss, limit);
  }
  if (report.held_out.empty()) return text;
  return text + "\nOn other items: " + eval_markdown({report.model, report.threads, active_isa(), report.held_out, {}});
}

}  // namespace program
