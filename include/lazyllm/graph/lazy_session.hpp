// The LazyLLM engine: drives any model graph layer by layer, lets the policy choose who enters the next layer, parks
// the pruned tokens' hidden states in the Aux Cache and revives them when a later step selects them again. State: per
// token its depth d (K and V exist at layers < d) and whether it lacks the second half of layer d - 1; the Aux Cache
// holds the input of layer d, or of d - 1. Source: LazyLLM, arXiv 2407.14057, section 3; the halves: docs/design.md.
#pragma once

#include <lazyllm/cache/aux_cache.hpp>
#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/graph/session_options.hpp>
#include <lazyllm/prune/policy.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

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
  void run_whole(LayerIndex layer, Phase phase, std::size_t query_rows, bool prunes);
  void run_split(LayerIndex layer, Phase phase, std::size_t query_rows, bool prunes) requires SplitGraph<Graph>;
  [[nodiscard]] bool finishes_parked(LayerIndex layer) const;
  [[nodiscard]] ScoreView scores_view(std::size_t query_rows);
  template <class Predicate>
  void collect_rows(Predicate runs);
  void drop_unkept();
  ScoreView drop_parked(LayerIndex layer, ScoreView scores);
  void select_entering(LayerIndex layer, Phase phase, ScoreView scores);
  [[nodiscard]] std::span<const float> importance() const;
  void limit_revivals(LayerIndex layer);
  void park_dropped_rows(LayerIndex layer, bool unfinished);
  void set_unfinished(TokenIndex token, LayerIndex layer, bool unfinished);
  [[nodiscard]] std::size_t consecutive_tail(std::size_t at_most) const;

  Graph& graph_;
  Policy policy_;
  SessionOptions options_;
  std::size_t layer_count_;
  std::size_t hidden_dim_;
  AuxCache aux_;
  std::vector<std::uint32_t> depth_;        // by token
  std::vector<bool> unfinished_;            // by token: lacks the second half of layer depth - 1
  std::vector<std::size_t> unfinished_at_;  // by layer: how many tokens lack its second half
  std::vector<TokenIndex> entering_;        // tokens that enter the current layer, ascending
  std::vector<TokenIndex> keys_;            // who entered a layer whose selection has been made already
  std::vector<TokenIndex> rows_;            // tokens that are computed now, ascending
  std::vector<TokenIndex> candidates_;      // of the last selection, for on_select
  std::vector<std::uint32_t> revivals_;     // places among the candidates
  AlignedBuffer<float> hidden_;             // [rows_, hidden_dim]: the rows in flight, in the order of rows_
  AlignedBuffer<float> scores_;             // [query_rows, heads, entering_]
  std::unique_ptr<bool[]> keep_;            // by candidate
  AlignedBuffer<float> logits_;
  std::size_t step_ = 0;
  bool interrupted_ = false;  // a step ended in an exception: graph and session may disagree
  StepCounters last_;
  StepCounters prefill_totals_;
  StepCounters decode_totals_;
};

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
  unfinished_.reserve(capacity);
  unfinished_at_.resize(layer_count_);
  for (std::vector<TokenIndex>* tokens : {&entering_, &keys_, &rows_, &candidates_, &revivals_})
    tokens->reserve(capacity);
  hidden_ = AlignedBuffer<float>(capacity * hidden_dim_);
  scores_ = AlignedBuffer<float>(std::min(query_rows, capacity) * graph.head_count() * capacity);
  keep_ = std::make_unique_for_overwrite<bool[]>(capacity);
  if constexpr (LanguageGraph<Graph>) logits_ = AlignedBuffer<float>(graph.vocab_size());
  for (StepCounters* counters : {&last_, &prefill_totals_, &decode_totals_}) {
    counters->rows_computed.resize(layer_count_);
    counters->rows_finished.resize(layer_count_);
  }
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
  unfinished_.resize(depth_.size(), false);
  last_.revived = 0;
  // Every step starts again from the full context.
  entering_.resize(depth_.size());
  std::iota(entering_.begin(), entering_.end(), TokenIndex{0});
  rows_.assign(entering_.end() - static_cast<std::ptrdiff_t>(new_tokens), entering_.end());
  const bool prunes = depth_.size() >= options_.dense_below;
  if (prunes) {
    select_entering(before_first_layer, phase, {});
    park_dropped_rows(before_first_layer, false);
  }

  for (LayerIndex layer = 0; layer < layer_count_; ++layer) {
    for (const PrefillHook* hook : {&std::as_const(options_.on_prefill_layer), &on_layer}) {
      if (phase == Phase::prefill && *hook && !(*hook)(layer, layer_count_)) throw Cancelled();
    }
    collect_rows([&](TokenIndex token) { return depth_[token] == layer; });
    last_.rows_computed[layer] = rows_.size();
    const std::size_t wanted = prunes ? std::min<std::size_t>(policy_.query_rows(layer, phase), new_tokens) : 0;
    const std::size_t query_rows = consecutive_tail(wanted);
    if constexpr (SplitGraph<Graph>) {
      if (query_rows != 0 || finishes_parked(layer)) {
        run_split(layer, phase, query_rows, prunes);
        continue;
      }
    }
    run_whole(layer, phase, query_rows, prunes);
  }

  StepCounters& totals = phase == Phase::prefill ? prefill_totals_ : decode_totals_;
  for (LayerIndex layer = 0; layer < layer_count_; ++layer) {
    totals.rows_computed[layer] += last_.rows_computed[layer];
    totals.rows_finished[layer] += last_.rows_finished[layer];
  }
  totals.revived += last_.revived;
  ++step_;
  interrupted_ = false;
  return ConstRows(hidden_.data() + (rows_.size() - 1) * hidden_dim_, 1, hidden_dim_);
}

