#include "bench.hpp"

#include "input.hpp"

#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/lazy_session.hpp>
#include <lazyllm/llama/model.hpp>
#include <lazyllm/parallel/cpu_count.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/prune/eviction.hpp>
#include <lazyllm/prune/top_k_policy.hpp>
#include <lazyllm/text/generator.hpp>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <span>
#include <utility>

namespace program {
namespace {

using namespace lazyllm;

/// A way to prune under its name.
struct Variant {
  std::string name;
  StepSchedule schedule;
};

/// A decode step needs a token before it.
std::size_t prompt_size(const BenchRow& row) {
  return row.kind == BenchKind::prefill ? row.tokens : std::max<std::size_t>(row.depth, 1);
}
std::size_t generated_size(const BenchRow& row) { return row.kind == BenchKind::prefill ? 0 : row.tokens; }

/// The lines of the result in order, one for each variant; 0 tokens are no line.
std::vector<BenchRow> planned_rows(const BenchCommand& command, const std::vector<Variant>& variants) {
  std::vector<BenchRow> rows;
  const auto add = [&](BenchKind kind, std::size_t tokens, std::size_t depth) {
    if (tokens == 0) return;
    for (const Variant& variant : variants) {
      rows.push_back({.kind = kind, .tokens = tokens, .depth = depth, .prune = variant.name});
    }
  };
  for (const std::size_t tokens : command.prompt_tokens) add(BenchKind::prefill, tokens, 0);
  for (const std::size_t depth : command.depths) {
    for (const std::size_t tokens : command.generated_tokens) add(BenchKind::decode, tokens, depth);
  }
  return rows;
}

std::vector<TokenId> random_ids(std::size_t count, std::size_t vocab_size) {
  std::mt19937 engine(1);
  std::uniform_int_distribution<TokenId> uniform(0, static_cast<TokenId>(vocab_size - 1));
  std::vector<TokenId> ids(count);
  for (TokenId& id : ids) id = uniform(engine);
  return ids;
}

struct Measured {
  double tokens_per_s;
  std::size_t rows_computed;
};

/// Keeps the allocator from handing a fresh session an older one's memory: first touches belong to the timing, as they
/// do to a user's prompt.
void always_map_large_buffers() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

/// One repeat on a fresh session.
Measured measure(const BenchRow& row, const StepSchedule& schedule, const PruneLimits& limits,
                 const std::shared_ptr<const Weights>& weights, ThreadPool& pool) {
  const std::size_t prompt_tokens = prompt_size(row);
  const std::size_t context_size = prompt_tokens + generated_size(row);
  const std::vector<TokenId> ids = random_ids(context_size, weights->config().vocab_size);
  const std::span<const TokenId> prompt = std::span(ids).first(prompt_tokens);
  Llama graph(weights, pool, context_size);
  SessionOptions options{.context_size = context_size};
  limits.apply(options);
  const TopKPolicy<> pruning(MeanOverHeads{}, schedule);
  LazySession session(graph, WithEviction(pruning, limits.eviction), options);

  using Clock = std::chrono::steady_clock;
  Clock::time_point start = Clock::now();
  session.prefill(prompt);
  if (row.kind == BenchKind::decode) {
    start = Clock::now();
    for (const TokenId id : std::span(ids).subspan(prompt_tokens)) session.decode(id);
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const Phase phase = row.kind == BenchKind::prefill ? Phase::prefill : Phase::decode;
  return {static_cast<double>(row.tokens) / seconds, session.totals(phase).total_rows()};
}

}  // namespace

BenchReport run_bench(const BenchCommand& command, const Progress& progress, const Note& on_note) {
  const ModelFile model(command.model);
  std::vector<Variant> variants = {{"none", StepSchedule()}};
  if (command.prune_name != "none") variants.push_back({command.prune_name, model.schedule(command.prune, on_note)});
  std::vector<BenchRow> rows = planned_rows(command, variants);
  for (const BenchRow& row : rows) {
    check_fits_context(prompt_size(row), generated_size(row), model.config.context_length);
  }
  always_map_large_buffers();
  ThreadPool pool(command.threads.value_or(cpu_count()));
  const std::shared_ptr<const Weights> weights = model.load_weights(pool, progress);

  const std::size_t steps = rows.size() * (command.repeats + 1);
  std::size_t step = 0;
  for (std::size_t first = 0; first < rows.size(); first += variants.size()) {
    for (std::size_t repeat = 0; repeat <= command.repeats; ++repeat) {  // the first warms up
      for (std::size_t v = 0; v < variants.size(); ++v) {
        progress("measuring", step++, steps);
        BenchRow& row = rows[first + v];
        forget_peak_rss();
        const Measured measured = measure(row, variants[v].schedule, command.limits, weights, pool);
        row.peak_rss_bytes = std::max(row.peak_rss_bytes, peak_rss_bytes());
        row.rows_computed = measured.rows_computed;
        if (repeat != 0) row.tokens_per_s.push_back(measured.tokens_per_s);
      }
    }
  }
  progress("measuring", steps, steps);
  return {command.model.filename().string(), pool.concurrency(), active_isa(), std::move(rows)};
}

}  // namespace program
