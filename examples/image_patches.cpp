// LazyLLM without language: the patches of an image are the tokens, and a question token after them asks where
// something is. lazyllm/lazy.hpp alone prunes the patches that do not matter to the first question, and revives those
// that matter to the second. The image is made here, and the small network's weights are set by hand: it finds bright
// or dark spots.
#include <lazyllm/lazy.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

namespace {

using lazyllm::LayerIndex;
using lazyllm::Rows;
using lazyllm::TokenIndex;

constexpr std::size_t side = 12;  // patches
constexpr std::size_t patches = side * side;
constexpr std::size_t questions = 2;

/// A token's hidden state: what it looks for (1 bright, -1 dark, 0 a patch), what it shows, where, and what it has
/// found.
enum Feature : std::size_t { wants, shows, at_x, at_y, found_x, found_y, feature_count };

/// Each layer lets a token attend to what looks as it wants, and adds where that is to what it has found; then it
/// sharpens the contrast of what the token shows. Patches see all patches: an image has no order of reading.
class SpotFinder {
 public:
  [[nodiscard]] static std::size_t layer_count() { return 4; }
  [[nodiscard]] static std::size_t head_count() { return 1; }
  [[nodiscard]] static std::size_t hidden_dim() { return feature_count; }

  void run_layer(const lazyllm::LayerStep& step) {
    auto& keys = keys_[step.layer];
    for (std::size_t r = 0; r < step.rows.size(); ++r)
      std::ranges::copy(step.hidden.row(r), keys[step.rows[r]].begin());
    std::vector<float> attention(step.keys.size());
    for (std::size_t r = 0; r < step.rows.size(); ++r) {
      const std::span<float> row = step.hidden.row(r);
      attend(row, step.keys, keys, attention);
      for (std::size_t k = 0; k < step.keys.size(); ++k) {
        const Token& key = keys[step.keys[k]];
        row[found_x] += attention[k] * key[at_x] / static_cast<float>(layer_count());
        row[found_y] += attention[k] * key[at_y] / static_cast<float>(layer_count());
      }
      row[shows] = std::tanh(1.5f * row[shows]);
      const std::size_t first_scored = step.rows.size() - step.scores.query_rows();
      if (r >= first_scored) std::ranges::copy(attention, step.scores.row(r - first_scored, 0).begin());
    }
  }

 private:
  using Token = std::array<float, feature_count>;

  /// The softmax of how much each patch looks as the row wants; questions see no other question.
  static void attend(std::span<const float> row, std::span<const TokenIndex> tokens,
                     const std::array<Token, patches + questions>& keys, std::span<float> attention) {
    float sum = 0;
    for (std::size_t k = 0; k < tokens.size(); ++k) {
      attention[k] = tokens[k] < patches ? std::exp(12 * row[wants] * keys[tokens[k]][shows]) : 0.0f;
      sum += attention[k];
    }
    for (float& a : attention) a /= sum;
  }

  std::array<std::array<Token, patches + questions>, 4> keys_{};  // by layer and token
};
static_assert(lazyllm::ModelGraph<SpotFinder>);

/// Grey with a fixed pattern of small noise, a bright spot at the upper left and a dark one at the lower right.
std::vector<float> image() {
  std::vector<float> tokens(patches * feature_count);
  for (std::size_t y = 0; y < side; ++y) {
    for (std::size_t x = 0; x < side; ++x) {
      float* const token = tokens.data() + (y * side + x) * feature_count;
      token[shows] = static_cast<float>((x * 7 + y * 13) % 11) / 50 - 0.1f;
      if (x - 2 < 2 && y - 3 < 2) token[shows] = 0.8f;
      if (x - 8 < 2 && y - 9 < 2) token[shows] = -0.8f;
      token[at_x] = static_cast<float>(x);
      token[at_y] = static_cast<float>(y);
    }
  }
  return tokens;
}

struct Place {
  long x, y;
  friend bool operator==(Place, Place) = default;
};

/// Asks for the bright spot together with the image, then for the dark one.
template <lazyllm::PruningPolicy Policy>
std::array<Place, questions> ask(const Policy& policy, std::size_t& rows, std::size_t& revived, bool draw) {
  lazyllm::SessionOptions options{.context_size = patches + questions};
  options.on_select = [draw](const lazyllm::Selection& s) {
    if (!draw) return;
    std::string picture(patches, '.');
    for (const TokenIndex token : s.kept) {
      if (token < patches) picture[token] = '#';
    }
    std::printf("question %zu, patches that go on after layer %zu:\n", s.step + 1, s.layer);
    for (std::size_t y = 0; y < side; ++y) std::printf("  %s\n", picture.substr(y * side, side).c_str());
  };
  SpotFinder graph;
  lazyllm::LazySession session(graph, policy, options);
  const auto place = [](std::span<const float> answer) {
    return Place{std::lround(answer[found_x] * 10), std::lround(answer[found_y] * 10)};
  };
  std::vector<float> tokens = image();
  tokens.resize(tokens.size() + feature_count);
  tokens[patches * feature_count + wants] = 1;
  const Place bright = place(session.step({tokens.data(), patches + 1, feature_count}, lazyllm::Phase::prefill));
  std::array<float, feature_count> dark_question{};
  dark_question[wants] = -1;
  const Place dark = place(session.step({dark_question.data(), 1, feature_count}, lazyllm::Phase::decode));
  rows = session.totals(lazyllm::Phase::prefill).total_rows();
  revived = session.last_step().revived;
  return {bright, dark};
}

}  // namespace

int main() {
  std::size_t dense_rows = 0, dense_revived = 0, rows = 0, revived = 0;
  const auto dense = ask(lazyllm::KeepAll{}, dense_rows, dense_revived, false);
  const lazyllm::TopKPolicy policy(lazyllm::MeanOverHeads{}, lazyllm::parse_schedule("0:17"));
  const auto pruned = ask(policy, rows, revived, true);
  std::printf("bright spot at %.1f, %.1f; dark spot at %.1f, %.1f: %s without pruning\n",
              static_cast<double>(pruned[0].x) / 10, static_cast<double>(pruned[0].y) / 10,
              static_cast<double>(pruned[1].x) / 10, static_cast<double>(pruned[1].y) / 10,
              pruned == dense ? "as" : "NOT AS");
  std::printf("rows of the first question: %zu of %zu; the second revived %zu patches\n", rows, dense_rows, revived);
  return pruned == dense && dense == std::array{Place{25, 35}, Place{85, 95}} && rows == patches + 1 + 3 * 17 &&
                 revived > 0
             ? 0
             : 1;
}