/// A layer as a whole, then the selection: who does not go on is parked with the layer's output.
template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::run_whole(LayerIndex layer, Phase phase, std::size_t query_rows, bool prunes) {
  const bool last_layer = layer + 1 == layer_count_;
  const ScoreView scores = scores_view(query_rows);
  const std::size_t outputs = last_layer ? std::max<std::size_t>(1, query_rows) : rows_.size();
  graph_.run_layer(LayerStep{.layer = layer,
                             .rows = rows_,
                             .keys = entering_,
                             .outputs = outputs,
                             .hidden = new_hidden_rows(rows_.size()),
                             .scores = scores});
  last_.rows_finished[layer] = outputs;
  for (const TokenIndex token : rows_) depth_[token] = static_cast<std::uint32_t>(layer + 1);
  if (prunes) select_entering(layer, phase, scores);
  if (prunes && !last_layer) park_dropped_rows(layer, false);
}

/// K and V, the selection, then the rest of the layer for those who go on: rows in flight, and tokens that an earlier
/// step parked half-way. Who does not go on is parked with the layer's input.
template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::run_split(LayerIndex layer, Phase phase, std::size_t query_rows,
                                           bool prunes) requires SplitGraph<Graph> {
  const bool last_layer = layer + 1 == layer_count_;
  LayerStep step{.layer = layer,
                 .rows = rows_,
                 .keys = entering_,
                 .outputs = rows_.size(),
                 .hidden = new_hidden_rows(rows_.size()),
                 .scores = scores_view(query_rows)};
  graph_.project_kv(step);
  for (const TokenIndex token : rows_) depth_[token] = static_cast<std::uint32_t>(layer + 1);
  if (query_rows != 0) graph_.score(step);
  keys_.assign(entering_.begin(), entering_.end());
  if (prunes) select_entering(layer, phase, step.scores);
  if (last_layer) {
    step.rows = std::span<const TokenIndex>(rows_).last(1);
    step.hidden = step.hidden.middle_rows(rows_.size() - 1, 1);
  } else {
    park_dropped_rows(layer, true);
    const auto runs = [&](TokenIndex token) {
      return depth_[token] == layer + 1 && (unfinished_[token] || !aux_.contains(token));
    };
    collect_rows(runs);
    for (const TokenIndex token : rows_) set_unfinished(token, layer, false);
    step.rows = rows_;
    step.hidden = new_hidden_rows(rows_.size());
  }
  step.keys = keys_;
  step.outputs = step.rows.size();
  step.scores = {};
  graph_.finish(step);
  last_.rows_finished[layer] = step.outputs;
}

