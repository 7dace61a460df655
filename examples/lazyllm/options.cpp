#include "options.hpp"

#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/any_policy.hpp>
#include <lazyllm/version.hpp>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <system_error>
#include <vector>

namespace program {
namespace {

constexpr int wrong_usage = 2;

PruneSpec parse_prune(const std::string& text) {
  if (const auto preset = lazyllm::preset_named(text)) return *preset;
  return lazyllm::parse_schedule(text);
}

DecodePruneSpec parse_decode_prune(const std::string& text) {
  if (text == "same") return SameAsPrefill{};
  if (text == "cached") return Cached{};
  return parse_prune(text);
}

/// What a preset brings along where the user says nothing.
void complete(PruneLimits& limits, const PruneSpec& prune) {
  if (!std::holds_alternative<lazyllm::Preset>(prune)) return;
  if (!limits.decode_revivals) limits.decode_revivals = lazyllm::recommended_decode_revivals;
  if (limits.dense_below == 0) limits.dense_below = lazyllm::recommended_dense_below;
}

/// What the library refuses here is wrong usage, not a run-time error.
template <class Parse>
auto as_usage(const std::string& option, Parse parse) {
  try {
    return parse();
  } catch (const lazyllm::Error& error) {
    throw CLI::ValidationError(option, error.what());
  }
}

/// A whole number in [least, most]; CLI11's own conversion would wrap a negative one around.
CLI::Validator whole_number(std::uint64_t least, std::uint64_t most) {
  const auto check = [least, most](const std::string& text) -> std::string {
    std::uint64_t value = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = result.ec == std::errc() && result.ptr == text.data() + text.size();
    if (whole && value >= least && value <= most) return "";
    return "'" + text + "' is not a whole number from " + std::to_string(least) + " to " + std::to_string(most);
  };
  return {check, "", "whole number"};
}

const std::map<std::string, lazyllm::RowFormat> row_formats = {{"float32", lazyllm::RowFormat::float32},
                                                               {"float16", lazyllm::RowFormat::float16},
                                                               {"bfloat16", lazyllm::RowFormat::bfloat16},
                                                               {"int8", lazyllm::RowFormat::int8}};

constexpr std::uint64_t most_tokens = std::numeric_limits<std::int32_t>::max();

/// What every command takes.
template <class Options>
void add_model_options(CLI::App& command, Options& options) {
  command.add_option("-m,--model", options.model, "GGUF file")->required()->type_name("MODEL");
  command.add_option("-t,--threads", options.threads, "default: the CPUs that this process may use")
      ->check(whole_number(1, 1024));
}

template <class Options>
void add_common_options(CLI::App& command, Options& options, std::string& prune) {
  add_model_options(command, options);
  command
      .add_option("--prune", prune,
                  "none, safe, auto, fast, or LAYER:KEEP[/SCORE][,...]: KEEP 0.25, 512, p30 or m0.9; SCORE mean or "
                  "max, then ^48 (rows), "
                  "~15 (neighbours); first4 and last32 protect tokens")
      ->capture_default_str()
      ->type_name("SPEC");
  command
      .add_option_function<std::string>(
          "--evict",
          [&options](const std::string& text) {
            options.limits.eviction = as_usage("--evict", [&] { return lazyllm::parse_eviction(text); });
          },
          "keys that leave the KV cache: window:4,1020 (the first and the recent stay), tova:512, h2o:512 or "
          "snapkv:0.25")
      ->default_str("none")
      ->type_name("SPEC");
  command
      .add_option_function<std::string>(
          "--decode-revivals",
          [&options](const std::string& text) {
            options.limits.decode_revivals =
                as_usage("--decode-revivals", [&] { return lazyllm::parse_revival_budget(text); });
          },
          "most tokens that a decode step revives for one layer, the best-scored; 8,16,0 is 8 for each of the first 16 "
          "tokens, then none; default: that with safe, auto and fast, else no bound")
      ->type_name("COUNT");
  command
      .add_option("--dense-below", options.limits.dense_below,
                  "nothing is pruned while the context has fewer tokens; 0 is 384 with safe, auto and fast")
      ->capture_default_str()
      ->check(whole_number(0, most_tokens));
  command
      .add_option_function<std::string>(
          "--aux-rows", [&options](const std::string& name) { options.limits.aux_rows = row_formats.at(name); },
          "what the Aux Cache stores hidden states as")
      ->default_str("float32")
      ->check(CLI::IsMember(row_formats));
}

void add_generate_options(CLI::App& command, GenerateCommand& options, std::string& prune, std::string& decode_prune) {
  add_common_options(command, options, prune);

  CLI::Option_group* const prompt = command.add_option_group("Prompt", "one of");
  prompt->add_option_function<std::string>(
      "-p,--prompt", [&options](const std::string& text) { options.prompt = PromptText{text}; }, "the prompt itself");
  prompt->add_option_function<std::string>(
      "-f,--file", [&options](const std::string& path) { options.prompt = PromptFile{path}; },
      "file with the prompt; - is standard input");
  prompt->add_option_function<std::string>(
      "--ids", [&options](const std::string& path) { options.prompt = PromptIds{path}; },
      "file with a JSON array of token ids; implies --raw");
  prompt->require_option(1);
  command.add_flag("--raw", options.raw, "no chat template around the text");

  command.add_option("-n,--max-tokens", options.max_tokens, "most tokens to generate")
      ->capture_default_str()
      ->check(whole_number(0, most_tokens));
  command
      .add_option("-c,--context", options.context_size,
                  "most tokens, prompt and generated; default: what is needed, up to the model's")
      ->check(whole_number(1, most_tokens));
  command.add_flag("--ignore-eos", options.ignore_end, "go on after an end token");

  lazyllm::SamplerOptions& sampler = options.sampler;
  command.add_option("--temp", sampler.temperature, "0 is greedy")->capture_default_str();
  command.add_option("--top-k", sampler.top_k, "0 is all")->capture_default_str()->check(whole_number(0, most_tokens));
  command.add_option("--top-p", sampler.top_p, "1 is all")->capture_default_str();
  command.add_option("--min-p", sampler.min_p, "0 is all")->capture_default_str();
  command.add_option("--repeat-penalty", sampler.repeat_penalty, "1 is none")->capture_default_str();
  command.add_option("-s,--seed", sampler.seed, "the same seed gives the same text")
      ->capture_default_str()
      ->check(whole_number(0, std::numeric_limits<std::uint64_t>::max()));

  command.add_option("--decode-prune", decode_prune, "same, none, cached, or a schedule of its own")
      ->capture_default_str()
      ->type_name("SPEC");

  command.add_option("--logits", options.logits_file, "file for the first step's logits, float32");
  command.add_flag("--trace", options.trace, "which tokens were kept, on standard error or in --json");
  command.add_flag("--json", options.json, "one JSON object on standard output instead of the text");
}

void add_bench_options(CLI::App& command, BenchCommand& options) {
  add_common_options(command, options, options.prune_name);
  const auto add_list = [&](const char* name, std::vector<std::size_t>& values, const char* what) {
    command.add_option(name, values, what)
        ->delimiter(',')
        ->capture_default_str()
        ->type_name("LIST")
        ->check(whole_number(0, most_tokens));
  };
  add_list("-p,--prompt-tokens", options.prompt_tokens, "a row for each: tokens of a prompt; 0 is no row");
  add_list("-n,--generated-tokens", options.generated_tokens, "a row for each, at each depth; 0 is no row");
  add_list("-d,--depth", options.depths, "context before the generated tokens; 0 is one token");
  command.add_option("-r,--repeats", options.repeats, "after one warm-up, each on a fresh session")
      ->capture_default_str()
      ->check(whole_number(1, 1'000'000));
  command
      .add_option_function<std::string>(
          "-o,--output",
          [&options](const std::string& name) {
            options.format = name == "json"  ? BenchFormat::json
                             : name == "csv" ? BenchFormat::csv
                                             : BenchFormat::markdown;
          },
          "a table, or for programs CSV or JSON")
      ->default_str("md")
      ->check(CLI::IsMember({"md", "csv", "json"}));
  command.footer("With --prune every row appears twice, dense and pruned.");
}

void check_rows(const BenchCommand& options) {
  const auto none = [](const std::vector<std::size_t>& counts) {
    return std::ranges::all_of(counts, [](std::size_t count) { return count == 0; });
  };
  if (none(options.prompt_tokens) && none(options.generated_tokens)) {
    throw CLI::ValidationError("-p, -n", "both are 0: nothing to measure");
  }
}

/// What commands on generated tasks take; `tasks` are the names.
template <class Options>
void add_task_options(CLI::App& command, Options& options, std::vector<std::string>& tasks) {
  add_model_options(command, options);
  command.add_option("-f,--file", options.texts, "natural text that the tasks are made of; several are joined")
      ->required()
      ->type_name("TEXT ...");
  for (const lazyllm::Task task : options.tasks) tasks.emplace_back(lazyllm::name(task));
  command
      .add_option("--tasks", tasks, "needle, keys, values, paraphrase, documents, facts, pairs, second, continuation")
      ->delimiter(',')
      ->capture_default_str()
      ->type_name("LIST");
  command.add_option("--lengths", options.lengths, "tokens of the prompts")
      ->delimiter(',')
      ->capture_default_str()
      ->type_name("LIST")
      ->check(whole_number(1, most_tokens));
  command.add_option("-s,--seed", options.seed, "the same seed gives the same items")
      ->capture_default_str()
      ->check(whole_number(0, std::numeric_limits<std::uint64_t>::max()));
}

std::vector<lazyllm::Task> parse_tasks(const std::vector<std::string>& names) {
  std::vector<lazyllm::Task> tasks;
  for (const std::string& name : names) {
    tasks.push_back(as_usage("--tasks", [&] { return lazyllm::task_named(name); }));
  }
  return tasks;
}

void add_eval_options(CLI::App& command, EvalCommand& options, std::vector<std::string>& tasks) {
  add_task_options(command, options, tasks);
  command.add_option("--depths", options.depths, "where in the document the answer stands; items take turns")
      ->delimiter(',')
      ->capture_default_str()
      ->type_name("LIST")
      ->check(CLI::Range(0.0, 1.0));
  command
      .add_option("--policies", options.policies,
                  "each a SPEC as of --prune, or random=SPEC, random=KEEP, static_pruning=LAYER:KEEP, "
                  "fast_kv=LAYER:KEEP, gem_filter=LAYER:KEEP[/SCORE], first_and_recent=4,1020; then maybe +cached "
                  "(nothing is revived in decode), +revive16 (at most 16 a layer and step), +tova:512 (evictions)")
      ->capture_default_str()
      ->type_name("POLICY ...");
  command.add_option("--items", options.items, "of each task and length")
      ->capture_default_str()
      ->check(whole_number(1, 1'000'000));
  command.add_flag("--own-words", options.own_words,
                   "the answer's first words are generated, as in a chat, not part of the prompt");
  command
      .add_option("-o,--output", options.directory,
                  "for records.jsonl, table.md and table.csv; a run that was interrupted goes on from there")
      ->type_name("DIRECTORY");
  command.footer("The dense model always runs, and everything is compared with it. docs/evaluation.md tells how.");
}

/// What can be checked without the model.
void check_eval(const EvalCommand& options) {
  for (const std::string& policy : options.policies) {
    as_usage("--policies", [&] { return lazyllm::parse_policy(policy, lazyllm::PresetSchedules{}); });
  }
}

void add_perplexity_options(CLI::App& command, PerplexityCommand& options) {
  add_common_options(command, options, options.prune_name);
  command.add_option("-f,--file", options.text, "the text; - is standard input")->required()->type_name("TEXT");
  command.add_option("-c,--context", options.chunk_tokens, "tokens of a chunk; its second half is scored")
      ->capture_default_str()
      ->check(whole_number(4, most_tokens));
  command.add_option("--chunks", options.chunks, "only the first of them; default: all")
      ->check(whole_number(1, most_tokens));
  CLI::Option* const dense =
      command.add_flag("--kl-divergence", options.kl_divergence, "compare with the dense model, token by token");
  command.add_option("--base", options.base, "compare with this run, which --save-base stored, token by token")
      ->type_name("FILE")
      ->excludes(dense);
  command
      .add_option("--save-base", options.save_base,
                  "store this run's logits (two bytes for each word of the vocabulary and scored token)")
      ->type_name("FILE");
  command.add_flag("--json", options.json, "one JSON object instead of the text");
}

void add_calibrate_options(CLI::App& command, CalibrateCommand& options, std::vector<std::string>& tasks) {
  add_task_options(command, options, tasks);
  CLI::Option_group* const loss =
      command.add_option_group("Loss", "of auto; half of it is that of safe, twice of fast");
  const auto add_limit = [&](const char* name, lazyllm::CalibrationLoss kind, const char* what) {
    loss->add_option_function<double>(
            name,
            [&options, kind](double limit) {
              options.options.loss = kind;
              options.options.limit = limit;
            },
            what)
        ->check(CLI::Range(0.0, 100.0));
  };
  add_limit("--kl", lazyllm::CalibrationLoss::divergence, "mean KL of the scored tokens; default: 0.1");
  add_limit("--accuracy-loss", lazyllm::CalibrationLoss::lost_answers, "share of the items whose right answer is lost");
  loss->require_option(0, 1);
  command.add_option("--items", options.items, "of each task and length, for the search")
      ->capture_default_str()
      ->check(whole_number(1, 1'000'000));
  command
      .add_option("--held-out", options.held_out,
                  "the same, that the search does not see: the result is measured there")
      ->capture_default_str()
      ->check(whole_number(0, 1'000'000));
  command.add_option("--trials", options.options.most_trials, "most schedules that are tried")
      ->capture_default_str()
      ->check(whole_number(1, 1'000'000));
  command
      .add_option("-o,--output", options.output,
                  "default: MODEL.lazyllm.json, where safe, auto and fast are looked for")
      ->type_name("FILE");
  command.footer(
      "Interrupted once (Ctrl-C), it stores the best so far and ends. docs/policies.md tells how it searches.");
}

}  // namespace

Command parse_options(int argc, const char* const* argv) {
  CLI::App app("LazyLLM: text generation on the CPU with dynamic token pruning", "lazyllm");
  app.set_version_flag("--version", "lazyllm " + std::string(lazyllm::version));
  app.require_subcommand(1);
  GenerateCommand generate;
  std::string prune = "none";
  std::string decode_prune = "same";
  add_generate_options(*app.add_subcommand("generate", "continue a prompt or answer a message"), generate, prune,
                       decode_prune);
  BenchCommand bench;
  CLI::App* const bench_app = app.add_subcommand("bench", "tokens per second on random token ids");
  add_bench_options(*bench_app, bench);
  EvalCommand eval;
  std::vector<std::string> eval_tasks;
  CLI::App* const eval_app = app.add_subcommand("eval", "accuracy and time of policies on generated tasks");
  add_eval_options(*eval_app, eval, eval_tasks);
  PerplexityCommand perplexity;
  CLI::App* const perplexity_app = app.add_subcommand("perplexity", "how well a text is predicted");
  add_perplexity_options(*perplexity_app, perplexity);
  CalibrateCommand calibrate;
  std::vector<std::string> calibrate_tasks;
  CLI::App* const calibrate_app = app.add_subcommand("calibrate", "find this model's safe, auto and fast schedules");
  add_calibrate_options(*calibrate_app, calibrate, calibrate_tasks);
  try {
    app.parse(argc, argv);
    if (bench_app->parsed()) {
      bench.prune = as_usage("--prune", [&] { return parse_prune(bench.prune_name); });
      complete(bench.limits, bench.prune);
      check_rows(bench);
      return bench;
    }
    if (perplexity_app->parsed()) {
      perplexity.prune = as_usage("--prune", [&] { return parse_prune(perplexity.prune_name); });
      complete(perplexity.limits, perplexity.prune);
      return perplexity;
    }
    if (eval_app->parsed()) {
      eval.tasks = parse_tasks(eval_tasks);
      check_eval(eval);
      return eval;
    }
    if (calibrate_app->parsed()) {
      calibrate.tasks = parse_tasks(calibrate_tasks);
      return calibrate;
    }
    generate.prune = as_usage("--prune", [&] { return parse_prune(prune); });
    generate.decode_prune = as_usage("--decode-prune", [&] { return parse_decode_prune(decode_prune); });
    if (std::holds_alternative<SameAsPrefill>(generate.decode_prune)) complete(generate.limits, generate.prune);
    as_usage("sampling", [&] { return lazyllm::Sampler(generate.sampler); });
    return generate;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : wrong_usage;
  }
}

}  // namespace program
