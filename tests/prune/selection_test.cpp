#include <doctest/doctest.h>

#include <lazyllm/prune/selection.hpp>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

using namespace lazyllm;

namespace {

using Tokens = std::vector<TokenIndex>;
using Scores = std::vector<float>;

/// The tokens that stay of candidates with these scores.
Tokens kept(const SelectionRule& rule, Scores importance, const Tokens& tokens, std::size_t context) {
  const auto keep = std::make_unique<bool[]>(tokens.size());
  std::fill_n(keep.get(), tokens.size(), true);
  Selector selector;
  selector.reserve(tokens.size());
  selector.select(rule, importance, tokens, context, {keep.get(), tokens.size()});
  Tokens result;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (keep[i]) result.push_back(tokens[i]);
  }
  return result;
}

/// The same where everyone is a candidate.
Tokens kept(const SelectionRule& rule, Scores importance) {
  Tokens tokens(importance.size());
  std::iota(tokens.begin(), tokens.end(), TokenIndex{0});
  const std::size_t context = tokens.size();
  return kept(rule, std::move(importance), tokens, context);
}

ProtectedTokens protect(std::size_t first, std::size_t last, std::vector<IndexRange> ranges = {}) {
  return {.first = first, .last = last, .ranges = std::move(ranges)};
}

}  // namespace

TEST_CASE("A count keeps the best, of equal ones the lower index, and the last token as one of them") {
  CHECK(kept(KeepRule::count(3), {1, 4, 2, 3, 0}) == Tokens{1, 3, 4});
  CHECK(kept(KeepRule::count(3), {2, 2, 2, 2, 2}) == Tokens{0, 1, 4});
  CHECK(kept(KeepRule::count(1), {2, 2, 2}) == Tokens{2});
  CHECK(kept(KeepRule::count(9), {2, 2, 2}) == Tokens{0, 1, 2});
}

TEST_CASE("Attention mass keeps the fewest tokens that cover the share, the last token's mass among it") {
  const Scores scores{1, 4, 2, 2, 1};  // 10 in all
  CHECK(kept(KeepRule::mass(0.0), scores) == Tokens{4});
  CHECK(kept(KeepRule::mass(0.1), scores) == Tokens{4});
  CHECK(kept(KeepRule::mass(0.2), scores) == Tokens{1, 4});
  CHECK(kept(KeepRule::mass(0.5), scores) == Tokens{1, 4});
  CHECK(kept(KeepRule::mass(0.6), scores) == Tokens{1, 2, 4});
  CHECK(kept(KeepRule::mass(0.9), scores) == Tokens{1, 2, 3, 4});
  CHECK(kept(KeepRule::mass(1.0), scores) == Tokens{0, 1, 2, 3, 4});
  CHECK(kept(KeepRule::mass(1.0), {3, 0, 0, 1}) == Tokens{0, 3});
  CHECK(kept(KeepRule::mass(1.0), {0, 0, 0}) == Tokens{2});
  CHECK(kept(KeepRule::mass(0.1).at_least(3), scores) == Tokens{1, 2, 4});
  CHECK(kept(KeepRule::mass(0.9).at_least(3), scores) == Tokens{1, 2, 3, 4});
}

TEST_CASE("Protected tokens stay and count among the kept") {
  const Scores scores{0, 9, 8, 7, 0, 6, 5, 0};
  CHECK(kept({KeepRule::count(4), 1, protect(1, 0)}, scores) == Tokens{0, 1, 2, 7});
  CHECK(kept({KeepRule::count(4), 1, protect(0, 3)}, scores) == Tokens{1, 5, 6, 7});
  CHECK(kept({KeepRule::count(4), 1, protect(0, 0, {{4, 5}})}, scores) == Tokens{1, 2, 4, 7});
  CHECK(kept({KeepRule::count(2), 1, protect(2, 2, {{4, 6}})}, scores) == Tokens{0, 1, 4, 5, 6, 7});
  CHECK(kept({KeepRule::mass(0.5), 1, protect(1, 2)}, scores) == Tokens{0, 1, 2, 6, 7});  // 5 + 9 + 8 of 35
  CHECK(kept({KeepRule::percentile(50), 1, protect(1, 0)}, scores) == Tokens{0, 1, 2, 7});
}

