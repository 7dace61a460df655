#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <lazyllm/cache/kv_cache.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <map>
#include <numeric>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "support/adjacent_rows.hpp"
#include "support/allocation_count.hpp"

using namespace lazyllm;
using lazyllm::test::AllocationCount;
using lazyllm::test::counts_allocations;
using lazyllm::test::rows_adjoin;

namespace {

/// A layout of the user's own: heads side by side, slots in tiles of four.
class Tiled {
 public:
  explicit Tiled(CacheShape shape) : shape_(shape) {}
  std::size_t row(std::size_t kv_head, std::size_t slot) const {
    return ((slot / 4) * shape_.kv_heads + kv_head) * 4 + slot % 4;
  }
  std::size_t row_count() const { return (shape_.slots + 3) / 4 * 4 * shape_.kv_heads; }

 private:
  CacheShape shape_;
};
static_assert(CacheLayout<Tiled> && !PagedLayout<Tiled>);
using PagedTiled = Paged<16, Tiled>;
static_assert(KeyValueReader<LayerCache<Tiled>> && !KeyValueReader<Tiled>);
static_assert(KeyValueCache<KvCache<PagedTiled, Int8, BFloat16>> && !KeyValueCache<LayerCache<>>);

float expected(TokenIndex token, std::size_t head, std::size_t i, bool is_key) {
  return static_cast<float>(token) * 1000.0f + static_cast<float>(head * 100 + i) + (is_key ? 0.25f : 0.75f);
}

/// K and V of one token, [kv_heads * head_dim] each.
using KeyValue = std::pair<std::vector<float>, std::vector<float>>;

KeyValue random_key_value(std::size_t width, std::mt19937& random) {
  std::normal_distribution<float> normal;
  KeyValue row{std::vector<float>(width), std::vector<float>(width)};
  for (std::vector<float>* part : {&row.first, &row.second}) {
    for (float& x : *part) x = normal(random);
  }
  return row;
}

/// Whether the layer holds these tokens with these bits, and no others.
template <class Cache>
bool holds(const Cache& cache, const std::map<TokenIndex, KeyValue>& expected, TokenIndex tokens) {
  if (cache.size() != expected.size() || cache.size_bytes() != expected.size() * cache.token_bytes()) return false;
  for (TokenIndex token = 0; token < tokens; ++token) {
    const auto at = expected.find(token);
    if (cache.contains(token) != (at != expected.end())) return false;
    if (at == expected.end()) continue;
    for (std::size_t head = 0; head < cache.kv_head_count(); ++head) {
      const std::size_t first = head * cache.head_dim();
      const std::size_t bytes = cache.head_dim() * sizeof(float);
      if (std::memcmp(cache.key(head, token), at->second.first.data() + first, bytes) != 0) return false;
      if (std::memcmp(cache.value(head, token), at->second.second.data() + first, bytes) != 0) return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE_TEMPLATE("A layer agrees with a dictionary of vectors over random stores, removals, truncations and imports",
                   Layout, TokenMajor, HeadMajor, Tiled, Paged<8>, PagedTiled) {
  constexpr std::size_t heads = 3, dim = 4;
  constexpr TokenIndex tokens = 61;
  LayerCache<Layout, float> cache(CacheShape{heads, dim, tokens});
  std::map<TokenIndex, KeyValue> oracle;
  std::mt19937 random(11);
  std::vector<std::byte> bytes(cache.token_bytes());
  for (int i = 0; i < 4000; ++i) {
    // At first each token has its own index as slot.
    if (i % 200 == 0) {
      cache.truncate(0);
      oracle.clear();
    }
    const bool in_order = i % 200 < 40 && random() % 4 != 0;
    const TokenIndex token = static_cast<TokenIndex>(in_order ? cache.size() % tokens : random() % tokens);
    if (!cache.contains(token)) {
      const KeyValue row = random_key_value(heads * dim, random);
      cache.store(token, row.first, row.second);
      oracle[token] = row;
    } else if (random() % 3 == 0) {
      const TokenIndex other = static_cast<TokenIndex>(random() % tokens);
      if (!cache.contains(other)) {
        cache.export_token(token, bytes);
        cache.import_token(other, bytes);
        oracle[other] = oracle[token];
      }
    } else {
      cache.remove(token);
      oracle.erase(token);
    }
    if (random() % 200 == 0) {
      const std::size_t kept = random() % (tokens + 5);
      cache.truncate(kept);
      std::erase_if(oracle, [&](const auto& entry) { return entry.first >= kept; });
    }
    REQUIRE(holds(cache, oracle, tokens));
  }
}

TEST_CASE_TEMPLATE("A layer tells where rows lie one behind the other", Layout, TokenMajor, HeadMajor, Tiled, Paged<8>,
                   PagedTiled) {
  constexpr std::size_t heads = 2, dim = 4;
  constexpr TokenIndex tokens = 40;
  std::mt19937 random(14);
  std::size_t adjacent = 0;
  for (int pass = 0; pass < 200; ++pass) {
    // Ascending with gaps; then also tokens that came back, or went.
    LayerCache<Layout, float> cache(CacheShape{heads, dim, tokens});
    const std::vector<float> row(heads * dim);
    for (TokenIndex token = 0; token < tokens; ++token) {
      if (pass % 3 == 0 || random() % 8 != 0) cache.store(token, row, row);
    }
    for (int change = 0; change < pass % 5; ++change) {
      const TokenIndex token = static_cast<TokenIndex>(random() % tokens);
      cache.contains(token) ? cache.remove(token) : cache.store(token, row, row);
    }
    if (pass % 7 == 0) cache.truncate(tokens / 2);
    std::vector<TokenIndex> held;
    for (TokenIndex token = 0; token < tokens; ++token) {
      if (cache.contains(token)) held.push_back(token);
    }
    for (std::size_t first = 0; first < held.size(); ++first) {
      for (std::size_t count = 0; first + count <= held.size(); ++count) {
        const auto some = std::span<const TokenIndex>(held).subspan(first, count);
        const std::size_t head = count % heads;
        const bool told = cache.adjacent(head, some);
        REQUIRE(told == rows_adjoin(cache, head, some));
        if (told && count > 1) ++adjacent;
      }
    }
    if (held.size() < 5) continue;
    std::vector<TokenIndex> others{held[0], held[2], held[3]};
    REQUIRE(cache.adjacent(0, others) == rows_adjoin(cache, 0, others));
  }
  CHECK((adjacent > 0) == !std::same_as<Layout, TokenMajor>);
}

TEST_CASE_TEMPLATE("Tokens that are added first may be stored side by side, by two threads", Layout, TokenMajor,
                   HeadMajor, Paged<8>) {
  constexpr std::size_t heads = 3, dim = 64, tokens = 300;
  std::mt19937 random(12);
  const KeyValue rows = random_key_value(tokens * heads * dim, random);
  const ConstRows keys(rows.first.data(), tokens, heads * dim), values(rows.second.data(), tokens, heads * dim);
  std::vector<TokenIndex> order(tokens);
  std::iota(order.begin(), order.end(), TokenIndex{0});
  std::shuffle(order.begin(), order.end(), random);
  LayerCache<Layout> side_by_side(CacheShape{heads, dim, tokens}), one_by_one(CacheShape{heads, dim, tokens});
  side_by_side.add(order);
  CHECK(side_by_side.size() == tokens);
  ThreadPool pool(2);
  pool.parallel_for(tokens, [&](std::size_t begin, std::size_t end) {
    for (std::size_t r = begin; r < end; ++r) side_by_side.store(order[r], keys.row(r), values.row(r));
  });
  for (std::size_t r = 0; r < tokens; ++r) one_by_one.store(order[r], keys.row(r), values.row(r));
  std::vector<std::byte> bits(side_by_side.token_bytes()), expected(side_by_side.token_bytes());
  for (TokenIndex token = 0; token < tokens; ++token) {
    side_by_side.export_token(token, bits);
    one_by_one.export_token(token, expected);
    REQUIRE(bits == expected);
  }
  side_by_side.store(order[0], keys.row(1), values.row(1));  // a token that is here gets other rows
  CHECK(side_by_side.size() == tokens);
  side_by_side.export_token(order[0], bits);
  side_by_side.export_token(order[1], expected);
  CHECK(bits == expected);
}

TEST_CASE("A layer holds as many tokens as it has slots, also after every one of them was removed and came back") {
  constexpr TokenIndex tokens = 10;
  LayerCache<TokenMajor, float> cache(CacheShape{1, 2, tokens});
  for (int round = 0; round < 3; ++round) {
    for (TokenIndex token = 0; token < tokens; ++token) {
      const std::vector<float> row(2, static_cast<float>(token));
      cache.store(token, row, row);
    }
    CHECK(cache.size() == tokens);
    for (TokenIndex token = 0; token < tokens; ++token) {
      CHECK(cache.key(0, token)[1] == static_cast<float>(token));
      cache.remove(token);
    }
    CHECK(cache.size_bytes() == 0);
  }
}

TEST_CASE_TEMPLATE("Exported bits come back identical in a cache of another layout, NaNs included", Element, float,
                   Float16, BFloat16) {
  LayerCache<HeadMajor, Element> from(CacheShape{2, 4, 9});
  LayerCache<Paged<2, Tiled>, Element> to(CacheShape{2, 4, 9});
  const std::vector<float> key{NAN, -0.0f, 1e-39f, HUGE_VALF, 0.1f, 3.0f, -7.0f, 1e38f};
  const std::vector<float> value{8.0f, 7.0f, 6.0f, 5.0f, NAN, 3.0f, 2.0f, 1.0f};
  from.store(8, std::vector<float>(8), std::vector<float>(8));
  from.store(3, key, value);
  CHECK(from.token_bytes() == 16 * sizeof(Element));
  std::vector<std::byte> bits(from.token_bytes()), again(from.token_bytes());
  from.export_token(3, bits);
  to.import_token(5, bits);
  to.export_token(5, again);
  CHECK(bits == again);
  for (std::size_t head = 0; head < 2; ++head) {
    CHECK(std::memcmp(from.key(head, 3), to.key(head, 5), 4 * sizeof(Element)) == 0);
    CHECK(std::memcmp(from.value(head, 3), to.value(head, 5), 4 * sizeof(Element)) == 0);
  }
}

TEST_CASE("Truncating a cache forgets the later tokens at every layer") {
  KvCache<TokenMajor, float> cache(2, CacheShape{1, 2, 8});
  const std::vector<float> row(2);
  for (const TokenIndex token : {5u, 1u, 4u, 7u}) cache.layer(0).store(token, row, row);
  cache.layer(1).store(4, row, row);
  cache.truncate(5);
  CHECK(cache.layer(0).size() == 2);
  CHECK((cache.layer(0).contains(1) && cache.layer(0).contains(4)));
  CHECK(cache.layer(1).contains(4));
  cache.truncate(0);
  CHECK(cache.size_bytes() == 0);
}

TEST_CASE("Layers take pages for the tokens they hold, and share those that others gave back") {
  using Cache = KvCache<Paged<4>, float>;
  Cache cache(2, CacheShape{2, 4, 100});
  constexpr std::size_t page_bytes = 4 * 2 * 8 * sizeof(float);
  const std::vector<float> row(8);
  CHECK(cache.reserved_bytes() == 0);
  for (TokenIndex token = 0; token < 9; ++token) cache.layer(0).store(token, row, row);
  CHECK(cache.reserved_bytes() == 3 * page_bytes);
  CHECK(cache.size_bytes() == 9 * page_bytes / 4);
  cache.layer(0).remove(2);  // the last page's only token takes the place
  for (TokenIndex token = 0; token < 4; ++token) cache.layer(1).store(token, row, row);
  CHECK(cache.reserved_bytes() == 3 * page_bytes);
  cache.layer(1).store(4, row, row);
  CHECK(cache.reserved_bytes() == 4 * page_bytes);
  cache.truncate(0);
  for (TokenIndex token = 0; token < 16; ++token) cache.layer(1).store(token + 50, row, row);
  CHECK(cache.reserved_bytes() == 4 * page_bytes);
}

TEST_CASE("A layer allocates nothing after construction, with a paged layout only a page when the pages are full") {
  if (!counts_allocations) {
    MESSAGE("skipped: allocations are not counted under the thread sanitizer");
    return;
  }
  const std::vector<float> row(8);
  const auto allocations = [&](auto cache) {
    std::vector<std::byte> bits(cache.token_bytes());
    const AllocationCount count;
    for (int round = 0; round < 2; ++round) {
      for (TokenIndex token = 0; token < 49; ++token) cache.store(token, row, row);
      cache.export_token(20, bits);
      cache.import_token(49, bits);
      for (TokenIndex token = 10; token < 20; ++token) cache.remove(token);
      cache.truncate(5);
      cache.truncate(0);
    }
    return count.calls();
  };
  CHECK(allocations(LayerCache<>(CacheShape{2, 4, 50})) == 0);
  CHECK(allocations(LayerCache<Paged<16>, Int8>(CacheShape{2, 4, 50})) == 4);
}

#ifndef NDEBUG
TEST_CASE("A layer refuses to remove or export a token that is not there, and to import one that is, in Debug") {
  LayerCache<TokenMajor, float> cache(CacheShape{1, 2, 4});
  std::vector<std::byte> bits(cache.token_bytes());
  CHECK_THROWS_AS(cache.remove(1), std::logic_error);
  CHECK_THROWS_AS(cache.export_token(1, bits), std::logic_error);
  cache.import_token(1, bits);
  CHECK_THROWS_AS(cache.import_token(1, bits), std::logic_error);
  CHECK_THROWS_AS(cache.import_token(2, std::span<const std::byte>(bits).first(3)), std::logic_error);
}
#endif

TEST_CASE_TEMPLATE("A layer finds each token's own K and V whatever the order of arrival", Layout, TokenMajor,
                   HeadMajor, Tiled, Paged<8>, PagedTiled) {
  constexpr std::size_t heads = 3, dim = 4, tokens = 41;
  LayerCache<Layout, float> cache(CacheShape{heads, dim, tokens});
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
  KvCache<TokenMajor, float> cache(2, CacheShape{2, 8, 100});
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

TEST_CASE("Keys and values may be stored as different elements, and a token's bytes are the sum of both") {
  LayerCache<Paged<2>, Int8, Float16> cache(CacheShape{2, 6, 5});
  CHECK(cache.token_bytes() == 2 * (12 + 12));
  const std::vector<float> key{127.0f, -3.0f, 0.0f, 1.0f, 2.0f, 3.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 254.0f};
  const std::vector<float> value{0.5f, 1.0f, 2.0f, 4.0f, 8.0f, 16.0f, -0.5f, -1.0f, -2.0f, -4.0f, -8.0f, 65504.0f};
  cache.store(4, value, value);
  cache.store(3, key, value);
  cache.remove(4);
  for (std::size_t head = 0; head < 2; ++head) {
    std::vector<float> row(6);
    decode_row(cache.key(head, 3), std::span(row));
    CHECK(std::equal(row.begin(), row.end(), key.begin() + static_cast<std::ptrdiff_t>(head * 6)));
    decode_row(cache.value(head, 3), std::span(row));
    CHECK(std::equal(row.begin(), row.end(), value.begin() + static_cast<std::ptrdiff_t>(head * 6)));
  }
}
