// Attention over a real cache: every element for keys and values, in every layout.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <lazyllm/cache/kv_cache.hpp>
#include <lazyllm/nn/attention.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "support/adjacent_rows.hpp"
#include "support/attention_oracle.hpp"
#include "support/every_isa.hpp"

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

template <RowElement KeyElement, RowElement ValueElement>
struct Stored {
  using Key = KeyElement;
  using Value = ValueElement;
};

/// A cache's rows, whatever its layout: attention is compiled once for all layouts.
template <RowElement Key, RowElement Value>
struct AnyLayout {
  template <class Cache>
  AnyLayout(const Cache& cache, std::size_t tokens)
      : heads(cache.kv_head_count()), dim(cache.head_dim()), keys(heads * tokens), values(keys.size()) {
    for (TokenIndex token = 0; token < tokens; ++token) {
      for (std::size_t head = 0; head < heads; ++head) {
        if (!cache.contains(token)) continue;
        keys[token * heads + head] = cache.key(head, token);
        values[token * heads + head] = cache.value(head, token);
      }
    }
  }
  [[nodiscard]] const Key* key(std::size_t kv_head, TokenIndex token) const { return keys[token * heads + kv_head]; }
  [[nodiscard]] const Value* value(std::size_t kv_head, TokenIndex token) const {
    return values[token * heads + kv_head];
  }
  [[nodiscard]] bool adjacent(std::size_t kv_head, std::span<const TokenIndex> tokens) const {
    return rows_adjoin(*this, kv_head, tokens);
  }
  [[nodiscard]] std::size_t kv_head_count() const { return heads; }
  [[nodiscard]] std::size_t head_dim() const { return dim; }

  std::size_t heads, dim;
  std::vector<const Key*> keys;
  std::vector<const Value*> values;
};

/// Random queries, keys and values [tokens, ...] of a layer.
struct Inputs {
  Inputs(const AttentionShape& layer, std::size_t token_count, unsigned seed)
      : shape(layer),
        tokens(token_count),
        queries(tokens * shape.heads * shape.head_dim),
        keys(tokens * shape.kv_heads * shape.head_dim),
        values(keys.size()) {
    std::mt19937 random(seed);
    for (std::vector<float>* numbers : {&queries, &keys, &values}) fill_normal(*numbers, random);
  }
  template <class Cache>
  void store(Cache& cache, TokenIndex token) const {
    const std::size_t width = shape.kv_heads * shape.head_dim;
    cache.store(token, std::span(keys).subspan(token * width, width), std::span(values).subspan(token * width, width));
  }
  [[nodiscard]] std::span<const float> query(TokenIndex token, std::size_t head) const {
    return std::span(queries).subspan((token * shape.heads + head) * shape.head_dim, shape.head_dim);
  }
  [[nodiscard]] CacheShape cache_shape() const { return {shape.kv_heads, shape.head_dim, tokens}; }
  /// All tokens, in order.
  template <RowElement Key, RowElement Value>
  [[nodiscard]] LayerCache<TokenMajor, Key, Value> stored() const {
    LayerCache<TokenMajor, Key, Value> cache(cache_shape());
    for (TokenIndex token = 0; token < tokens; ++token) store(cache, token);
    return cache;
  }

  AttentionShape shape;
  std::size_t tokens;
  std::vector<float> queries, keys, values;
};

struct Result {
  std::vector<float> out, probabilities;
  friend bool operator==(const Result& a, const Result& b) {
    const auto same = [](const std::vector<float>& x, const std::vector<float>& y) {
      return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
    };
    return same(a.out, b.out) && same(a.probabilities, b.probabilities);
  }
};

/// Some rows, with a row of probabilities; column sums are added to `sums`, if given.
template <KeyValueReader KV, Executor E>
Result run(const Inputs& inputs, const KV& kv, std::span<const TokenIndex> keys, std::span<const TokenIndex> rows,
           E& executor, Isa isa, Rows sums = {}) {
  const std::size_t width = inputs.shape.heads * inputs.shape.head_dim;
  std::vector<float> queries;
  for (const TokenIndex row : rows) {
    const auto first = inputs.queries.begin() + static_cast<std::ptrdiff_t>(row * width);
    queries.insert(queries.end(), first, first + static_cast<std::ptrdiff_t>(width));
  }
  Result result{std::vector<float>(queries.size(), -7.0f), std::vector<float>(inputs.shape.heads * keys.size(), -7.0f)};
  const ScoreView probabilities(result.probabilities.data(), 1, inputs.shape.heads, keys.size());
  AttentionScratch scratch;
  attention(inputs.shape, ConstRows(queries.data(), rows.size(), width), rows, keys, kv,
            Rows(result.out.data(), rows.size(), width), {probabilities, sums}, scratch, executor, isa);
  return result;
}
/// The last `rows` of the keys.
template <KeyValueReader KV, Executor E>
Result run(const Inputs& inputs, const KV& kv, std::span<const TokenIndex> keys, std::size_t rows, E& executor,
           Isa isa) {
  return run(inputs, kv, keys, keys.last(rows), executor, isa);
}