TEST_CASE("Protection goes by position, not by place among the candidates") {
  CHECK(kept({KeepRule::count(3), 1, protect(4, 0)}, {0, 0, 9, 8, 0}, {2, 3, 4, 7, 19}, 20) == Tokens{2, 3, 19});
  CHECK(kept({KeepRule::count(2), 1, protect(0, 4)}, {9, 8, 0, 0}, {1, 15, 16, 19}, 20) == Tokens{16, 19});
}

TEST_CASE("Blocks stay or go whole: the best token speaks for its block") {
  //                 block 0     block 1     block 2     block 3 with the last token
  const Scores scores{1, 1, 1, 0, 5, 0, 0, 0, 2, 2, 2, 2, 0, 0};
  CHECK(kept({KeepRule::count(2), 4}, scores) == Tokens{12, 13});
  CHECK(kept({KeepRule::count(3), 4}, scores) == Tokens{4, 5, 6, 7, 12, 13});
  CHECK(kept({KeepRule::count(7), 4}, scores) == Tokens{4, 5, 6, 7, 8, 9, 10, 11, 12, 13});
  CHECK(kept({KeepRule::count(3), 4, protect(1, 0)}, scores) == Tokens{0, 1, 2, 3, 12, 13});
  CHECK(kept({KeepRule::mass(0.5), 4}, scores) == Tokens{4, 5, 6, 7, 8, 9, 10, 11, 12, 13});
}

TEST_CASE("Blocks are stretches of the context, of which candidates may be missing") {
  CHECK(kept({KeepRule::count(3), 4}, {1, 3, 2, 0}, {0, 6, 7, 9}, 10) == Tokens{6, 7, 9});
}

TEST_CASE("A NaN counts as the lowest score and as no mass") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(kept(KeepRule::count(3), {nan, 1, nan, 2, nan}) == Tokens{1, 3, 4});
  CHECK(kept(KeepRule::count(2), {nan, nan, nan}) == Tokens{0, 2});
  CHECK(kept(KeepRule::mass(1.0), {nan, 1, 2, nan}) == Tokens{1, 2, 3});
  CHECK(kept({KeepRule::count(3), 2}, {nan, 1, nan, nan, nan}) == Tokens{0, 1, 4});
}

TEST_CASE("What a rule keeps lies within the bounds that it tells beforehand, and both ends are reached") {
  std::mt19937 random(4);
  std::size_t at_least = 0, at_most = 0;
  for (int i = 0; i < 4000; ++i) {
    const std::size_t context = 1 + random() % 40;
    Tokens tokens;
    for (TokenIndex token = 0; token < context; ++token) {
      if (token + 1 == context || random() % 3 != 0) tokens.push_back(token);
    }
    Scores scores(tokens.size());
    for (float& score : scores) score = static_cast<float>(random() % 10);
    const std::size_t kind = random() % 4, number = random() % 30;
    const KeepRule keep = kind == 0   ? KeepRule::count(number)
                          : kind == 1 ? KeepRule::fraction(static_cast<double>(number) / 30)
                          : kind == 2 ? KeepRule::percentile(number * 3)
                                      : KeepRule::mass(static_cast<double>(number) / 30);
    const std::size_t least = random() % 3 == 0 ? random() % 20 : 0;
    ProtectedTokens always = protect(random() % 3, random() % 3);
    if (random() % 2 == 0) always.ranges.push_back({static_cast<TokenIndex>(random() % 20), 12});
    const SelectionRule rule{keep.at_least(least), 1 + random() % 5, always};
    const KeptBounds bounds = rule.kept_bounds(tokens.size(), context);
    const std::size_t count = kept(rule, scores, tokens, context).size();
    REQUIRE(bounds.least <= count);
    REQUIRE(count <= bounds.most);
    at_least += bounds.least == count ? 1 : 0;
    at_most += bounds.most == count ? 1 : 0;
  }
  CHECK(at_least > 1000);
  CHECK(at_most > 1000);
}
