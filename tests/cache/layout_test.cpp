#include <doctest/doctest.h>

#include <lazyllm/cache/layout.hpp>
#include <vector>

using namespace lazyllm;

namespace {

struct NoOffset {
  explicit NoOffset(CacheShape) {}
  std::size_t required_size() const { return 0; }
};
static_assert(!CacheLayout<NoOffset> && !CacheLayout<int>);

}  // namespace

TEST_CASE_TEMPLATE("Every row of a layout has its own elements inside the required size", Layout, TokenMajor,
                   HeadMajor) {
  for (const CacheShape shape : {CacheShape{3, 8, 5}, CacheShape{1, 64, 1}, CacheShape{4, 16, 33}}) {
    const Layout layout(shape);
    std::vector<int> uses(layout.required_size(), 0);
    for (std::size_t head = 0; head < shape.kv_heads; ++head) {
      for (std::size_t slot = 0; slot < shape.slots; ++slot) {
        for (std::size_t i = 0; i < shape.head_dim; ++i) ++uses.at(layout.offset(head, slot) + i);
      }
    }
    CHECK(uses == std::vector<int>(shape.kv_heads * shape.head_dim * shape.slots, 1));
  }
}
