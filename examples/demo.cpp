// Answers one question about a long document twice, dense and with LazyLLM, and shows what the pruning did: both
// answers, both times to the first token, the rows computed, the tokens revived, and where the kept tokens lie.
// Exit status 0: both answers contain the fact that was placed in the document; 1: not, or an error; 2: wrong usage.
#include <lazyllm/lazyllm.hpp>

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace lazyllm;

constexpr std::string_view fact = "The secret number of the lighthouse is 7421.";
constexpr std::string_view question = "What is the secret number of the lighthouse?";
constexpr std::string_view right_answer = "7421";
constexpr double fact_place = 0.4;  // of the document
constexpr std::size_t answer_tokens = 32;

struct Options {
  std::filesystem::path model;
  std::filesystem::path document;
  std::string schedule = "auto";
  std::size_t document_tokens = 4000;
  std::size_t threads = cpu_count();
  std::size_t rounds = 2;
  bool json = false;
};

/// Token indices [begin, end).
struct TokenRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

struct Prompt {
  std::vector<TokenId> ids;
  TokenRange document;  // with the fact
  TokenRange fact;
};

struct Kept {
  LayerIndex layer;
  std::vector<TokenIndex> tokens;
};

struct Answer {
  Generation generation;
  std::size_t rows_computed = 0;
  std::size_t revived = 0;
  std::vector<Kept> kept;  // of the prefill
  [[nodiscard]] bool right() const { return generation.text.find(right_answer) != std::string::npos; }
  [[nodiscard]] double ttft_ms() const { return generation.time_to_first_logits.count() * 1e3; }
};

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (text.empty()) throw Error(ErrorCode::io, "cannot read " + path.string() + ", or it is empty");
  return text;
}

void show_progress(std::string_view what, std::uint64_t done, std::uint64_t total) {
  static const bool watched = isatty(STDERR_FILENO) != 0;
  if (!watched) return;
  const int percent = total == 0 ? 0 : static_cast<int>(100 * done / total);
  std::fprintf(stderr, done >= total ? "\r\033[K" : "\r%.*s %d %%\033[K", static_cast<int>(what.size()), what.data(),
               percent);
  std::fflush(stderr);
}

/// The first whole lines of the document that have at most `tokens` tokens.
std::string shortened(const std::string& document, const Tokenizer& tokenizer, std::size_t tokens) {
  const std::vector<TokenId> ids = tokenizer.encode(document, {.add_special = false, .parse_special = false});
  if (ids.size() <= tokens) return document;
  const std::size_t size_bytes = tokenizer.decode(std::span(ids).first(tokens)).size();
  return document.substr(0, document.rfind('\n', size_bytes) + 1);
}

/// Which tokens the bytes [begin, end) of the prompt's text became.
TokenRange tokens_of(const std::vector<TokenId>& ids, const Tokenizer& tokenizer, std::size_t begin, std::size_t end) {
  TokenRange range{.begin = ids.size(), .end = 0};
  for (std::size_t i = 0, bytes = 0; i < ids.size(); ++i) {
    const std::size_t after = bytes + tokenizer.piece(ids[i]).size();
    if (after > begin && bytes < end) range = {std::min(range.begin, i), i + 1};
    bytes = after;
  }
  return range;
}

Prompt make_prompt(const std::string& document, const Tokenizer& tokenizer, const ChatTemplate& chat) {
  // A line of its own, about fact_place into the text.
  const auto place = static_cast<std::size_t>(fact_place * static_cast<double>(document.size()));
  const std::size_t line = document.find('\n', place);
  const std::size_t split = line == std::string::npos ? document.size() : line + 1;
  const std::string with_fact = document.substr(0, split) + std::string(fact) + "\n" + document.substr(split);
  const ChatMessage message{.role = "user", .content = with_fact + "\n" + std::string(question)};
  const std::string text = chat.apply({&message, 1});
  const std::size_t begin = text.find(with_fact);
  Prompt prompt{.ids = tokenizer.encode(text, {.add_special = false}), .document = {}, .fact = {}};
  prompt.document = tokens_of(prompt.ids, tokenizer, begin, begin + with_fact.size());
  prompt.fact = tokens_of(prompt.ids, tokenizer, begin + split, begin + split + fact.size());
  return prompt;
}