/// A result of `run` against the oracle.
template <KeyValueReader KV>
void check(const Inputs& inputs, const KV& kv, std::span<const TokenIndex> keys, std::size_t rows, const Result& result,
           Isa isa) {
  const AttentionShape& shape = inputs.shape;
  const OperandRounding rounding = operand_rounding<KeyElementOf<KV>, ValueElementOf<KV>>(isa, shape.head_dim);
  double worst = 0.0, worst_probability = 0.0;
  const auto note = [](double& to, double ratio) { to = std::isnan(ratio) ? HUGE_VAL : std::fmax(to, ratio); };
  for (std::size_t r = 0; r < rows; ++r) {
    const TokenIndex row = keys[keys.size() - rows + r];
    for (std::size_t head = 0; head < shape.heads; ++head) {
      const AttentionAnswer answer = attention_oracle(inputs.query(row, head), double{shape.scale}, row, keys, kv,
                                                      head / (shape.heads / shape.kv_heads), rounding);
      for (std::size_t i = 0; i < shape.head_dim; ++i) {
        const double got = double{result.out[(r * shape.heads + head) * shape.head_dim + i]};
        note(worst, std::fabs(got - answer.out[i]) / answer.out_bound[i]);
      }
      if (r + 1 != rows) continue;
      for (std::size_t k = 0; k < keys.size(); ++k) {
        const double error = std::fabs(double{result.probabilities[head * keys.size() + k]} - answer.probabilities[k]);
        note(worst_probability, error / (answer.probability_bound * answer.probabilities[k] + 1.3e-38));
      }
    }
  }
  CHECK(worst <= 1.0);
  CHECK(worst_probability <= 1.0);
}

std::vector<TokenIndex> first_tokens(std::size_t count) {
  std::vector<TokenIndex> tokens(count);
  std::iota(tokens.begin(), tokens.end(), TokenIndex{0});
  return tokens;
}

std::vector<TokenIndex> keys_with_gaps(std::size_t tokens) {
  std::vector<TokenIndex> keys = first_tokens(tokens);
  std::erase_if(keys, [](TokenIndex token) { return token % 7 == 3; });
  return keys;
}

/// Column sums [heads, keys], from zeros on.
struct Sums {
  Sums(std::size_t heads, std::size_t keys) : numbers(heads * keys), view(numbers.data(), heads, keys) {}
  /// Adds those of `rows` rows from keys[first] on; gives the rest that attention tells, as `run` does.
  template <KeyValueReader KV, Executor E>
  Result add(const Inputs& inputs, const KV& kv, std::span<const TokenIndex> keys, std::size_t first, std::size_t rows,
             E& executor, Isa isa) {
    return run(inputs, kv, keys, keys.subspan(first, rows), executor, isa, view);
  }

  std::vector<float> numbers;
  Rows view;
};

/// A layout of the user's own: heads side by side, slots in tiles of four.
class Tiled {
 public:
  explicit Tiled(CacheShape shape) : heads_(shape.kv_heads), tiles_((shape.slots + 3) / 4) {}
  [[nodiscard]] std::size_t row(std::size_t kv_head, std::size_t slot) const {
    return (slot / 4 * heads_ + kv_head) * 4 + slot % 4;
  }
  [[nodiscard]] std::size_t row_count() const { return tiles_ * heads_ * 4; }

 private:
  std::size_t heads_, tiles_;
};

}  // namespace

#define LAZYLLM_STORED                                                                                                 \
  Stored<Float16, Float16>, Stored<Int8, Int8>, Stored<Int8, Float16>, Stored<Int8, BFloat16>, Stored<BFloat16, Int8>, \
      Stored<BFloat16, Float16>, Stored<float, Int8>

