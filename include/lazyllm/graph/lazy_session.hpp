// The LazyLLM engine: drives any model graph layer by layer, lets the policy choose who enters the next layer, parks
// the pruned tokens' hidden states in the Aux Cache and revives them when a later step selects them again. State: one
// number per token, its depth d: K and V exist at layers < d; the Aux Cache holds the input of layer d. Source:
// LazyLLM, arXiv 2407.14057, section 3; no token is computed twice at a layer, and none skips one.
#pragma once

#include <lazyllm/cache/aux_cache.hpp>
#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/prune/policy.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// One decision of the policy, as a step makes it.
struct Selection {
  std::size_t step;  ///< 0 is the first prefill
  LayerIndex layer;
  std::span<const TokenIndex> kept;  ///< who enters layer + 1, ascending; valid during the call
};

/// Called before each layer of a prefill with (layer, layer_count); returning false stops the step with Cancelled.
using PrefillHook = std::function<bool(LayerIndex, std::size_t)>;

struct SessionOptions {
  std::size_t context_size = 0;  ///< most tokens the session may hold; address space is reserved for them at once
  /// false: decode steps never revive; each layer selects among the tokens that have K and V there.
  bool revive_in_decode = true;
  /// Called for every selection, in order. The first prefill is step 0.
  std::function<void(const Selection&)> on_select = {};
  PrefillHook on_prefill_layer = {};  ///< for every prefill of the session
};

/// Thrown out of a prefill that a PrefillHook stopped. The session is not usable afterwards.
struct Cancelled : Error {
  Cancelled() : Error(ErrorCode::limit, "the prefill was stopped from outside") {}
};

/// What a step, or all steps of a phase, cost.
struct StepCounters {
  std::vector<std::size_t> rows_computed;  ///< by layer: tokens whose K and V were computed there
  std::size_t revived = 0;                 ///< tokens taken out of the Aux Cache

  [[nodiscard]] std::size_t total_rows() const;
};

/// One sequence on one graph under one policy. Not thread-safe: one session per thread; sessions may share weights.
/// The graph must be fresh (no K and V) and outlive the session. Decode steps allocate nothing.
template <ModelGraph Graph, PruningPolicy Policy>
class LazySession {
 public:
  /// Throws Error when the policy names layers that the graph lacks or the context size is 0.
  LazySession(Graph& graph, Policy policy, SessionOptions options);

  /// Runs the prompt (or appends to it). Returns the logits [vocab_size] of the token after it, valid until the next
  /// step. Throws Error for an empty prompt, an id outside the vocabulary, or more tokens than the context holds;
  /// nothing ran then. `on_layer` is called for this prefill, after the session's own hook.
  std::span<const float> prefill(std::span<const TokenId> ids,
                                 const PrefillHook& on_layer = {}) requires LanguageGraph<Graph> {
    return language_step(ids, Phase::prefill, on_layer);
  }
  /// Runs one generated token. Returns the logits of the next. Throws Error as prefill does.
  std::span<const float> decode(TokenId id) requires LanguageGraph<Graph> {
    return language_step({&id, 1}, Phase::decode, {});
  }
  /// For graphs without a vocabulary: runs new tokens given as inputs of layer 0, [tokens, hidden_dim], and returns the
  /// last token's output of the last layer [hidden_dim]. Throws Error for no tokens or more than the context holds.
  std::span<const float> step(ConstRows inputs, Phase phase);

  [[nodiscard]] std::size_t context_size() const { return depth_.size(); }              ///< tokens so far
  [[nodiscard]] std::size_t context_capacity() const { return options_.context_size; }  ///< most tokens it holds
  [[nodiscard]] std::size_t step_count() const { return step_; }                        ///< steps so far
  /// Layers at which the token has K and V: 0 .. depth - 1.
  [[nodiscard]] std::size_t depth(TokenIndex token) const { return depth_.at(token); }
  [[nodiscard]] const StepCounters& last_step() const { return last_; }
  [[nodiscard]] const StepCounters& totals(Phase phase) const {
    return phase == Phase::prefill ? prefill_totals_ : decode_totals_;
  }
  [[nodiscard]] std::size_t aux_bytes() const { return aux_.size_bytes(); }
  [[nodiscard]] Graph& graph() { return graph_; }
  [[nodiscard]] const Graph& graph() const { return graph_; }
  [[nodiscard]] Policy& policy() { return policy_; }