template <PruningPolicy Policy>
Answer answer(const char* name, const std::shared_ptr<const LlamaWeights<>>& weights, ThreadPool& pool,
              const Tokenizer& tokenizer, const std::vector<TokenId>& prompt, Policy policy) {
  const std::size_t context_size = prompt.size() + answer_tokens;
  Answer result;
  const auto on_select = [&](const Selection& s) {
    if (s.step == 0) result.kept.push_back({s.layer, {s.kept.begin(), s.kept.end()}});
  };
  Llama graph(weights, pool, context_size);
  LazySession session(graph, std::move(policy),
                      {.context_size = context_size,
                       .decode_revivals = recommended_decode_revivals,
                       .dense_below = recommended_dense_below,
                       .on_select = on_select});
  Sampler sampler({.temperature = 0});
  GenerateOptions options{.prompt = prompt, .max_tokens = answer_tokens};
  options.on_prefill = [&](std::size_t done, std::size_t total) { show_progress(name, done, total); };
  result.generation = generate(session, tokenizer, sampler, options);
  result.rows_computed = session.totals(Phase::prefill).total_rows();
  result.revived = session.totals(Phase::decode).revived;
  return result;
}

/// How much of each stretch of the document was kept: one character a stretch, from ' ' for nothing to '@' for all.
std::string density_bar(const std::vector<TokenIndex>& kept, TokenRange range) {
  constexpr std::size_t width = 64;
  constexpr std::string_view levels = " .:-=+*#%@";
  std::string bar;
  for (std::size_t i = 0; i < width; ++i) {
    const std::size_t begin = range.begin + (range.end - range.begin) * i / width;
    const std::size_t end = range.begin + (range.end - range.begin) * (i + 1) / width;
    const auto first = std::ranges::lower_bound(kept, begin);
    const auto last = std::ranges::lower_bound(kept, end);
    const auto count = static_cast<std::size_t>(last - first);
    bar += count == 0 ? ' ' : levels[1 + (levels.size() - 2) * count / std::max<std::size_t>(1, end - begin)];
  }
  return bar;
}

void print_report(const Prompt& prompt, const Answer& dense, const Answer& lazy, std::size_t rows_dense) {
  std::printf("\n%-9s %9s   answer\n", "", "TTFT");
  for (const auto& [name, a] : {std::pair("dense", &dense), std::pair("LazyLLM", &lazy)}) {
    std::printf("%-9s %6.0f ms   %s%s\n", name, a->ttft_ms(), a->generation.text.c_str(),
                a->right() ? "" : "   <- WRONG");
  }
  std::printf("\nspeed-up of the time to the first token: %.2f\n", dense.ttft_ms() / lazy.ttft_ms());
  std::printf("rows computed in the prefill: %.1f %% (%zu of %zu)\n",
              100.0 * static_cast<double>(lazy.rows_computed) / static_cast<double>(rows_dense), lazy.rows_computed,
              rows_dense);
  std::printf("tokens revived while answering: %zu\n", lazy.revived);
  std::printf("\nwhere in the document the kept tokens lie ('.' few to '@' all):\n");
  for (const Kept& kept : lazy.kept) {
    const auto of_fact = std::ranges::lower_bound(kept.tokens, prompt.fact.end) -
                         std::ranges::lower_bound(kept.tokens, prompt.fact.begin);
    std::printf("  after layer %2zu |%s| %zu tokens, %td of the fact\n", kept.layer,
                density_bar(kept.tokens, prompt.document).c_str(), kept.tokens.size(), of_fact);
  }
  std::vector<TokenIndex> fact_tokens;
  for (std::size_t i = prompt.fact.begin; i < prompt.fact.end; ++i) fact_tokens.push_back(static_cast<TokenIndex>(i));
  std::string marks = density_bar(fact_tokens, prompt.document);
  std::ranges::replace_if(
      marks, [](char c) { return c != ' '; }, '^');
  std::printf("  the fact       |%s| %zu tokens\n", marks.c_str(), fact_tokens.size());
}