/// Whether an entering token waits for the second half of this layer.
template <ModelGraph Graph, PruningPolicy Policy>
bool LazySession<Graph, Policy>::finishes_parked(LayerIndex layer) const {
  return unfinished_at_[layer] != 0 && std::any_of(entering_.begin(), entering_.end(), [&](TokenIndex token) {
           return unfinished_[token] && depth_[token] == layer + 1;
         });
}

template <ModelGraph Graph, PruningPolicy Policy>
ScoreView LazySession<Graph, Policy>::scores_view(std::size_t query_rows) {
  return query_rows == 0 ? ScoreView() : ScoreView(scores_.data(), query_rows, graph_.head_count(), entering_.size());
}

/// rows_ becomes the entering tokens for which runs(token). Those in flight lie at the front of hidden_ in order;
/// parked ones are revived: they come out of the Aux Cache into their places between them.
template <ModelGraph Graph, PruningPolicy Policy>
template <class Predicate>
void LazySession<Graph, Policy>::collect_rows(Predicate runs) {
  rows_.clear();
  std::size_t in_flight = 0;
  for (const TokenIndex token : entering_) {
    if (!runs(token)) continue;
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
  const std::span<bool> keep(keep_.get(), entering_.size());
  std::ranges::fill(keep, true);
  policy_.select(
      PruneContext{.phase = phase, .layer = layer, .context_size = depth_.size(), .tokens = entering_, .probs = scores},
      keep);
  keep.back() = true;
  if (phase == Phase::decode) limit_revivals(layer);
  if (options_.on_select) candidates_.assign(entering_.begin(), entering_.end());
  drop_unkept();
  if (options_.on_select && (!scores.empty() || entering_.size() != candidates_.size())) {
    options_.on_select(
        Selection{.step = step_, .layer = layer, .candidates = candidates_, .scores = importance(), .kept = entering_});
  }
}

/// How the policy ranked entering_ just now; empty where it does not tell.
template <ModelGraph Graph, PruningPolicy Policy>
std::span<const float> LazySession<Graph, Policy>::importance() const {
  if constexpr (ScoringPolicy<Policy>) return policy_.importance();
  return {};
}

/// Of the tokens to keep that would be revived for layer + 1, leaves the best decode_revivals; where the policy did not
/// rank, the first ones.
template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::limit_revivals(LayerIndex layer) {
  if (options_.decode_revivals >= entering_.size()) return;
  revivals_.clear();
  for (std::size_t i = 0; i < entering_.size(); ++i) {
    if (keep_[i] && depth_[entering_[i]] == layer + 1 && aux_.contains(entering_[i])) {
      revivals_.push_back(static_cast<std::uint32_t>(i));
    }
  }
  if (revivals_.size() <= options_.decode_revivals) return;
  const auto cut = revivals_.begin() + static_cast<std::ptrdiff_t>(options_.decode_revivals);
  const std::span<const float> ranks = importance();
  std::nth_element(revivals_.begin(), cut, revivals_.end(), [ranks](std::uint32_t a, std::uint32_t b) {
    return !ranks.empty() && ranks[a] != ranks[b] ? ranks[a] > ranks[b] : a < b;
  });
  std::for_each(cut, revivals_.end(), [this](std::uint32_t i) { keep_[i] = false; });
}

/// Rows that do not enter the next layer go to the Aux Cache, with the input of `layer`, whose second half they lack,
/// or with its output; the others close ranks at the front of hidden_.
template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::park_dropped_rows(LayerIndex layer, bool unfinished) {
  const Rows hidden = new_hidden_rows(rows_.size());
  std::size_t kept = 0;
  auto entering = entering_.begin();
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    entering = std::lower_bound(entering, entering_.end(), rows_[i]);
    if (entering == entering_.end() || *entering != rows_[i]) {
      aux_.store(rows_[i], hidden.row(i));
      if (unfinished) set_unfinished(rows_[i], layer, true);
    } else {
      if (kept != i) std::ranges::copy(hidden.row(i), hidden.row(kept).begin());
      ++kept;
    }
  }
}

template <ModelGraph Graph, PruningPolicy Policy>
void LazySession<Graph, Policy>::set_unfinished(TokenIndex token, LayerIndex layer, bool unfinished) {
  if (unfinished_[token] == unfinished) return;
  unfinished_[token] = unfinished;
  unfinished_at_[layer] += unfinished ? 1 : static_cast<std::size_t>(-1);
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
