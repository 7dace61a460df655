#include "perplexity.hpp"

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
#include <span>
#include <utility>
#include <vector>

namespace program {
namespace {

using namespace lazyllm;

/// One chunk after the other, each on a fresh graph.
class ChunkRunner {
 public:
  ChunkRunner(const PerplexityCommand& command, StepSchedule schedule, ThreadPool& pool)
      : command_(command), schedule_(std::move(schedule)), pool_(pool) {}

  void load(const ModelFile& model, const Progress& progress) { weights_ = model.load_weights(pool_, progress); }

  void run(std::span<const TokenId> chunk, PerplexityReport& report) {
    if (!command_.kl_divergence) {
      score(chunk,
            [&](std::span<const float> logits, TokenId next) { report.perplexity.add(log_probability(logits, next)); });
      return;
    }
    std::vector<std::vector<float>> dense;
    score_dense(chunk, [&](std::span<const float> logits, TokenId next) {
      report.dense->add(log_probability(logits, next));
      dense.emplace_back(logits.begin(), logits.end());
    });
    std::size_t position = 0;
    score(chunk, [&](std::span<const float> logits, TokenId next) {
      report.perplexity.add(log_probability(logits, next));
      divergence_.add(dense[position++], logits, next);
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
    const RuleEviction& eviction = command_.limits.eviction;
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
  ContinuationScorer divergence_;
};

std::string text_report(const PerplexityReport& report) {
  const auto line = [](const char* what, const Perplexity& perplexity) {
    return formatted("%s perplexity: %.4f +/- %.4f\n", what, perplexity.value(), perplexity.error());
  };
  std::string text = report.model + ", " + std::string(name(report.isa)) + ", " + std::to_string(report.threads) +
                     formatted(" threads; %zu chunks of %zu tokens, %zu tokens scored\n", report.chunks,
                               report.chunk_tokens, report.perplexity.tokens());
  if (report.dense) text += line("dense", *report.dense);
  text += line(report.prune == "none" ? "dense" : report.prune.c_str(), report.perplexity);
  if (report.divergence) {
    const ContinuationScore& score = *report.divergence;
    text += formatted("ratio of perplexities: %.5f\nKL(dense || pruned): mean %.5f, median %.5f, 99 %% %.4f\n",
                      score.perplexity_ratio, score.kl_mean, score.kl_median, score.kl_p99) +
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
    object["dense_perplexity"] = report.dense->value();
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
  ChunkRunner runner(command, model.schedule(command.prune, on_note), pool);
  runner.load(model, progress);

  PerplexityReport report{.model = command.model.filename().string(),
                          .prune = command.prune_name,
                          .threads = pool.concurrency(),
                          .isa = active_isa(),
                          .chunks = chunks.size(),
                          .chunk_tokens = command.chunk_tokens,
                          .perplexity = {},
                          .dense = {},
                          .divergence = {}};
  if (command.kl_divergence) report.dense.emplace();
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    progress("scoring", i, chunks.size());
    runner.run(chunks[i], report);
  }
  progress("scoring", chunks.size(), chunks.size());
  if (command.kl_divergence) report.divergence = runner.divergence();
  return report;
}

std::string perplexity_report(const PerplexityReport& report, bool json) {
  return json ? json_report(report) : text_report(report);
}

}  // namespace program