 private:
  std::span<const float> language_step(std::span<const TokenId> ids, Phase phase, const PrefillHook& on_layer);
  void check_room(std::size_t new_tokens) const;
  Rows new_hidden_rows(std::size_t count) { return {hidden_.data(), count, hidden_dim_}; }
  ConstRows run(std::size_t new_tokens, Phase phase, const PrefillHook& on_layer);
  void collect_rows(LayerIndex layer);
  void drop_unkept();
  ScoreView drop_parked(LayerIndex layer, ScoreView scores);
  void select_entering(LayerIndex layer, Phase phase, ScoreView scores);
  void park_dropped_rows();
  [[nodiscard]] std::size_t consecutive_tail(std::size_t at_most) const;

  Graph& graph_;
  Policy policy_;
  SessionOptions options_;
  std::size_t layer_count_;
  std::size_t hidden_dim_;
  AuxCache aux_;
  std::vector<std::uint32_t> depth_;  // by token
  std::vector<TokenIndex> entering_;  // tokens that enter the current layer, ascending
  std::vector<TokenIndex> rows_;      // those of them that are computed there, ascending
  AlignedBuffer<float> hidden_;       // [rows_, hidden_dim]: the rows in flight, in the order of rows_
  AlignedBuffer<float> scores_;       // [query_rows, heads, entering_]
  std::unique_ptr<bool[]> keep_;      // by candidate
  AlignedBuffer<float> logits_;
  std::size_t step_ = 0;
  bool interrupted_ = false;  // a step ended in an exception: graph and session may disagree
  StepCounters last_;
  StepCounters prefill_totals_;
  StepCounters decode_totals_;
};

inline std::size_t StepCounters::total_rows() const {
  std::size_t total = 0;
  for (const std::size_t rows : rows_computed) total += rows;
  return total;
}

template <ModelGraph Graph, PruningPolicy Policy>
LazySession<Graph, Policy>::LazySession(Graph& graph, Policy policy, SessionOptions options)
    : graph_(graph),
      policy_(std::move(policy)),
      options_(std::move(options)),
      layer_count_(graph.layer_count()),
      hidden_dim_(graph.hidden_dim()),
      aux_(options_.context_size, hidden_dim_) {
  const std::size_t capacity = options_.context_size;
  if (capacity == 0) throw Error(ErrorCode::invalid_argument, "a session needs a context size of at least 1 token");
  const PruningShape shape{.layer_count = layer_count_, .head_count = graph.head_count(), .context_capacity = capacity};
  if constexpr (requires { policy_.prepare(shape); }) policy_.prepare(shape);
  std::size_t query_rows = 0;
  for (LayerIndex layer = 0; layer < layer_count_; ++layer) {
    for (const Phase phase : {Phase::prefill, Phase::decode}) {
      query_rows = std::max<std::size_t>(query_rows, policy_.query_rows(layer, phase));
    }
  }
  depth_.reserve(capacity);
  entering_.reserve(capacity);
  rows_.reserve(capacity);
  hidden_ = AlignedBuffer<float>(capacity * hidden_dim_);
  scores_ = AlignedBuffer<float>(std::min(query_rows, capacity) * graph.head_count() * capacity);
  keep_ = std::make_unique_for_overwrite<bool[]>(capacity);
  if constexpr (LanguageGraph<Graph>) logits_ = AlignedBuffer<float>(graph.vocab_size());
  for (StepCounters* counters : {&last_, &prefill_totals_, &decode_totals_})
    counters->rows_computed.resize(layer_count_);
}

