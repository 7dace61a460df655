// A cache layout of one's own: two functions. This one lays 16 tokens of a head side by side, a tile for each head; on
// its own and inside pages. Attention gives the same bits whatever the layout.
#include <lazyllm/lazyllm.hpp>

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <span>
#include <vector>

namespace {

// The layout.
class Tiled {
 public:
  static constexpr std::size_t tile = 16;
  explicit Tiled(lazyllm::CacheShape shape) : heads_(shape.kv_heads), tiles_((shape.slots + tile - 1) / tile) {}
  [[nodiscard]] std::size_t row(std::size_t kv_head, std::size_t slot) const {
    return (slot / tile * heads_ + kv_head) * tile + slot % tile;
  }
  [[nodiscard]] std::size_t row_count() const { return tiles_ * heads_ * tile; }

 private:
  std::size_t heads_;
  std::size_t tiles_;
};
static_assert(lazyllm::CacheLayout<Tiled>);

// What a model keeps K and V in is a template argument. Here: pages of 64 tokens, keys of 8 bits, values in half.
using SmallCache = lazyllm::KvCache<lazyllm::Paged<64>, lazyllm::Int8, lazyllm::Float16>;
using SmallCacheLlama = lazyllm::Llama<lazyllm::AsStored, lazyllm::ThreadPool, SmallCache>;
static_assert(lazyllm::LanguageGraph<SmallCacheLlama> && lazyllm::CountedGraph<SmallCacheLlama>);

constexpr lazyllm::AttentionShape shape{.heads = 4, .kv_heads = 2, .head_dim = 32, .scale = 0.17677669f};
constexpr std::size_t tokens = 100;

/// Fills a layer of the cache and lets the last token attend to the tokens at even positions.
template <lazyllm::KeyValueCache Cache>
std::vector<float> attend(Cache& cache) {
  using lazyllm::TokenIndex;
  const std::size_t width = shape.kv_heads * shape.head_dim;
  std::vector<TokenIndex> keys;
  for (TokenIndex token = 0; token < tokens; ++token) {
    std::vector<float> key(width), value(width);
    for (std::size_t i = 0; i < width; ++i) {
      key[i] = std::sin(static_cast<float>(token * width + i));
      value[i] = std::cos(static_cast<float>(token + i * i));
    }
    cache.layer(0).store(token, key, value);
    if (token % 2 == 0) keys.push_back(token);
  }
  std::vector<float> query(shape.heads * shape.head_dim, 0.5f), out(query.size());
  lazyllm::AttentionScratch scratch;
  lazyllm::SerialExecutor executor;
  lazyllm::attention(shape, {query.data(), 1, query.size()}, std::span(keys).last(1), keys, cache.layer(0),
                     {out.data(), 1, out.size()}, {}, scratch, executor);
  return out;
}

}  // namespace

int main() {
  const lazyllm::CacheShape sizes{.kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .slots = 4096};
  lazyllm::KvCache<Tiled> tiled(2, sizes);
  lazyllm::KvCache<lazyllm::Paged<64, Tiled>> paged(2, sizes);
  const std::vector<float> a = attend(tiled), b = attend(paged);
  std::printf("K and V of %zu tokens: %zu bytes; reserved by tiles: %zu, by pages of 64 tokens: %zu\n", tokens,
              tiled.size_bytes(), tiled.reserved_bytes(), paged.reserved_bytes());
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0 ? 0 : 1;
}
