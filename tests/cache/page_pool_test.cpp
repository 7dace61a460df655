#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <lazyllm/cache/page_pool.hpp>
#include <set>
#include <utility>
#include <vector>

using namespace lazyllm;

TEST_CASE("A pool hands out distinct aligned pages and takes free ones before it allocates") {
  PagePool pool(1000, 8);
  std::vector<AlignedBuffer<std::byte>> pages;
  std::set<const std::byte*> addresses;
  for (int i = 0; i < 5; ++i) {
    pages.push_back(pool.take());
    CHECK(pages.back().size() == 1000);
    CHECK(reinterpret_cast<std::uintptr_t>(pages.back().data()) % 64 == 0);
    addresses.insert(pages.back().data());
  }
  CHECK(addresses.size() == 5);
  CHECK(pool.reserved_bytes() == 5000);
  for (int i = 0; i < 3; ++i) {
    pool.give_back(std::move(pages.back()));
    pages.pop_back();
  }
  CHECK(pool.reserved_bytes() == 5000);
  for (int i = 0; i < 3; ++i) {
    pages.push_back(pool.take());
    CHECK(addresses.contains(pages.back().data()));
  }
  CHECK(pool.reserved_bytes() == 5000);
  pages.push_back(pool.take());
  CHECK(pool.reserved_bytes() == 6000);
}

#ifndef NDEBUG
TEST_CASE("A pool takes back only pages of its own size, in Debug") {
  PagePool pool(64, 2);
  AlignedBuffer<std::byte> page = pool.take();
  CHECK_THROWS_AS(pool.give_back(AlignedBuffer<std::byte>(32)), std::logic_error);
  pool.give_back(std::move(page));
  CHECK_THROWS_AS(pool.give_back(AlignedBuffer<std::byte>(64)), std::logic_error);
}
#endif
