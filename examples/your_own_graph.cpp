// LazyLLM around a model of one's own: a small decoder written with Eigen, random weights, no model code of lazyllm.
// The whole contract is SmallDecoder's first functions; LazySession does the pruning, the Aux Cache and the revival.
// Five more, and a session can be cut back, forked, saved and loaded.
#include <lazyllm/lazy.hpp>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <vector>

namespace {

using Eigen::Index;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using lazyllm::ConstRows;
using lazyllm::Rows;
using lazyllm::TokenId;
using lazyllm::TokenIndex;

Eigen::Map<Matrix> as_eigen(Rows rows) {  // Rows made by the session are dense
  return {rows.data(), static_cast<Index>(rows.rows()), static_cast<Index>(rows.cols())};
}
Eigen::Map<const Matrix> as_eigen(ConstRows rows) {
  return {rows.data(), static_cast<Index>(rows.rows()), static_cast<Index>(rows.cols())};
}

/// Each row divided by its root mean square.
Matrix normalised(const Matrix& x) {
  return (x.array().colwise() / (x.rowwise().squaredNorm() / static_cast<float>(x.cols())).array().sqrt().max(1e-6f))
      .matrix();
}

/// A pre-norm decoder: attention with a penalty for distance (ALiBi), then a two-layer ReLU network.
class SmallDecoder {
 public:
  SmallDecoder(std::size_t layers, Index context_size) {
    std::mt19937 random(1);
    const auto weights = [&random](Index rows, Index cols) {
      std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(rows)));
      return Matrix(Matrix::NullaryExpr(rows, cols, [&] { return normal(random); }));
    };
    embedding_ = weights(vocab_, hidden_) * std::sqrt(static_cast<float>(vocab_));
    for (std::size_t i = 0; i < layers; ++i) {
      layers_.push_back({4.0f * weights(hidden_, hidden_), 4.0f * weights(hidden_, hidden_), weights(hidden_, hidden_),
                         weights(hidden_, hidden_), weights(hidden_, 4 * hidden_), weights(4 * hidden_, hidden_),
                         Matrix(context_size, hidden_), Matrix(context_size, hidden_)});
    }
  }

  // What the engine asks of a graph ...
  [[nodiscard]] std::size_t layer_count() const { return layers_.size(); }
  [[nodiscard]] static std::size_t head_count() { return static_cast<std::size_t>(heads_); }
  [[nodiscard]] static std::size_t hidden_dim() { return static_cast<std::size_t>(hidden_); }

  void run_layer(const lazyllm::LayerStep& step) {
    Layer& layer = layers_[step.layer];
    auto hidden = as_eigen(step.hidden);
    const Matrix normed = normalised(hidden);
    const Matrix query = normed * layer.query, key = normed * layer.key, value = normed * layer.value;
    for (Index row = 0; row < hidden.rows(); ++row) {  // K and V of every row, at the place of its token
      const TokenIndex token = step.rows[static_cast<std::size_t>(row)];
      layer.keys.row(token) = key.row(row);
      layer.values.row(token) = value.row(row);
    }
    Matrix attended = Matrix::Zero(hidden.rows(), hidden_);
    for (std::size_t row = step.rows.size() - step.outputs; row < step.rows.size(); ++row) {
      attend(step, layer, row, query, attended);
    }
    hidden += attended * layer.output;
    hidden += (normalised(hidden) * layer.up).cwiseMax(0.0f) * layer.down;
  }

  // ... and of a language model.
  [[nodiscard]] static std::size_t vocab_size() { return static_cast<std::size_t>(vocab_); }
  void embed(std::span<const TokenId> ids, Rows hidden) const {
    for (std::size_t r = 0; r < ids.size(); ++r) {
      as_eigen(hidden).row(static_cast<Index>(r)) = embedding_.row(ids[r]);
    }
  }
  void project(ConstRows hidden, Rows logits) const {
    as_eigen(logits) = normalised(as_eigen(hidden)) * embedding_.transpose();
  }

  // ... and of one whose sessions can be cut back, forked, saved and loaded: K and V of a token at a layer, as bytes.
  static void truncate(std::size_t) {}  // each token has a place of its own: nothing to do
  [[nodiscard]] static std::size_t token_bytes() { return 2 * hidden_dim() * sizeof(float); }
  void export_token(std::size_t layer, TokenIndex token, std::span<std::byte> out) const {
    std::memcpy(out.data(), layers_[layer].keys.row(token).data(), out.size() / 2);
    std::memcpy(out.data() + out.size() / 2, layers_[layer].values.row(token).data(), out.size() / 2);
  }
  void import_token(std::size_t layer, TokenIndex token, std::span<const std::byte> in) {
    std::memcpy(layers_[layer].keys.row(token).data(), in.data(), in.size() / 2);
    std::memcpy(layers_[layer].values.row(token).data(), in.data() + in.size() / 2, in.size() / 2);
  }
  [[nodiscard]] static std::uint64_t fingerprint() { return 1; }  // all weights come from one seed

 private:
  static constexpr Index hidden_ = 32, heads_ = 4, head_dim_ = hidden_ / heads_, vocab_ = 100;
  struct Layer {
    Matrix query, key, value, output, up, down;
    Matrix keys, values;  // [context, hidden]: this sequence's K and V, by token
  };

  /// One row's attention over the keys at and before its position. The last rows' probabilities are the scores that
  /// the engine asked for.
  static void attend(const lazyllm::LayerStep& step, const Layer& layer, std::size_t row, const Matrix& query,
                     Matrix& attended) {
    const TokenIndex position = step.rows[row];
    const auto r = static_cast<Index>(row);
    const std::size_t first_scored = step.rows.size() - step.scores.query_rows();
    for (Index head = 0; head < heads_; ++head) {
      const Index first = head * head_dim_;
      Eigen::VectorXf probabilities = Eigen::VectorXf::Zero(static_cast<Index>(step.keys.size()));
      for (std::size_t k = 0; k < step.keys.size() && step.keys[k] <= position; ++k) {
        const TokenIndex key = step.keys[k];
        const float dot = query.row(r).segment(first, head_dim_).dot(layer.keys.row(key).segment(first, head_dim_));
        const float distance = static_cast<float>(position - key) * std::exp2(-3.0f - static_cast<float>(head));
        probabilities[static_cast<Index>(k)] = std::exp(dot / std::sqrt(static_cast<float>(head_dim_)) - distance);
      }
      probabilities /= probabilities.sum();
      for (std::size_t k = 0; k < step.keys.size(); ++k) {
        attended.row(r).segment(first, head_dim_) +=
            probabilities[static_cast<Index>(k)] * layer.values.row(step.keys[k]).segment(first, head_dim_);
      }
      if (row >= first_scored) {
        std::ranges::copy(probabilities, step.scores.row(row - first_scored, static_cast<std::size_t>(head)).begin());
      }
    }
  }

  Matrix embedding_;
  std::vector<Layer> layers_;
};
static_assert(lazyllm::LanguageGraph<SmallDecoder> && lazyllm::SessionGraph<SmallDecoder>);