void print_json(const Prompt& prompt, const Answer& dense, const Answer& lazy, std::size_t rows_dense) {
  const auto run = [](const Answer& a) {
    return nlohmann::ordered_json{{"answer", a.generation.text},
                                  {"right", a.right()},
                                  {"ttft_ms", a.ttft_ms()},
                                  {"rows_computed", a.rows_computed},
                                  {"revived", a.revived}};
  };
  nlohmann::ordered_json kept = nlohmann::ordered_json::array();
  for (const Kept& k : lazy.kept) kept.push_back({{"layer", k.layer}, {"count", k.tokens.size()}});
  const nlohmann::ordered_json report = {{"prompt_tokens", prompt.ids.size()},
                                         {"fact_tokens", {prompt.fact.begin, prompt.fact.end}},
                                         {"rows_dense", rows_dense},
                                         {"dense", run(dense)},
                                         {"lazy", run(lazy)},
                                         {"ttft_speed_up", dense.ttft_ms() / lazy.ttft_ms()},
                                         {"kept", kept}};
  std::printf("%s\n", report.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
}

int run(const Options& options, const std::optional<StepSchedule>& own_schedule) {
  ThreadPool pool(options.threads);
  const MappedFile file(options.model);
  const GgufFile gguf = parse_gguf(file.bytes());
  const Tokenizer tokenizer = Tokenizer::from_gguf(gguf);
  const std::string document = shortened(read_file(options.document), tokenizer, options.document_tokens);
  const Prompt prompt = make_prompt(document, tokenizer, ChatTemplate::from_gguf(gguf));
  const auto weights = LlamaWeights<>::load(
      file, gguf, pool, [](std::uint64_t done, std::uint64_t total) { show_progress("loading", done, total); });
  const StepSchedule schedule = own_schedule ? *own_schedule : recommended_schedule(weights->config());
  if (!options.json) {
    std::printf("document: %zu tokens, with \"%.*s\" at %.0f %% of it\nquestion: %.*s\n",
                prompt.document.end - prompt.document.begin, static_cast<int>(fact.size()), fact.data(),
                100 * fact_place, static_cast<int>(question.size()), question.data());
    std::fflush(stdout);
  }

  const TopKPolicy policy(MeanOverHeads{}, schedule);
  const std::vector<TokenId> warm_up(prompt.ids.end() - 64, prompt.ids.end());
  static_cast<void>(answer("warming up", weights, pool, tokenizer, warm_up, KeepAll{}));
  // Both in turn, and the faster time of each: other work on the machine disturbs the comparison less.
  Answer dense, lazy;
  for (std::size_t round = 0; round < options.rounds; ++round) {
    const auto keep_faster = [&](Answer& best, Answer next) {
      if (round == 0 || next.ttft_ms() < best.ttft_ms()) best = std::move(next);
    };
    keep_faster(dense, answer("dense", weights, pool, tokenizer, prompt.ids, KeepAll{}));
    keep_faster(lazy, answer("LazyLLM", weights, pool, tokenizer, prompt.ids, policy));
  }
  const std::size_t rows_dense = prompt.ids.size() * weights->config().layers;
  (options.json ? print_json : print_report)(prompt, dense, lazy, rows_dense);
  return dense.right() && lazy.right() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("One question about a long document, dense and with LazyLLM", "lazyllm_demo");
  app.add_option("-m,--model", options.model, "GGUF file")->required()->type_name("MODEL");
  app.add_option("-d,--document", options.document, "text file")->required()->type_name("FILE");
  app.add_option("--schedule", options.schedule, "auto, or LAYER:KEEP[,...]")->capture_default_str();
  app.add_option("--tokens", options.document_tokens, "most tokens of the document")
      ->capture_default_str()
      ->check(CLI::Range(std::size_t{100}, std::size_t{100'000}));
  app.add_option("-t,--threads", options.threads)->check(CLI::Range(std::size_t{1}, std::size_t{1024}));
  app.add_option("--rounds", options.rounds, "runs of each; the faster one counts")
      ->capture_default_str()
      ->check(CLI::Range(std::size_t{1}, std::size_t{100}));
  app.add_flag("--json", options.json, "one JSON object instead of the report");
  std::optional<StepSchedule> schedule;
  try {
    app.parse(argc, argv);
    if (options.schedule != "auto") schedule = parse_schedule(options.schedule);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const Error& error) {
    std::fprintf(stderr, "lazyllm_demo: --schedule: %s\n", error.what());
    return 2;
  }
  try {
    return run(options, schedule);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lazyllm_demo: %s\n", error.what());
    return 1;
  }
}
