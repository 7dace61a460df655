#include <lazyllm/nn/value_norms.hpp>

#include <doctest/doctest.h>

#include <lazyllm/cache/kv_cache.hpp>
#include <lazyllm/parallel/thread_pool.hpp>

#include "support/attention_oracle.hpp"

#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

using namespace lazyllm;
using namespace lazyllm::test;

TEST_CASE_TEMPLATE("value_norms are the sums of the magnitudes of what is stored, for each query head its KV head's",
                   Element, float, Float16, BFloat16, Int8) {
  ThreadPool two(2);
  std::mt19937 random(1);
  for (const std::size_t dim : {1u, 15u, 16u, 20u, 64u, 100u}) {
    CAPTURE(dim);
    LayerCache<TokenMajor, Element> cache(CacheShape{.kv_heads = 3, .head_dim = dim, .slots = 9});
    std::vector<float> keys(3 * dim), values(3 * dim);
    for (TokenIndex token = 0; token < 9; ++token) {
      fill_normal(values, random);
      if (token == 4) std::fill(values.begin(), values.end(), 0.0f);
      cache.store(token, keys, values);
    }
    const std::vector<TokenIndex> tokens{0, 3, 4, 8};
    std::vector<float> norms(6 * tokens.size(), -1.0f);
    value_norms(cache, tokens, Rows(norms.data(), 6, tokens.size()), two);
    for (std::size_t head = 0; head < 6; ++head) {
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        double sum = 0;
        for (const double x : exact_row(cache.value(head / 2, tokens[i]), dim)) sum += std::fabs(x);
        const double error = std::fabs(double{norms[head * tokens.size() + i]} - sum);
        CHECK(error <=
              static_cast<double>(dim + 2) * 0x1p-24 * sum);  // a rounding an addition or code, one of the scale
      }
    }
  }
}