constexpr std::size_t layers = 6;
constexpr std::size_t prompt_size = 60;
constexpr std::size_t generated_size = 12;
constexpr std::size_t context_size = prompt_size + generated_size;

TokenId largest(std::span<const float> logits) {
  return static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
}

/// The same decoder without the engine: all tokens at all layers.
std::vector<TokenId> plain_loop(const std::vector<TokenId>& prompt, std::vector<float>& first_logits) {
  SmallDecoder graph(layers, context_size);
  std::vector<TokenIndex> keys;
  std::vector<TokenId> generated;
  std::vector<TokenId> next = prompt;
  while (generated.size() < generated_size) {
    const std::size_t before = keys.size();
    for (std::size_t i = 0; i < next.size(); ++i) keys.push_back(static_cast<TokenIndex>(before + i));
    Matrix hidden(static_cast<Index>(next.size()), static_cast<Index>(graph.hidden_dim()));
    const Rows rows(hidden.data(), next.size(), graph.hidden_dim());
    graph.embed(next, rows);
    for (std::size_t layer = 0; layer < layers; ++layer) {
      const std::size_t outputs = layer + 1 == layers ? 1 : next.size();
      graph.run_layer({layer, std::span(keys).subspan(before), keys, outputs, rows, {}});
    }
    std::vector<float> logits(graph.vocab_size());
    graph.project(rows.middle_rows(next.size() - 1, 1), Rows(logits.data(), 1, logits.size()));
    if (generated.empty()) first_logits = logits;
    next = {largest(logits)};
    generated.push_back(next.front());
  }
  return generated;
}

