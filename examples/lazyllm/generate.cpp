#include "generate.hpp"

#include "input.hpp"

#include <lazyllm/core/error.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/llama/model.hpp>
#include <lazyllm/parallel/cpu_count.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/schedule.hpp>
#include <lazyllm/prune/top_k_policy.hpp>
#include <lazyllm/text/chat_template.hpp>
#include <lazyllm/text/tokenizer.hpp>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>

namespace program {
namespace {

using namespace lazyllm;

/// A model, and the request in its terms.
struct Loaded {
  std::shared_ptr<const Weights> weights;
  TopKPolicy<> policy;
  Tokenizer tokenizer;
  std::vector<TokenId> prompt;
  std::size_t context_size;
};

/// Without a schedule the policy keeps everything and asks for no scores: bit for bit the dense model.
TopKPolicy<> policy_of(const GenerateCommand& options, const ModelFile& model, const Note& on_note) {
  const StepSchedule prefill = model.schedule(options.prune, on_note);
  const auto* own = std::get_if<PruneSpec>(&options.decode_prune);
  return TopKPolicy<>(MeanOverHeads{}, prefill, own != nullptr ? model.schedule(*own, on_note) : prefill);
}

std::vector<TokenId> encode_prompt(const GenerateCommand& options, const GgufFile& gguf, const Tokenizer& tokenizer,
                                   const Output& output) {
  if (const auto* ids = std::get_if<PromptIds>(&options.prompt)) return read_ids(ids->path);
  const auto* given = std::get_if<PromptText>(&options.prompt);
  const std::string text = given != nullptr ? given->text : read_text(std::get<PromptFile>(options.prompt).path);
  note_missing_bytes(tokenizer, text, "prompt", output.on_note);
  if (options.raw) return tokenizer.encode(text);
  const ChatMessage message{.role = "user", .content = text};
  return tokenizer.encode(ChatTemplate::from_gguf(gguf).apply({&message, 1}), {.add_special = false});
}

/// Everything that can be wrong with the request is found before the weights are read.
Loaded load(const GenerateCommand& options, ThreadPool& pool, const Output& output) {
  const ModelFile model(options.model);
  const LlamaConfig& config = model.config;
  TopKPolicy<> policy = policy_of(options, model, output.on_note);
  Tokenizer tokenizer = Tokenizer::from_gguf(model.gguf);
  std::vector<TokenId> prompt = encode_prompt(options, model.gguf, tokenizer, output);
  const std::size_t context_size =
      options.context_size.value_or(std::min(config.context_length, prompt.size() + options.max_tokens));
  if (context_size > config.context_length) {
    throw Error(ErrorCode::limit, "a context of " + std::to_string(context_size) + " tokens exceeds the model's " +
                                      std::to_string(config.context_length));
  }
  check_prompt(prompt, config.vocab_size);
  check_fits_context(prompt.size(), options.max_tokens, context_size);
  return {model.load_weights(pool, output.on_progress), std::move(policy), std::move(tokenizer), std::move(prompt),
          context_size};
}

}  // namespace

GenerateReport run_generate(const GenerateCommand& options, const Output& output) {
  std::optional<FloatFile> logits_file;
  if (!options.logits_file.empty()) logits_file.emplace(options.logits_file);
  ThreadPool pool(options.threads.value_or(cpu_count()));
  Loaded model = load(options, pool, output);

  GenerateReport report;
  report.prompt_tokens = model.prompt.size();
  report.kept.reserve(64 + options.max_tokens);
  SessionOptions session_options{.context_size = model.context_size,
                                 .revive_in_decode = !std::holds_alternative<Cached>(options.decode_prune),
                                 .on_select = [&](const Selection& selection) {
                                   report.kept.push_back({selection.step, selection.layer, selection.kept.size(), {}});
                                   if (options.trace)
                                     report.kept.back().indices.assign(selection.kept.begin(), selection.kept.end());
                                 }};
  options.limits.apply(session_options);
  Llama graph(model.weights, pool, model.context_size);
  LazySession session(graph, WithEviction(std::move(model.policy), options.limits.eviction), session_options);
  Sampler sampler(options.sampler);

  GenerateOptions request;
  request.prompt = std::move(model.prompt);
  request.max_tokens = options.max_tokens;
  request.ignore_end = options.ignore_end;
  request.on_prefill = [&](std::size_t done, std::size_t total) { output.on_progress("prefill", done, total); };
  if (logits_file) request.on_first_logits = [&](std::span<const float> logits) { logits_file->write(logits); };
  report.generation = generate(session, model.tokenizer, sampler, request, output.on_text);

  report.rows_computed = session.totals(Phase::prefill).total_rows();
  report.rows_dense = report.prompt_tokens * graph.layer_count();
  report.decode_rows_computed = session.totals(Phase::decode).total_rows();
  report.aux_bytes = session.aux_bytes();
  report.kv_bytes = graph.kv_bytes();
  report.peak_rss_bytes = peak_rss_bytes();
  report.isa = active_isa();
  report.threads = pool.concurrency();
  return report;
}

}  // namespace program
