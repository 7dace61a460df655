#include <doctest/doctest.h>

#include <lazyllm/core/kv_store.hpp>

#include <cstddef>

namespace {

using lazyllm::KeyValueReader;
using lazyllm::TokenIndex;

struct Archetype {
  float row = 1.0f;
  const float* key(std::size_t, TokenIndex) const { return &row; }
  const float* value(std::size_t, TokenIndex) const { return &row; }
  std::size_t kv_head_count() const { return 1; }
  std::size_t head_dim() const { return 1; }
};
static_assert(KeyValueReader<Archetype>);

struct WithoutValues {
  const float* key(std::size_t, TokenIndex) const { return nullptr; }
  std::size_t kv_head_count() const { return 1; }
  std::size_t head_dim() const { return 1; }
};
static_assert(!KeyValueReader<WithoutValues>);

struct WritableOnly {
  const float* key(std::size_t, TokenIndex) { return nullptr; }
  const float* value(std::size_t, TokenIndex) { return nullptr; }
  std::size_t kv_head_count() { return 1; }
  std::size_t head_dim() { return 1; }
};
static_assert(!KeyValueReader<WritableOnly>);
static_assert(!KeyValueReader<int>);

template <KeyValueReader Cache>
float sum_of_rows(const Cache& cache) {
  return *cache.key(0, 0) + *cache.value(0, 0);
}

}  // namespace

TEST_CASE("a KeyValueReader needs const access to keys, values and their sizes, and nothing else") {
  CHECK(sum_of_rows(Archetype{}) == 2.0f);
}
