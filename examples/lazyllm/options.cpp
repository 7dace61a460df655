#include "options.hpp"

#include <lazyllm/core/error.hpp>
#include <lazyllm/version.hpp>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <limits>
#include <string>
#include <system_error>

namespace program {
namespace {

constexpr int wrong_usage = 2;

PruneSpec parse_prune(const std::string& text) {
  if (text == "auto") return Automatic{};
  return lazyllm::parse_schedule(text);
}

DecodePruneSpec parse_decode_prune(const std::string& text) {
  if (text == "same") return SameAsPrefill{};
  if (text == "cached") return Cached{};
  return parse_prune(text);
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

void add_generate_options(CLI::App& command, Options& options, std::string& prune, std::string& decode_prune) {
  constexpr std::uint64_t most_tokens = std::numeric_limits<std::int32_t>::max();
  command.add_option("-m,--model", options.model, "GGUF file")->required()->type_name("MODEL");

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
  command.add_option("-t,--threads", options.threads, "default: the CPUs that this process may use")
      ->check(whole_number(1, 1024));
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

  command.add_option("--prune", prune, "none, auto, or LAYER:KEEP[,...] with KEEP = 0.25, 512 or p30")
      ->capture_default_str()
      ->type_name("SPEC");
  command.add_option("--decode-prune", decode_prune, "same, none, cached, or a schedule of its own")
      ->capture_default_str()
      ->type_name("SPEC");

  command.add_option("--logits", options.logits_file, "file for the first step's logits, float32");
  command.add_flag("--trace", options.trace, "which tokens were kept, on standard error or in --json");
  command.add_flag("--json", options.json, "one JSON object on standard output instead of the text");
}

}  // namespace

std::variant<Options, int> parse_options(int argc, const char* const* argv) {
  Options options;
  std::string prune = "none";
  std::string decode_prune = "same";
  CLI::App app("LazyLLM: text generation on the CPU with dynamic token pruning", "lazyllm");
  app.set_version_flag("--version", "lazyllm " + std::string(lazyllm::version));
  app.require_subcommand(1);
  CLI::App* const generate = app.add_subcommand("generate", "continue a prompt or answer a message");
  add_generate_options(*generate, options, prune, decode_prune);
  try {
    app.parse(argc, argv);
    options.prune = as_usage("--prune", [&] { return parse_prune(prune); });
    options.decode_prune = as_usage("--decode-prune", [&] { return parse_decode_prune(decode_prune); });
    as_usage("sampling", [&] { return lazyllm::Sampler(options.sampler); });
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : wrong_usage;
  }
  return options;
}

}  // namespace program
