#include <doctest/doctest.h>

#include <lazyllm/core/kv_store.hpp>

#include <concepts>
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

/// Keys and values may be stored as different elements.
struct Mixed : Archetype {
  lazyllm::Int8 codes[8];
  const lazyllm::Int8* key(std::size_t, TokenIndex) const { return codes; }
};
static_assert(KeyValueReader<Mixed> && std::same_as<lazyllm::KeyElementOf<Mixed>, lazyllm::Int8> &&
              std::same_as<lazyllm::ValueElementOf<Mixed>, float>);

struct Doubles : Archetype {
  double number = 1.0;
  const double* key(std::size_t, TokenIndex) const { return &number; }
};
static_assert(!KeyValueReader<Doubles>);

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