TEST_CASE_TEMPLATE("attention over stored rows of every element agrees with double precision over the same rows", S,
                   LAZYLLM_STORED) {
  SerialExecutor executor;
  for (const AttentionShape shape :
       {AttentionShape{9, 3, 64, 0.125f}, AttentionShape{2, 2, 80, 0.1118f}, AttentionShape{4, 1, 20, 0.2236f},
        AttentionShape{8, 1, 96, 0.1021f}, AttentionShape{2, 1, 128, 0.0884f}, AttentionShape{1, 1, 256, 0.0625f},
        AttentionShape{4, 1, 64, 0.125f}, AttentionShape{5, 1, 64, 0.125f}}) {
    const Inputs inputs(shape, 530, 1);
    const auto cache = inputs.stored<typename S::Key, typename S::Value>();
    const AnyLayout<typename S::Key, typename S::Value> kv(cache, inputs.tokens);
    const std::vector<TokenIndex> keys = first_tokens(inputs.tokens);
    CAPTURE(shape.head_dim);
    for_every_isa([&](Isa isa) {
      for (const std::size_t rows : {1u, 13u}) {
        const Result result = run(inputs, kv, keys, rows, executor, isa);
        check(inputs, kv, keys, rows, result, isa);
      }
    });
  }
}

TEST_CASE_TEMPLATE("layouts of the same elements give the same bits, also after tokens went and came back", S,
                   LAZYLLM_STORED) {
  const Inputs inputs(AttentionShape{6, 2, 64, 0.125f}, 800, 2);
  ThreadPool pool(2);
  std::mt19937 random(3);
  std::vector<TokenIndex> order = first_tokens(inputs.tokens);
  std::vector<TokenIndex> keys;
  for (const TokenIndex token : order) {
    if (token % 3 != 1) keys.push_back(token);
  }
  const auto fill = [&](auto cache) {
    std::shuffle(order.begin(), order.end(), random);
    for (const TokenIndex token : order) inputs.store(cache, token);
    for (TokenIndex token = 0; token < inputs.tokens; ++token) {
      if (token % 3 != 0) cache.remove(token);
    }
    for (TokenIndex token = 2; token < inputs.tokens; token += 3) inputs.store(cache, token);
    return cache;
  };
  using K = typename S::Key;
  using V = typename S::Value;
  const auto token_major = fill(LayerCache<TokenMajor, K, V>(inputs.cache_shape()));
  const auto head_major = fill(LayerCache<HeadMajor, K, V>(inputs.cache_shape()));
  const auto paged = fill(LayerCache<Paged<16>, K, V>(inputs.cache_shape()));
  const auto paged_heads = fill(LayerCache<Paged<64, HeadMajor>, K, V>(inputs.cache_shape()));
  const auto tiled = fill(LayerCache<Tiled, K, V>(inputs.cache_shape()));
  using Reader = AnyLayout<K, V>;
  const std::size_t n = inputs.tokens;
  for_every_isa([&](Isa isa) {
    for (const std::size_t rows : {1u, 70u}) {
      const Result expected = run(inputs, Reader(token_major, n), keys, rows, pool, isa);
      for (const Reader& kv : {Reader(head_major, n), Reader(paged, n), Reader(paged_heads, n), Reader(tiled, n)}) {
        CHECK(run(inputs, kv, keys, rows, pool, isa) == expected);
      }
    }
  });
}

TEST_CASE("attention of few rows has the same bits wherever 8-bit rows lie") {
  ThreadPool pool(2);
  for (const AttentionShape shape : {AttentionShape{2, 2, 64, 0.125f}, AttentionShape{6, 2, 64, 0.125f},
                                     AttentionShape{4, 1, 128, 0.0884f}, AttentionShape{6, 1, 256, 0.0625f}}) {
    const Inputs inputs(shape, 1700, 5);
    using Reader = AnyLayout<Int8, Int8>;
    const auto fill = [&](auto cache) {
      for (TokenIndex token = 0; token < inputs.tokens; ++token) {
        if (token % 5 != 4) inputs.store(cache, token);
      }
      return cache;
    };
    const auto head_major = fill(LayerCache<HeadMajor, Int8, Int8>(inputs.cache_shape()));
    const auto token_major = fill(LayerCache<TokenMajor, Int8, Int8>(inputs.cache_shape()));
    const auto paged = fill(LayerCache<Paged<64>, Int8, Int8>(inputs.cache_shape()));
    // Rows out of order in some groups, the first and the last among them.
    auto revived = fill(LayerCache<HeadMajor, Int8, Int8>(inputs.cache_shape()));
    for (const TokenIndex token : {1u, 300u, 903u, 1698u}) revived.remove(token);
    for (const TokenIndex token : {300u, 1698u, 1u, 903u}) inputs.store(revived, token);
    std::vector<TokenIndex> held;
    for (TokenIndex token = 0; token < inputs.tokens; ++token) {
      if (token % 5 != 4) held.push_back(token);
    }
    for (const std::size_t count : {1u, 16u, 100u, 512u, 528u, 1111u, 1360u}) {
      const auto keys = std::span<const TokenIndex>(held).first(count);
      CAPTURE(shape.head_dim);
      CAPTURE(count);
      for_every_isa([&](Isa isa) {
        SerialExecutor serial;
        for (const std::size_t rows : {1u, 2u, 3u}) {
          if (rows > count) continue;
          const Result expected = run(inputs, Reader(token_major, inputs.tokens), keys, rows, serial, isa);
          const Result whole = run(inputs, Reader(token_major, inputs.tokens), keys, std::min<std::size_t>(count, 9),
                                   serial, isa);  // by kernels of many rows
          CHECK(std::equal(expected.out.rbegin(), expected.out.rend(), whole.out.rbegin()));
          CHECK(run(inputs, Reader(head_major, inputs.tokens), keys, rows, serial, isa) == expected);
          CHECK(run(inputs, Reader(paged, inputs.tokens), keys, rows, pool, isa) == expected);
          CHECK(run(inputs, Reader(revived, inputs.tokens), keys, rows, pool, isa) == expected);
        }
      });
    }
  }
}