template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::check_room(std::size_t new_tokens) const {
  if (interrupted_)
    throw Error(ErrorCode::invalid_argument, "this session's last step was interrupted: start a new one");
  if (new_tokens == 0) throw Error(ErrorCode::invalid_argument, "the prompt is empty");
  if (new_tokens > options_.context_size - depth_.size()) {
    throw Error(ErrorCode::limit, std::to_string(new_tokens) + " new tokens after " + std::to_string(depth_.size()) +
                                      " exceed the session's context of " + std::to_string(options_.context_size));
  }
}

template <ModelGraph Graph, PruningPolicy Policy>
std::span<const float> LazySession<Graph, Policy>::language_step(std::span<const TokenId> ids, Phase phase,
                                                                 const PrefillHook& on_layer) {
  check_room(ids.size());
  for (const TokenId id : ids) {
    if (id < 0 || static_cast<std::size_t>(id) >= graph_.vocab_size()) {
      throw Error(ErrorCode::invalid_argument, "token id " + std::to_string(id) + " is outside the vocabulary of " +
                                                   std::to_string(graph_.vocab_size()) + " tokens");
    }
  }
  graph_.embed(ids, new_hidden_rows(ids.size()));
  const ConstRows output = run(ids.size(), phase, on_layer);
  graph_.project(output, Rows(logits_.data(), 1, logits_.size()));
  return logits_.span();
}

template <ModelGraph Graph, PruningPolicy Policy>
std::span<const float> LazySession<Graph, Policy>::step(ConstRows inputs, Phase phase) {
  check_room(inputs.rows());
  LAZYLLM_EXPECTS(inputs.cols() == hidden_dim_);
  const Rows hidden = new_hidden_rows(inputs.rows());
  for (std::size_t r = 0; r < inputs.rows(); ++r) std::ranges::copy(inputs.row(r), hidden.row(r).begin());
  return run(inputs.rows(), phase, {}).row(0);
}

/// One step over all layers; the new tokens' inputs are in hidden_. Returns the last token's output [1, hidden_dim].
template <ModelGraph Graph, PruningPolicy Policy>
ConstRows LazySession<Graph, Policy>::run(std::size_t new_tokens, Phase phase, const PrefillHook& on_layer) {
  interrupted_ = true;
  depth_.resize(depth_.size() + new_tokens, 0);
  last_.revived = 0;
  // Every step starts again from the full context.
  entering_.resize(depth_.size());
  for (std::size_t i = 0; i < entering_.size(); ++i) entering_[i] = static_cast<TokenIndex>(i);

  for (LayerIndex layer = 0; layer < layer_count_; ++layer) {
    for (const PrefillHook* hook : {&std::as_const(options_.on_prefill_layer), &on_layer}) {
      if (phase == Phase::prefill && *hook && !(*hook)(layer, layer_count_)) throw Cancelled();
    }
    collect_rows(layer);
    const std::size_t query_rows =
        consecutive_tail(std::min<std::size_t>(policy_.query_rows(layer, phase), new_tokens));
    const ScoreView scores =
        query_rows == 0 ? ScoreView() : ScoreView(scores_.data(), query_rows, graph_.head_count(), entering_.size());
    const bool last_layer = layer + 1 == layer_count_;
    graph_.run_layer(LayerStep{.layer = layer,
                               .rows = rows_,
                               .keys = entering_,
                               .outputs = last_layer ? std::max<std::size_t>(1, query_rows) : rows_.size(),
                               .hidden = new_hidden_rows(rows_.size()),
                               .scores = scores});
    last_.rows_computed[layer] = rows_.size();
    for (const TokenIndex token : rows_) depth_[token] = static_cast<std::uint32_t>(layer + 1);
    select_entering(layer, phase, scores);
    if (!last_layer) park_dropped_rows();
  }

  StepCounters& totals = phase == Phase::prefill ? prefill_totals_ : decode_totals_;
  for (LayerIndex layer = 0; layer < layer_count_; ++layer) totals.rows_computed[layer] += last_.rows_computed[layer];
  totals.revived += last_.revived;
  ++step_;
  interrupted_ = false;
  return ConstRows(hidden_.data() + (rows_.size() - 1) * hidden_dim_, 1, hidden_dim_);
}

