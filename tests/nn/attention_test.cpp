#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <lazyllm/nn/attention.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "support/attention_oracle.hpp"
#include "support/every_isa.hpp"

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

/// Calls the body for one index at a time, from the last to the first.
struct BackwardExecutor {
  [[nodiscard]] static std::size_t concurrency() { return 1; }
  template <class Body>
  void parallel_for(std::size_t n, Body&& body) const {
    while (n-- > 0) body(n, n + 1);
  }
};

struct Result {
  std::vector<float> out;            // [rows, heads * head_dim]
  std::vector<float> probabilities;  // [query_rows, heads, keys]
};

/// A layer with random queries for every token of [0, tokens) and random K and V.
template <class Element>
struct Layer {
  Layer(std::size_t heads, std::size_t kv_heads, std::size_t head_dim, std::size_t tokens, unsigned seed)
      : shape{heads, kv_heads, head_dim, 1.0f / std::sqrt(static_cast<float>(head_dim))},
        kv(kv_heads, tokens, head_dim),
        queries(tokens * heads * head_dim) {
    std::mt19937 random(seed);
    fill_normal(kv.keys, random);
    fill_normal(kv.values, random);
    fill_normal(queries, random);
  }

  [[nodiscard]] std::size_t width() const { return shape.heads * shape.head_dim; }
  [[nodiscard]] std::span<const float> query(TokenIndex token, std::size_t head) const {
    return std::span(queries).subspan(token * width() + head * shape.head_dim, shape.head_dim);
  }

  template <Executor E>
  [[nodiscard]] Result run(std::span<const TokenIndex> rows, std::span<const TokenIndex> keys, std::size_t query_rows,
                           E& executor, Isa isa) const {
    std::vector<float> gathered;
    for (const TokenIndex row : rows) {
      gathered.insert(gathered.end(), queries.begin() + static_cast<std::ptrdiff_t>(row * width()),
                      queries.begin() + static_cast<std::ptrdiff_t>((row + 1) * width()));
    }
    Result result{std::vector<float>(gathered.size(), -7.0f),
                  std::vector<float>(query_rows * shape.heads * keys.size(), -7.0f)};
    AttentionScratch scratch;
    attention(shape, ConstRows(gathered.data(), rows.size(), width()), rows, keys, kv,
              Rows(result.out.data(), rows.size(), width()),
              ScoreView(result.probabilities.data(), query_rows, shape.heads, keys.size()), scratch, executor, isa);
    return result;
  }

  /// Every row, head and probability of `result` against the oracle.
  void check(const Result& result, std::span<const TokenIndex> rows, std::span<const TokenIndex> keys,
             std::size_t query_rows, Isa isa, bool exact_scores = false) const {
    const OperandRounding rounding = operand_rounding<Element, Element>(isa, shape.head_dim);
    double worst = 0.0;
    double worst_probability = 0.0;
    std::size_t not_zero_beyond_row = 0;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      for (std::size_t head = 0; head < shape.heads; ++head) {
        const AttentionAnswer answer =
            attention_oracle(query(rows[r], head), static_cast<double>(shape.scale), rows[r], keys, kv,
                             head / (shape.heads / shape.kv_heads), rounding, exact_scores);
        for (std::size_t i = 0; i < shape.head_dim; ++i) {
          const double got = static_cast<double>(result.out[r * width() + head * shape.head_dim + i]);
          const double error = std::fabs(got - answer.out[i]) / answer.out_bound[i];
          worst = std::isnan(error) ? HUGE_VAL : std::fmax(worst, error);
        }
        if (r + query_rows < rows.size()) continue;
        const std::size_t query_row = r + query_rows - rows.size();
        for (std::size_t k = 0; k < keys.size(); ++k) {
          const float got = result.probabilities[(query_row * shape.heads + head) * keys.size() + k];
          if (keys[k] > rows[r]) {
            not_zero_beyond_row += got != 0.0f;
            continue;
          }
          const double error = std::fabs(static_cast<double>(got) - answer.probabilities[k]);
          // e^-87.33 and less is flushed to zero.
          const double bound = answer.probability_bound * answer.probabilities[k] + 1.3e-38;
          worst_probability = std::isnan(error) ? HUGE_VAL : std::fmax(worst_probability, error / bound);
        }
      }
    }
    CHECK(worst <= 1.0);
    CHECK(worst_probability <= 1.0);
    CHECK(not_zero_beyond_row == 0);
  }

  AttentionShape shape;
  ArrayKv<Element> kv;
  std::vector<float> queries;
};

