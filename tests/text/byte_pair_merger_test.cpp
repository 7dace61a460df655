#include <doctest/doctest.h>

#include <lazyllm/text/byte_pair_merger.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <utility>
#include <vector>

namespace {

using lazyllm::BytePairMerger;
using lazyllm::Merge;
using lazyllm::MergeTable;
using Ids = std::vector<lazyllm::TokenId>;

/// The definition, in quadratic time: look at all pairs, merge the leftmost of the lowest rank, begin again.
Ids slow_merge(Ids tokens, const std::vector<Merge>& merges) {
  for (;;) {
    std::size_t best_rank = merges.size();
    std::size_t best_place = 0;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      for (std::size_t rank = 0; rank < best_rank; ++rank) {
        if (merges[rank].left == tokens[i] && merges[rank].right == tokens[i + 1]) {
          best_rank = rank;
          best_place = i;
        }
      }
    }
    if (best_rank == merges.size()) return tokens;
    tokens[best_place] = merges[best_rank].result;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best_place) + 1);
  }
}

/// `doublings` merges: token t twice becomes token t + 1.
MergeTable doubling_table(int doublings) {
  std::vector<Merge> merges;
  for (int t = 0; t < doublings; ++t) merges.push_back({t, t, t + 1});
  return MergeTable(std::move(merges));
}

TEST_CASE("The merged tokens are those of the definition, for random merges in random order") {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<Merge> merges;
    std::map<std::pair<int, int>, int> seen;
    for (int result = 4; result < 40; ++result) {
      const int left = static_cast<int>(random() % static_cast<unsigned>(result));
      const int right = static_cast<int>(random() % static_cast<unsigned>(result));
      if (seen.emplace(std::pair(left, right), result).second) merges.push_back({left, right, result});
    }
    std::shuffle(merges.begin(), merges.end(), random);
    const MergeTable table(merges);
    BytePairMerger merger(table);
    for (std::size_t size : {1u, 2u, 3u, 17u, 60u}) {
      Ids tokens(size);
      for (auto& t : tokens) t = static_cast<lazyllm::TokenId>(random() % 4);
      Ids merged = {-5};  // the merged tokens are appended
      merger.merge(tokens, merged);
      merged.erase(merged.begin());
      CHECK(merged == slow_merge(tokens, merges));
    }
  }
}

TEST_CASE("100,000 equal tokens take at most three heap steps each") {
  const std::size_t count = 100000;
  const MergeTable table = doubling_table(10);
  BytePairMerger merger(table);
  Ids merged;
  const std::size_t steps = merger.merge(Ids(count, 0), merged);
  CHECK(steps <= 3 * count);
  CHECK(steps >= count / 2);  // the counter counts
  // 100,000 = 97 * 1024 + 512 + 128 + 32, of the leftmost first.
  Ids expected(97, 10);
  expected.insert(expected.end(), {9, 7, 5});
  CHECK(merged == expected);
}

TEST_CASE("The merger keeps nothing from one word to the next") {
  const MergeTable table = doubling_table(3);
  BytePairMerger merger(table);
  Ids merged;
  merger.merge(Ids(9, 0), merged);
  merger.merge(Ids{}, merged);
  merger.merge(Ids{0, 0}, merged);
  CHECK(merged == Ids{3, 0, 1});
}

TEST_CASE("A table finds each pair's rank and no other pair") {
  std::vector<Merge> merges;
  for (int i = 0; i < 3000; ++i) merges.push_back({i * 7 % 3001, i, i});
  const MergeTable table(merges);
  for (int i = 0; i < 3000; ++i) {
    CHECK(table.rank(i * 7 % 3001, i) == static_cast<std::uint32_t>(i));
    CHECK_FALSE(table.rank(i * 7 % 3001 + 1, i).has_value());
    CHECK_FALSE(table.rank(i, 4000 + i).has_value());
  }
  CHECK_FALSE(MergeTable().rank(0, 0).has_value());
  CHECK_FALSE(MergeTable(std::vector<Merge>{}).rank(0, 0).has_value());
}

TEST_CASE("A pair with two ranks is an error that names both") {
  CHECK_THROWS_WITH_AS(MergeTable({{1, 2, 3}, {2, 1, 4}, {1, 2, 5}}),
                       "tokenizer.ggml.merges: entries 0 and 2 merge the same pair", lazyllm::Error);
}

}  // namespace