/// rows_ becomes the entering tokens that still lack K and V here. The rows in flight lie at the front of hidden_ in
/// order; revived rows come out of the Aux Cache into their places between them.
template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::collect_rows(LayerIndex layer) {
  rows_.clear();
  std::size_t in_flight = 0;
  for (const TokenIndex token : entering_) {
    LAZYLLM_EXPECTS(depth_[token] >= layer);
    if (depth_[token] != layer) continue;
    rows_.push_back(token);
    in_flight += aux_.contains(token) ? 0 : 1;
  }
  last_.revived += rows_.size() - in_flight;
  // From the back, so that a row in flight moves only to places that are already free.
  const Rows hidden = new_hidden_rows(rows_.size());
  for (std::size_t i = rows_.size(); i-- > in_flight;) {
    if (aux_.contains(rows_[i])) {
      aux_.take(rows_[i], hidden.row(i));
    } else {
      std::ranges::copy(hidden.row(--in_flight), hidden.row(i).begin());
    }
  }
}

/// Leaves in entering_ the tokens whose keep_ is set.
template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::drop_unkept() {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < entering_.size(); ++i) {
    if (keep_[i]) entering_[kept++] = entering_[i];
  }
  entering_.resize(kept);
}

/// Without revival: leaves in entering_, and in the scores, the tokens that are in flight or have K and V at the next
/// layer. The others are parked with the input of that layer.
template <ModelGraph Graph, PruningPolicy Policy>
ScoreView LazySession<Graph, Policy>::drop_parked(LayerIndex layer, ScoreView scores) {
  for (std::size_t i = 0; i < entering_.size(); ++i) {
    keep_[i] = depth_[entering_[i]] > layer + 1 || !aux_.contains(entering_[i]);
  }
  float* out = scores.data();
  for (std::size_t r = 0; r < scores.query_rows() * scores.heads(); ++r) {
    const float* const row = scores.data() + r * scores.keys();
    for (std::size_t i = 0; i < scores.keys(); ++i) {
      if (keep_[i]) *out++ = row[i];
    }
  }
  drop_unkept();
  return {scores.data(), scores.query_rows(), scores.heads(), entering_.size()};
}

/// Asks the policy who of entering_ goes on, and leaves those in entering_.
template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::select_entering(LayerIndex layer, Phase phase, ScoreView scores) {
  if (phase == Phase::decode && !options_.revive_in_decode) scores = drop_parked(layer, scores);
  const std::size_t candidates = entering_.size();
  const std::span<bool> keep(keep_.get(), candidates);
  std::ranges::fill(keep, true);
  policy_.select(
      PruneContext{.phase = phase, .layer = layer, .context_size = depth_.size(), .tokens = entering_, .probs = scores},
      keep);
  keep.back() = true;
  drop_unkept();
  const bool selected = !scores.empty() || entering_.size() != candidates;
  if (selected && options_.on_select) options_.on_select(Selection{.step = step_, .layer = layer, .kept = entering_});
}

/// Rows that do not enter layer + 1 go to the Aux Cache; the others close ranks at the front of hidden_.
template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::park_dropped_rows() {
  const Rows hidden = new_hidden_rows(rows_.size());
  std::size_t kept = 0;
  auto entering = entering_.begin();
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    entering = std::lower_bound(entering, entering_.end(), rows_[i]);
    if (entering == entering_.end() || *entering != rows_[i]) {
      aux_.store(rows_[i], hidden.row(i));
    } else {
      if (kept != i) std::ranges::copy(hidden.row(i), hidden.row(kept).begin());
      ++kept;
    }
  }
}

/// How many of the last rows stand at consecutive positions, at most `at_most`: with at most as many as there are new
/// tokens, the rows that may serve as queries.
template <ModelGraph Graph, PruningPolicy Policy>
std::size_t LazySession<Graph, Policy>::consecutive_tail(std::size_t at_most) const {
  std::size_t count = std::min<std::size_t>(at_most, 1);
  while (count < std::min(at_most, rows_.size()) &&
         rows_[rows_.size() - count] == rows_[rows_.size() - count - 1] + 1) {
    ++count;
  }
  return count;
}

}  // namespace lazyllm::inline v0