#define LAZYLLM_CODES Stored<Int8, Int8>, Stored<BFloat16, Int8>

TEST_CASE_TEMPLATE("attention on 8-bit codes has the same bits for a row whatever shares the call and whoever runs it",
                   S, LAZYLLM_CODES) {
  const Inputs inputs(AttentionShape{6, 2, 64, 0.125f}, 620, 4);
  const auto cache = inputs.stored<typename S::Key, typename S::Value>();
  const AnyLayout<typename S::Key, typename S::Value> kv(cache, inputs.tokens);
  const std::vector<TokenIndex> keys = keys_with_gaps(inputs.tokens);
  ThreadPool two(2), three(3);
  for_every_isa([&](Isa isa) {
    const Result whole = run(inputs, kv, keys, keys.size(), two, isa);
    for (const std::size_t rows : few_and_many_rows) {
      CAPTURE(rows);
      const Result part = run(inputs, kv, keys, rows, rows % 2 == 0 ? two : three, isa);
      CHECK(std::equal(part.out.rbegin(), part.out.rend(), whole.out.rbegin()));
      CHECK(part.probabilities == whole.probabilities);
    }
  });
}

#define LAZYLLM_SUMMED \
  Stored<float, float>, Stored<BFloat16, BFloat16>, Stored<Int8, Int8>, Stored<Int8, Float16>, Stored<BFloat16, Int8>

TEST_CASE_TEMPLATE("column sums agree with double precision, and are added to what is there", S, LAZYLLM_SUMMED) {
  ThreadPool two(2);
  for (const AttentionShape shape : {AttentionShape{6, 2, 64, 0.125f}, AttentionShape{7, 1, 20, 0.2236f}}) {
    const Inputs inputs(shape, 620, 8);
    const auto cache = inputs.stored<typename S::Key, typename S::Value>();
    const AnyLayout<typename S::Key, typename S::Value> kv(cache, inputs.tokens);
    const std::vector<TokenIndex> keys = keys_with_gaps(inputs.tokens);
    CAPTURE(shape.head_dim);
    for_every_isa([&](Isa isa) {
      const OperandRounding rounding = operand_rounding<typename S::Key, typename S::Value>(isa, shape.head_dim);
      for (const std::size_t rows : {1u, 5u, 90u}) {
        CAPTURE(rows);
        Sums sums(shape.heads, keys.size());
        std::ranges::fill(sums.numbers, 0.5f);
        const std::size_t unseen = 3;  // keys after the last row
        sums.add(inputs, kv, keys, keys.size() - unseen - rows, rows, two, isa);
        std::vector<double> exact(sums.numbers.size(), 0.5), bound(exact.size());
        for (std::size_t r = 0; r < rows; ++r) {
          const TokenIndex row = keys[keys.size() - unseen - rows + r];
          for (std::size_t head = 0; head < shape.heads; ++head) {
            const AttentionAnswer answer = attention_oracle(inputs.query(row, head), double{shape.scale}, row, keys, kv,
                                                            head / (shape.heads / shape.kv_heads), rounding);
            for (std::size_t k = 0; k < keys.size(); ++k) {
              exact[head * keys.size() + k] += answer.probabilities[k];
              bound[head * keys.size() + k] += answer.probabilities[k] * answer.probability_bound + 1.3e-38;
            }
          }
        }
        double worst = 0.0;
        for (std::size_t i = 0; i < exact.size(); ++i) {
          bound[i] += static_cast<double>(rows) * 0x1p-24 * exact[i];  // one rounding a row, of at most the sum
          const double ratio = std::fabs(double{sums.numbers[i]} - exact[i]) / bound[i];
          worst = std::isnan(ratio) ? HUGE_VAL : std::fmax(worst, ratio);
        }
        CHECK(worst <= 1.0);
      }
    });
  }
}