/// The decoder under LazySession. Prints what was pruned and revived when asked to.
template <lazyllm::PruningPolicy Policy>
std::vector<TokenId> lazy_loop(const std::vector<TokenId>& prompt, Policy policy, std::vector<float>& first_logits,
                               std::size_t& rows_computed, bool print) {
  SmallDecoder graph(layers, context_size);
  const auto show = [print](const lazyllm::Selection& s) {
    if (print) std::printf("  step %2zu: %2zu tokens go on after layer %zu\n", s.step, s.kept.size(), s.layer);
  };
  lazyllm::LazySession session(graph, policy, {.context_size = context_size, .on_select = show});
  std::vector<TokenId> generated;
  std::span<const float> logits = session.prefill(prompt);
  first_logits.assign(logits.begin(), logits.end());
  generated.push_back(largest(logits));
  while (generated.size() < generated_size) {
    generated.push_back(largest(session.decode(generated.back())));
    if (print) std::printf("  step %2zu: %2zu tokens revived\n", generated.size() - 1, session.last_step().revived);
  }
  rows_computed =
      session.totals(lazyllm::Phase::prefill).total_rows() + session.totals(lazyllm::Phase::decode).total_rows();
  return generated;
}

using Session = lazyllm::LazySession<SmallDecoder, lazyllm::TopKPolicy<>>;

std::vector<float> decode(Session& session, TokenId id) {
  const std::span<const float> logits = session.decode(id);
  return {logits.begin(), logits.end()};
}

/// One prompt, pruned once, goes on in four ways: here, in a fork, after a reload from a file, and, cut back to the
/// start that the two share, with another end.
bool sessions(const std::vector<TokenId>& prompt, const lazyllm::TopKPolicy<>& policy) {
  const lazyllm::SessionOptions options{.context_size = context_size};
  SmallDecoder graph(layers, context_size), fork_graph(layers, context_size), loaded_graph(layers, context_size);
  Session session(graph, policy, options);
  session.prefill(prompt);

  Session fork = session.fork(fork_graph);

  const char* const path = "lazyllm_your_own_graph.session";
  const std::vector<std::byte> saved = session.save();
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(saved.data()), std::ssize(saved));
  std::vector<char> bytes{std::istreambuf_iterator<char>(std::ifstream(path, std::ios::binary).rdbuf()), {}};
  std::remove(path);
  Session loaded(loaded_graph, policy, options);
  loaded.load(std::as_bytes(std::span(bytes)));

  const std::vector<float> expected = decode(session, 7);
  const bool same = decode(fork, 7) == expected && decode(loaded, 7) == expected;
  std::printf("a fork and a reloaded session (%zu bytes) %s the session\n", bytes.size(),
              same ? "equal" : "DIFFER FROM");

  std::vector<TokenId> held = prompt, other = prompt;
  held.push_back(7);
  other.back() += other.back() == 0 ? 1 : -1;
  const std::size_t shared = lazyllm::reuse_prefix(session, held, other);
  static_cast<void>(session.prefill(std::span(other).subspan(shared)));
  std::printf("another end of the prompt: %zu tokens are reused, %zu revived\n", shared, session.last_step().revived);
  return same && shared == prompt_size - 1;
}

}  // namespace

int main() {
  std::mt19937 random(2);
  std::vector<TokenId> prompt(prompt_size);
  for (TokenId& id : prompt) id = static_cast<TokenId>(random() % SmallDecoder::vocab_size());

  std::vector<float> plain_logits, dense_logits, lazy_logits;
  std::size_t dense_rows = 0, lazy_rows = 0;
  const auto plain = plain_loop(prompt, plain_logits);
  const auto dense = lazy_loop(prompt, lazyllm::KeepAll{}, dense_logits, dense_rows, false);
  std::printf("keep half after layer 2 and a quarter after layer 4:\n");
  const lazyllm::TopKPolicy policy(lazyllm::MeanOverHeads{}, lazyllm::parse_schedule("2:0.5,4:0.25"));
  static_cast<void>(lazy_loop(prompt, policy, lazy_logits, lazy_rows, true));
  std::printf("rows computed: %zu dense, %zu with LazyLLM\n", dense_rows, lazy_rows);

  const bool same = plain == dense && plain_logits == dense_logits;
  const bool fewer = lazy_rows < dense_rows && dense_rows == layers * (context_size - 1);
  std::printf("keeping everything %s the plain loop, bit for bit\n", same ? "equals" : "DIFFERS FROM");
  const bool sessions_agree = sessions(prompt, policy);
  return same && fewer && sessions_agree ? 0 : 1;
}