std::vector<TokenIndex> consecutive(TokenIndex first, std::size_t count) {
  std::vector<TokenIndex> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

/// A random subset, ascending; the last element always stays.
std::vector<TokenIndex> some_of(std::span<const TokenIndex> tokens, double share, std::mt19937& random) {
  std::vector<TokenIndex> kept;
  std::bernoulli_distribution keep(share);
  for (const TokenIndex token : tokens) {
    if (token == tokens.back() || keep(random)) kept.push_back(token);
  }
  return kept;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

}  // namespace

TEST_CASE_TEMPLATE("attention agrees with double precision for every head and group size", Element, float, BFloat16) {
  struct Case {
    std::size_t heads, kv_heads, head_dim;
  };
  SerialExecutor executor;
  for (const Case c : {Case{9, 3, 64}, Case{4, 4, 32}, Case{8, 2, 80}, Case{8, 1, 96}, Case{3, 1, 128}, Case{2, 2, 256},
                       Case{4, 1, 8}, Case{2, 1, 72}, Case{1, 1, 20}}) {
    const Layer<Element> layer(c.heads, c.kv_heads, c.head_dim, 75, 1);
    const std::vector<TokenIndex> tokens = consecutive(0, 75);
    CAPTURE(c.heads);
    CAPTURE(c.kv_heads);
    CAPTURE(c.head_dim);
    for_every_isa([&](Isa isa) { layer.check(layer.run(tokens, tokens, 2, executor, isa), tokens, tokens, 2, isa); });
  }
}

TEST_CASE_TEMPLATE("attention takes key lists with gaps and rows from the middle of the list", Element, float,
                   BFloat16) {
  const Layer<Element> layer(6, 2, 32, 1000, 2);
  SerialExecutor executor;
  std::mt19937 random(3);
  const std::vector<TokenIndex> keys = some_of(consecutive(0, 1000), 0.6, random);
  for (const double share : {0.005, 0.02, 0.1}) {
    const std::vector<TokenIndex> rows = some_of(keys, share, random);
    CAPTURE(rows.size());
    for_every_isa([&](Isa isa) { layer.check(layer.run(rows, keys, 1, executor, isa), rows, keys, 1, isa); });
  }
}

TEST_CASE_TEMPLATE("attention over one key returns its value", Element, float, BFloat16) {
  const Layer<Element> layer(6, 2, 32, 10, 4);
  SerialExecutor executor;
  const std::vector<TokenIndex> only{7};
  for_every_isa([&](Isa isa) {
    const Result result = layer.run(only, only, 1, executor, isa);
    for (std::size_t head = 0; head < 6; ++head) {
      std::vector<float> value(32);
      decode_row(layer.kv.value(head / 3, 7), std::span(value));
      CHECK(result.probabilities[head] == 1.0f);
      CHECK(same_bits(std::span(result.out).subspan(head * 32, 32), value));
    }
  });
}

TEST_CASE_TEMPLATE("attention rows of probabilities sum to one", Element, float, BFloat16) {
  const Layer<Element> layer(6, 2, 32, 700, 5);
  SerialExecutor executor;
  const std::vector<TokenIndex> tokens = consecutive(0, 700);
  for_every_isa([&](Isa isa) {
    const Result result = layer.run(tokens, tokens, 3, executor, isa);
    for (std::size_t row = 0; row < 3 * 6; ++row) {
      const auto begin = result.probabilities.begin() + static_cast<std::ptrdiff_t>(row * 700);
      const double sum = std::accumulate(begin, begin + 700, 0.0);
      CHECK(std::fabs(sum - 1.0) <= 700 * 0x1p-24 + 2e-6);  // summing 700 terms, and the exponentials of some rescales
    }
  });
}

TEST_CASE_TEMPLATE("attention survives very large and very negative scores", Element, float, BFloat16) {
  // Small integers times a power of two: every score is exact, so the bound does not grow with the scores.
  Layer<Element> layer(2, 1, 32, 600, 6);
  std::mt19937 random(7);
  std::uniform_int_distribution<int> integer(-20, 20);
  for (float& q : layer.queries) q = static_cast<float>(integer(random));
  for (Element& k : layer.kv.keys) put(k, static_cast<float>(integer(random)));
  const std::vector<TokenIndex> tokens = consecutive(0, 600);
  SerialExecutor executor;
  for (const float scale : {0x1p-8f, 1.0f, 0x1p60f, 0x1p100f}) {
    layer.shape.scale = scale;
    CAPTURE(scale);
    for_every_isa(
        [&](Isa isa) { layer.check(layer.run(tokens, tokens, 60, executor, isa), tokens, tokens, 60, isa, true); });
  }
}

TEST_CASE_TEMPLATE("attention of a row has the same bits whatever shares the call and whoever runs it", Element, float,
                   BFloat16) {
  const std::size_t count = 600;
  const Layer<Element> layer(6, 2, std::same_as<Element, float> ? 40 : 64, count, 8);
  std::mt19937 random(9);
  const std::vector<TokenIndex> keys = some_of(consecutive(0, count), 0.9, random);
  const std::span<const TokenIndex> all(keys);
  SerialExecutor serial;
  BackwardExecutor backward;
  ThreadPool two(2);
  ThreadPool three(3);
  for_every_isa([&](Isa isa) {
    const std::size_t n = all.size();
    const std::size_t width = layer.width();
    const Result whole = layer.run(all, all, n, serial, isa);
    const auto matches = [&](std::span<const TokenIndex> rows, std::span<const TokenIndex> visible,
                             const Result& result) {
      for (std::size_t r = 0; r < rows.size(); ++r) {
        const auto index = static_cast<std::size_t>(std::lower_bound(all.begin(), all.end(), rows[r]) - all.begin());
        if (!same_bits(std::span(result.out).subspan(r * width, width),
                       std::span(whole.out).subspan(index * width, width))) {
          return false;
        }
        for (std::size_t head = 0; head < layer.shape.heads; ++head) {
          if (!same_bits(std::span(result.probabilities).subspan((r * 6 + head) * visible.size(), visible.size()),
                         std::span(whole.probabilities).subspan((index * 6 + head) * n, visible.size()))) {
            return false;
          }
        }
      }
      return true;
    };
    for (const std::size_t rows : few_and_many_rows) {
      CAPTURE(rows);
      const std::span<const TokenIndex> last = all.last(rows);
      CHECK(matches(last, all,
                    rows % 2 == 0 ? layer.run(last, all, rows, two, isa) : layer.run(last, all, rows, three, isa)));
    }
    for (int i = 0; i < 20; ++i) {
      const std::vector<TokenIndex> rows = some_of(all.first(n - static_cast<std::size_t>(i)), 0.03 * i, random);
      CHECK(matches(rows, all, layer.run(rows, all, rows.size(), backward, isa)));
      // Keys after the last row change nothing.
      const std::span<const TokenIndex> seen = all.first(n - static_cast<std::size_t>(i));
      CHECK(matches(rows, seen, layer.run(rows, seen, rows.size(), two, isa)));
    }
  });
}

TEST_CASE_TEMPLATE("attention never touches what a row does not see", Element, float, BFloat16) {
  Layer<Element> layer(3, 1, 64, 200, 10);
  const std::vector<TokenIndex> tokens = consecutive(0, 200);
  SerialExecutor executor;
  for_every_isa([&](Isa isa) {
    const Result clean = layer.run(tokens, tokens, 200, executor, isa);
    Layer<Element> poisoned = layer;
    const std::size_t first = poisoned.kv.at(0, 101);
    // Where a product of weight 0 cannot be left out (attention's docstring), the largest number has to do.
    const float poison = operand_rounding<Element, Element>(isa, 64).weighed > 0.0 ? 0x1p127f : NAN;
    for (std::size_t i = first; i < poisoned.kv.keys.size(); ++i) {
      put(poisoned.kv.keys[i], poison);
      put(poisoned.kv.values[i], poison);
    }
    const Result result = poisoned.run(tokens, tokens, 200, executor, isa);
    CHECK(same_bits(std::span(result.out).first(101 * 192), std::span(clean.out).first(101 * 192)));
    CHECK(same_bits(std::span(result.probabilities).first(101 * 600), std::span(clean.probabilities).first(101 * 600)));
  });
}

TEST_CASE_TEMPLATE("attention reads and writes rows with a stride", Element, float, BFloat16) {
  const Layer<Element> layer(2, 1, 16, 20, 11);
  const std::vector<TokenIndex> tokens = consecutive(0, 20);
  SerialExecutor executor;
  AttentionScratch scratch;
  for_every_isa([&](Isa isa) {
    const Result dense = layer.run(tokens, tokens, 0, executor, isa);
    std::vector<float> wide(20 * 50, 3.0f);
    for (std::size_t r = 0; r < 20; ++r) std::copy_n(layer.queries.data() + r * 32, 32, wide.data() + r * 50);
    const Rows view(wide.data(), 20, 32, 50);
    attention(layer.shape, view, tokens, tokens, layer.kv, view, ScoreView{}, scratch, executor, isa);  // in place
    for (std::size_t r = 0; r < 20; ++r) {
      CHECK(same_bits(view.row(r), std::span(dense.out).subspan(r * 32, 32)));
      CHECK(std::all_of(wide.begin() + static_cast<std::ptrdiff_t>(r * 50 + 32),
                        wide.begin() + static_cast<std::ptrdiff_t>(r * 50 + 50), [](float x) { return x == 3.0f; }));
    }
  });
}
