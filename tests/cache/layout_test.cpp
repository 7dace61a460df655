#include <doctest/doctest.h>

#include <lazyllm/cache/layout.hpp>
#include <vector>

using namespace lazyllm;

namespace {

struct WithoutRows {
  explicit WithoutRows(CacheShape) {}
  std::size_t row_count() const { return 0; }
};
static_assert(!CacheLayout<WithoutRows> && !CacheLayout<int>);

/// The least that a layout has.
struct Archetype {
  explicit Archetype(CacheShape shape) : heads(shape.kv_heads), slots(shape.slots) {}
  std::size_t row(std::size_t kv_head, std::size_t slot) const { return row_count() - 1 - slot * heads - kv_head; }
  std::size_t row_count() const { return heads * slots; }
  std::size_t heads, slots;
};
static_assert(CacheLayout<Archetype> && !PagedLayout<Archetype>);

struct PagesOfThree : Archetype {
  using Archetype::Archetype;
  static constexpr std::size_t page_tokens = 3;
};
static_assert(CacheLayout<PagesOfThree> && !PagedLayout<PagesOfThree>);

template <std::size_t PageTokens>
concept HasPages = requires {
  typename Paged<PageTokens>;
};
static_assert(HasPages<1> && HasPages<64> && !HasPages<0> && !HasPages<24>);

}  // namespace

TEST_CASE_TEMPLATE("Every row of a layout has a number of its own below the row count", Layout, TokenMajor, HeadMajor,
                   Archetype) {
  for (const CacheShape shape : {CacheShape{3, 8, 5}, CacheShape{1, 64, 1}, CacheShape{4, 16, 33}}) {
    const Layout layout(shape);
    std::vector<int> uses(layout.row_count(), 0);
    for (std::size_t head = 0; head < shape.kv_heads; ++head) {
      for (std::size_t slot = 0; slot < shape.slots; ++slot) ++uses.at(layout.row(head, slot));
    }
    CHECK(uses == std::vector<int>(shape.kv_heads * shape.slots, 1));
  }
}

TEST_CASE("A page is the inner layout of as many slots as it has tokens, however many slots the cache has") {
  const Paged<4, HeadMajor> paged(CacheShape{3, 8, 1000});
  const HeadMajor page(CacheShape{3, 8, 4});
  CHECK(paged.row_count() == page.row_count());
  for (std::size_t head = 0; head < 3; ++head) {
    for (std::size_t slot = 0; slot < 4; ++slot) CHECK(paged.row(head, slot) == page.row(head, slot));
  }
}
