#include <doctest/doctest.h>

#include <lazyllm/cache/kv_cache.hpp>
#include <numeric>
#include <random>
#include <vector>

using namespace lazyllm;

namespace {

/// A layout of the user's own: heads side by side, slots in tiles of four.
class Tiled {
 public:
  explicit Tiled(CacheShape shape) : shape_(shape) {}
  std::size_t offset(std::size_t kv_head, std::size_t slot) const {
    return (((slot / 4) * shape_.kv_heads + kv_head) * 4 + slot % 4) * shape_.head_dim;
  }
  std::size_t required_size() const { return (shape_.slots + 3) / 4 * 4 * shape_.kv_heads * shape_.head_dim; }

 private:
  CacheShape shape_;
};
static_assert(CacheLayout<Tiled>);
static_assert(KeyValueReader<LayerCache<Tiled>> && !KeyValueReader<Tiled>);

float expected(TokenIndex token, std::size_t head, std::size_t i, bool is_key) {
  return static_cast<float>(token) * 1000.0f + static_cast<float>(head * 100 + i) + (is_key ? 0.25f : 0.75f);
}

}  // namespace

TEST_CASE_TEMPLATE("A layer finds each token's own K and V whatever the order of arrival", Layout, TokenMajor,
                   HeadMajor, Tiled) {
  constexpr std::size_t heads = 3, dim = 4, tokens = 41;
  LayerCache<Layout> cache(CacheShape{heads, dim, tokens});
  std::vector<TokenIndex> order(tokens);
  std::iota(order.begin(), order.end(), TokenIndex{0});
  std::shuffle(order.begin(), order.end(), std::mt19937(3));
  for (const TokenIndex token : order) {
    std::vector<float> key, value;
    for (std::size_t head = 0; head < heads; ++head) {
      for (std::size_t i = 0; i < dim; ++i) {
        key.push_back(expected(token, head, i, true));
        value.push_back(expected(token, head, i, false));
      }
    }
    CHECK_FALSE(cache.contains(token));
    cache.store(token, key, value);
    CHECK(cache.contains(token));
  }
  for (TokenIndex token = 0; token < tokens; ++token) {
    for (std::size_t head = 0; head < heads; ++head) {
      for (std::size_t i = 0; i < dim; ++i) {
        CHECK(cache.key(head, token)[i] == expected(token, head, i, true));
        CHECK(cache.value(head, token)[i] == expected(token, head, i, false));
      }
    }
  }
  CHECK(cache.size() == tokens);
}

TEST_CASE("Bytes in use count the tokens that were computed at each layer") {
  KvCache<> cache(2, CacheShape{2, 8, 100});
  const std::vector<float> row(16);
  cache.layer(0).store(7, row, row);
  cache.layer(0).store(99, row, row);
  cache.layer(1).store(7, row, row);
  CHECK(cache.size_bytes() == 3 * 2 * 16 * sizeof(float));
}

TEST_CASE("BFloat16 elements are the stored floats rounded to nearest even, in half the bytes") {
  LayerCache<TokenMajor, BFloat16> cache(CacheShape{1, 4, 8});
  const std::vector<float> key{1.0f, -1.00390625f, 3.01171875f, 0.1f};  // exact, a tie each way, between
  const std::vector<float> value{1e38f, -0.0f, 65504.0f, 1e-39f};
  cache.store(5, key, value);
  const std::vector<float> rounded_key{1.0f, -1.0f, 3.015625f, 0.10009765625f};
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(to_float(cache.key(0, 5)[i]) == rounded_key[i]);
    CHECK(cache.value(0, 5)[i] == to_bfloat16(value[i]));
  }
  CHECK(cache.size_bytes() == 2 * 4 * sizeof(BFloat16));
}
