#include "eval.hpp"

#include "eval_file.hpp"
#include "eval_report.hpp"
#include "formatted.hpp"
#include "input.hpp"

#include <lazyllm/core/checksum.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/any_policy.hpp>
#include <lazyllm/eval/item.hpp>
#include <lazyllm/eval/item_run.hpp>
#include <lazyllm/eval/source_text.hpp>
#include <lazyllm/llama/recommended.hpp>
#include <lazyllm/parallel/cpu_count.hpp>
#include <lazyllm/text/chat_template.hpp>
#include <lazyllm/text/tokenizer.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>

namespace program {
namespace {

using namespace lazyllm;

constexpr std::size_t answer_slack = 32;  // items of one kind differ by the tokens of their answers

std::vector<ItemKey> item_keys(const EvalCommand& command) {
  std::vector<ItemKey> keys;
  for (std::size_t index = 0; index < command.items; ++index) {  // outermost: an interrupted run has some of everything
    for (const std::size_t length : command.lengths) {
      for (const Task task : command.tasks) {
        keys.push_back({task, length, command.depths[index % command.depths.size()], index});
      }
    }
  }
  return keys;
}

/// The dense model first; a policy that is named twice runs once.
std::vector<PolicySpec> policy_specs(const EvalCommand& command, const ModelFile& model) {
  std::vector<PolicySpec> specs = {parse_policy(dense_policy, model.config)};
  for (const std::string& text : command.policies) {
    if (std::ranges::find(specs, text, &PolicySpec::text) == specs.end()) {
      specs.push_back(parse_policy(text, model.config, command.seed));
    }
  }
  const PruningShape shape{model.config.layers, model.config.heads, 1};
  for (const PolicySpec& spec : specs) {
    AnyPolicy(spec.policy).prepare(shape);
    if (spec.filter) StepSchedule({*spec.filter}).check(shape.layer_count, shape.head_count);
  }
  return specs;
}

std::optional<ChatTemplate> chat_template(const GgufFile& gguf) {
  if (gguf.find("tokenizer.chat_template") == nullptr) return std::nullopt;
  return ChatTemplate::from_gguf(gguf);
}

std::string all_text(const std::vector<std::filesystem::path>& files) {
  std::string text;
  for (const std::filesystem::path& file : files) text += read_text(file) + "\n";
  return text;
}

/// What must be the same for records to stand in one file.
std::string run_line(const EvalCommand& command, const ModelFile& model, const std::string& text, std::size_t threads) {
  std::string presets;
  for (const Preset preset : {Preset::safe, Preset::balanced, Preset::fast}) {
    presets += (presets.empty() ? "" : "; ") + schedule_text(recommended_schedule(model.config, preset));
  }
  const nlohmann::ordered_json object = {
      {"run", "lazyllm eval 1"},
      {"model", command.model.filename().string()},
      {"model_bytes", model.file.bytes().size()},
      {"text", formatted("%016llx", static_cast<unsigned long long>(checksum(std::as_bytes(std::span(text)))))},
      {"seed", command.seed},
      {"own_words", command.own_words},
      {"presets", presets},
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

/// Runs what the file lacks of one item: the dense model once, then each policy.
class ItemRunner {
 public:
  ItemRunner(std::shared_ptr<const Weights> weights, ThreadPool& pool)
      : make_graph_{[weights = std::move(weights), &pool](std::size_t size) { return Model(weights, pool, size); }} {}

  void run(const Item& item, const std::vector<PolicySpec>& specs, RecordFile& file, Pace& pace) {
    const bool continuation = item.key.task == Task::continuation;
    std::vector<std::vector<float>> dense;  // of a continuation: the logits before each scored token
    for (const PolicySpec& spec : specs) {
      if (file.find(item.key, spec.text) != nullptr) continue;
      pace.show();
      const bool is_dense = spec.text == dense_policy;
      if (continuation && dense.empty()) {
        const ItemResult result =
            run_item(make_graph_, specs.front(), item,
                     [&](std::span<const float> logits, TokenId) { dense.emplace_back(logits.begin(), logits.end()); });
        if (is_dense) file.append({item.key, spec.text, result});
      }
      if (!continuation) {
        file.append({item.key, spec.text, run_item(make_graph_, spec, item)});
      } else if (!is_dense) {
        ContinuationScorer scorer;
        std::size_t position = 0;
        const ItemResult result = run_item(make_graph_, spec, item, [&](std::span<const float> logits, TokenId id) {
          scorer.add(dense[position++], logits, id);
        });
        file.append({item.key, spec.text, result, scorer.score()});
      }
      pace.add(item.key.length);
    }
  }

 private:
  std::function<Model(std::size_t)> make_graph_;
};

/// The rows of one length, or of all, in the order of the policies; all tasks together where there are several.
void add_rows(const EvalCommand& command, const std::vector<PolicySpec>& specs, const std::vector<Record>& records,
              std::optional<std::size_t> length, std::vector<SummaryRow>& rows) {
  std::vector<std::optional<Task>> tasks(command.tasks.begin(), command.tasks.end());
  tasks.emplace_back();
  for (const std::optional<Task>& task : tasks) {
    for (const PolicySpec& spec : specs) {
      if (auto row = summarise(records, spec.text, task, length)) rows.push_back(std::move(*row));
    }
  }
}

void write_file(const std::filesystem::path& path, const std::string& text) {
  if (!(std::ofstream(path, std::ios::binary) << text << std::flush)) {
    throw Error(ErrorCode::io, "cannot write " + path.string());
  }
}

}  // namespace

EvalReport run_eval(const EvalCommand& command, const Progress& progress,
                    const std::function<void(std::string_view)>& on_note) {
  const ModelFile model(command.model);
  const std::vector<PolicySpec> specs = policy_specs(command, model);
  const Tokenizer tokenizer = Tokenizer::from_gguf(model.gguf);
  const std::string text = all_text(command.texts);
  note_missing_bytes(tokenizer, text, "text", on_note);
  const SourceText source(text, tokenizer);
  const std::optional<ChatTemplate> chat = chat_template(model.gguf);
  const ItemMaker maker(source, tokenizer, chat ? &*chat : nullptr,
                        {.seed = command.seed, .own_words = command.own_words});
  const std::vector<ItemKey> keys = item_keys(command);
  for (std::size_t i = 0; i < std::min(keys.size(), command.lengths.size() * command.tasks.size()); ++i) {
    const std::size_t slack = keys[i].task == Task::continuation ? 0 : answer_slack;
    const std::size_t tokens = maker.make(keys[i]).context_size() + slack;  // one of each kind, before any work
    if (tokens > model.config.context_length) {
      throw Error(ErrorCode::limit, "task " + std::string(name(keys[i].task)) + " with prompts of " +
                                        std::to_string(keys[i].length) + " tokens needs a context of " +
                                        std::to_string(tokens) + ", the model has " +
                                        std::to_string(model.config.context_length));
    }
  }
  ThreadPool pool(command.threads.value_or(cpu_count()));
  RecordFile file;
  if (!command.directory.empty()) {
    std::filesystem::create_directories(command.directory);
    file = RecordFile(command.directory / "records.jsonl", run_line(command, model, text, pool.concurrency()));
  }

  std::uint64_t tokens_left = 0;
  for (const ItemKey& key : keys) {
    for (const PolicySpec& spec : specs) tokens_left += file.find(key, spec.text) == nullptr ? key.length : 0;
  }
  if (tokens_left != 0) {
    ItemRunner runner(model.load_weights(pool, progress), pool);
    Pace pace(progress, tokens_left);
    for (const ItemKey& key : keys) runner.run(maker.make(key), specs, file, pace);
    progress("measuring", tokens_left, tokens_left);
  }

  EvalReport report{command.model.filename().string(), pool.concurrency(), active_isa(), {}, {}};
  add_rows(command, specs, file.records(), std::nullopt, report.rows);
  for (const std::size_t length : command.lengths) add_rows(command, specs, file.records(), length, report.by_length);
  if (!command.directory.empty()) {
    write_file(command.directory / "table.md", eval_markdown(report));
    write_file(command.directory / "table.csv", eval_csv(report));
  }
  return report;
}

}  // namespace program
