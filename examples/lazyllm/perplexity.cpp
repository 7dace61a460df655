#include "perplexity.hpp"

#include "base_file.hpp"
#include "formatted.hpp"
#include "input.hpp"

#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/logits.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/parallel/cpu_count.hpp>
#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/top_k_policy.hpp>
#include <lazyllm/text/tokenizer.hpp>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace program {
namespace {

using namespace lazyllm;

/// One chunk after the other, each on a fresh graph; compared with the dense model, or with the next positions of a
/// base.
class ChunkRunner {
 public:
  ChunkRunner(const PerplexityCommand& command, StepSchedule schedule, const BaseScope& scope, ThreadPool& pool)
      : command_(command), schedule_(std::move(schedule)), pool_(pool) {
    if (!command.base.empty()) base_.emplace(command.base, scope);
    if (!command.save_base.empty()) saved_.emplace(command.save_base, scope);
  }

  void load(const ModelFile& model, const Progress& progress) { weights_ = model.load_weights(pool_, progress); }

  void run(std::span<const TokenId> chunk, PerplexityReport& report) {
    std::vector<std::vector<float>> dense;
    if (command_.kl_divergence) {
      score_dense(chunk,
                  [&](std::span<const float> logits, TokenId) { dense.emplace_back(logits.begin(), logits.end()); });
    }
    std::size_t position = 0;
    score(chunk, [&](std::span<const float> logits, TokenId next) {
      report.perplexity.add(log_probability(logits, next));
      if (saved_) saved_->write(logits);
      if (!report.reference) return;
      const std::span<const float> reference = base_ ? base_->read() : dense[position++];
      report.reference->add(log_probability(reference, next));
      divergence_.add(reference, logits, next);
    });
  }
  [[nodiscard]] ContinuationScore divergence() const { return divergence_.score(); }

 private:
  template <class OnScored>
  void score_dense(std::span<const TokenId> chunk, OnScored on_scored) {
    Model graph(weights_, pool_, chunk.size());
    score_chunk(graph, chunk, on_scored);
  }
  template <class OnScored>
  void score(std::span<const TokenId> chunk, OnScored on_scored) {
    const AnyEviction& eviction = command_.limits.eviction;
    const bool evicts = eviction.eviction_rows(0, Phase::prefill).has_value();
    if (schedule_.entries().empty() && !evicts) return score_dense(chunk, on_scored);
    Model graph(weights_, pool_, chunk.size());
    SessionOptions options{.context_size = chunk.size()};
    command_.limits.apply(options);
    LazySession session(graph, WithEviction(TopKPolicy<>(MeanOverHeads{}, schedule_), eviction), options);
    score_chunk(session, chunk, on_scored);
  }

  const PerplexityCommand& command_;
  StepSchedule schedule_;
  ThreadPool& pool_;
  std::shared_ptr<const Weights> weights_;
  std::optional<BaseReader> base_;
  std::optional<BaseWriter> saved_;
  ContinuationScorer divergence_;
};

std::string text_report(const PerplexityReport& report) {
  const auto line = [](const char* what, const Perplexity& perplexity) {
    return formatted("%s perplexity: %.4f +/- %.4f\n", what, perplexity.value(), perplexity.error());
  };
  std::string text = report.model + ", " + std::string(name(report.isa)) + ", " + std::to_string(report.threads) +
                     formatted(" threads; %zu chunks of %zu tokens, %zu tokens scored\n", report.chunks,
                               report.chunk_tokens, report.perplexity.tokens());
  if (report.reference) text += line(report.base.empty() ? "dense" : report.base.c_str(), *report.reference);
  text += line(report.prune == "none" ? "dense" : report.prune.c_str(), report.perplexity);
  if (report.divergence) {
    const ContinuationScore& score = *report.divergence;
    text += formatted("ratio of perplexities: %.5f\nKL(%s): mean %.5f, median %.5f, 99 %% %.4f\n",
                      score.perplexity_ratio, report.base.empty() ? "dense || pruned" : "base || this", score.kl_mean,
                      score.kl_median, score.kl_p99) +
            formatted("same top token: %.2f %%\n", 100 * score.top1_agreement);
  }
  return text;
}

std::string json_report(const PerplexityReport& report) {
  nlohmann::ordered_json object = {{"model", report.model},
                                   {"prune", report.prune},
                                   {"isa", name(report.isa)},
                                   {"threads", report.threads},
                                   {"chunks", report.chunks},
                                   {"chunk_tokens", report.chunk_tokens},
                                   {"scored_tokens", report.perplexity.tokens()},
                                   {"perplexity", report.perplexity.value()},
                                   {"perplexity_error", report.perplexity.error()}};
  if (report.divergence) {
    const ContinuationScore& score = *report.divergence;
    if (!report.base.empty()) object["base"] = report.base;
    object[report.base.empty() ? "dense_perplexity" : "base_perplexity"] = report.reference->value();
    object["perplexity_ratio"] = score.perplexity_ratio;
    object["kl_mean"] = score.kl_mean;
    object["kl_median"] = score.kl_median;
    object["kl_p99"] = score.kl_p99;
    object["top1_agreement"] = score.top1_agreement;
  }
  return object.dump() + "\n";
}

}  // namespace

PerplexityReport run_perplexity(const PerplexityCommand& command, const Progress& progress, const Note& on_note) {
  const ModelFile model(command.model);
  const Tokenizer tokenizer = Tokenizer::from_gguf(model.gguf);
  const std::string text = read_text(command.text);
  note_missing_bytes(tokenizer, text, "text", on_note);
  if (command.chunk_tokens > model.config.context_length) {
    throw Error(ErrorCode::limit, "chunks of " + std::to_string(command.chunk_tokens) +
                                      " tokens exceed the model's context of " +
                                      std::to_string(model.config.context_length));
  }
  std::vector<std::vector<TokenId>> chunks = text_chunks(text, tokenizer, command.chunk_tokens);
  if (command.chunks) chunks.resize(std::min(*command.chunks, chunks.size()));
  ThreadPool pool(command.threads.value_or(cpu_count()));
  ChunkRunner runner(command, model.schedule(command.prune, on_note), base_scope(chunks, model.config.vocab_size),
                     pool);
  runner.load(model, progress);

  PerplexityReport report{.model = command.model.filename().string(),
                          .prune = command.prune_name,
                          .base = command.base.filename().string(),
                          .threads = pool.concurrency(),
                          .isa = active_isa(),
                          .chunks = chunks.size(),
                          .chunk_tokens = command.chunk_tokens,
                          .perplexity = {},
                          .reference = {},
                          .divergence = {}};
  if (command.kl_divergence || !command.base.empty()) report.reference.emplace();
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    progress("scoring", i, chunks.size());
    runner.run(chunks[i], report);
  }
  progress("scoring", chunks.size(), chunks.size());
  if (report.reference) report.divergence = runner.divergence();
  return report;
}

std::string perplexity_report(const PerplexityReport& report, bool json) {
  return json ? json_report(report) : text_report(report);
}

}  // namespace program