TEST_CASE_TEMPLATE(
    "column sums have the same bits however rows are cut into calls and whoever runs them; asking for "
    "them changes nothing else",
    S, LAZYLLM_SUMMED) {
  const Inputs inputs(AttentionShape{6, 2, 64, 0.125f}, 700, 9);
  const auto cache = inputs.stored<typename S::Key, typename S::Value>();
  const AnyLayout<typename S::Key, typename S::Value> kv(cache, inputs.tokens);
  const std::vector<TokenIndex> keys = keys_with_gaps(inputs.tokens);
  SerialExecutor serial;
  ThreadPool two(2), three(3);
  for_every_isa([&](Isa isa) {
    Sums whole(6, keys.size()), by_three(6, keys.size()), parts(6, keys.size());
    const Result result = whole.add(inputs, kv, keys, 0, keys.size(), two, isa);
    by_three.add(inputs, kv, keys, 0, keys.size(), three, isa);
    std::size_t done = 0;
    for (const std::size_t part : {std::size_t{1}, std::size_t{2}, std::size_t{9}, std::size_t{64}, std::size_t{131}}) {
      parts.add(inputs, kv, keys, done, part, serial, isa);
      done += part;
    }
    parts.add(inputs, kv, keys, done, keys.size() - done, two, isa);
    CHECK(by_three.numbers == whole.numbers);
    CHECK(parts.numbers == whole.numbers);
    CHECK(result == run(inputs, kv, keys, keys.size(), serial, isa));
  });
}

TEST_CASE("attention on 8-bit codes sums the products of codes exactly") {
  // Queries of whole steps: nothing is rounded before the scores, which are as exact as one conversion and two
  // products.
  SerialExecutor executor;
  Inputs inputs(AttentionShape{2, 1, 64, 0x1p-9f}, 530, 6);
  std::mt19937 random(7);
  std::uniform_int_distribution<int> code(-127, 127);
  for (float& q : inputs.queries) q = static_cast<float>(code(random));
  for (std::size_t i = 0; i < inputs.queries.size(); i += inputs.shape.head_dim) inputs.queries[i] = 127.0f;
  const auto cache = inputs.stored<Int8, Int8>();
  const AnyLayout<Int8, Int8> kv(cache, inputs.tokens);
  const std::vector<TokenIndex> keys = first_tokens(inputs.tokens);
  for_every_isa([&](Isa isa) { check(inputs, kv, keys, 20, run(inputs, kv, keys, 20, executor, isa), isa); });
}

TEST_CASE_TEMPLATE("attention on 8-bit codes stands zeros, and values and scores of very different sizes", S,
                   LAZYLLM_CODES) {
  SerialExecutor executor;
  constexpr std::size_t segment = detail::segment_keys;
  Inputs inputs(AttentionShape{2, 1, 64, 0.125f}, segment + 18, 5);
  const std::size_t dim = inputs.shape.head_dim;
  const auto scale_row = [&](std::vector<float>& rows, std::size_t row, float factor) {
    for (std::size_t i = 0; i < dim; ++i) rows[row * dim + i] *= factor;
  };
  for (std::size_t token = 0; token < inputs.tokens; ++token) {
    scale_row(inputs.values, token, std::ldexp(1.0f, static_cast<int>(token % 37) - 18));
    if (token % 5 == 0) scale_row(inputs.values, token, 0.0f);
    if (token % 11 == 0) scale_row(inputs.keys, token, token % 2 == 0 ? 0.0f : 30.0f);
  }
  for (std::size_t token = 0; token < segment; ++token) {
    scale_row(inputs.values, token, token < segment - 56 ? 0.0f : 1e-27f);
  }
  scale_row(inputs.queries, 2 * (inputs.tokens - 1), 0.0f);  // of the last row's first head
  const auto cache = inputs.stored<typename S::Key, typename S::Value>();
  const AnyLayout<typename S::Key, typename S::Value> kv(cache, inputs.tokens);
  for (const std::size_t count : {std::size_t{100}, segment - 6, inputs.tokens}) {
    const std::vector<TokenIndex> keys = first_tokens(count);
    for_every_isa([&](Isa isa) { check(inputs, kv, keys, 20, run(inputs, kv, keys, 20, executor, isa), isa); });
  }
}
