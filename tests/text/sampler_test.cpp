#include <doctest/doctest.h>

#include <lazyllm/text/sampler.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace {

using lazyllm::Error;
using lazyllm::Sampler;
using lazyllm::SamplerOptions;
using lazyllm::TokenId;
using Ids = std::vector<TokenId>;

constexpr float infinity = std::numeric_limits<float>::infinity();

/// Everything off: the plain distribution.
SamplerOptions plain() {
  return {.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0, .repeat_penalty = 1, .seed = 1};
}

struct Oracle {
  Ids ids;                          // candidates, the likeliest first
  std::vector<double> probability;  // theirs, after temperature
  bool near_a_cut = false;          // a cut by top-p or min-p lies within rounding of a candidate
};

/// The definition in double precision, a sort and a probability vector for each step.
Oracle oracle(const std::vector<float>& logits, const Ids& recent, const SamplerOptions& o) {
  std::vector<std::pair<double, TokenId>> order;  // minus logit, id: ascending is the likeliest first
  for (std::size_t i = 0; i < logits.size(); ++i) {
    float logit = logits[i];
    if (std::count(recent.begin(), recent.end(), static_cast<TokenId>(i)) > 0) {
      logit = logit > 0 ? logit / o.repeat_penalty : logit * o.repeat_penalty;
    }
    order.emplace_back(-double{logit}, static_cast<TokenId>(i));
  }
  std::sort(order.begin(), order.end());
  if (o.top_k > 0 && o.top_k < order.size()) order.resize(o.top_k);

  const auto softmax = [&](double temperature) {
    std::vector<double> p;
    for (const auto& [minus_logit, id] : order) p.push_back(std::exp((order[0].first - minus_logit) / temperature));
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) x /= sum;
    return p;
  };
  Oracle result;
  constexpr double rounding = 1e-12;  // sums of at most 1,000 doubles: 1,000 * 2^-53, and some for exp
  if (o.top_p < 1) {
    const auto p = softmax(1);
    double sum = 0;
    std::size_t kept = 0;
    while (kept < p.size() && sum < double{o.top_p}) {
      sum += p[kept++];
      result.near_a_cut |= std::abs(sum - double{o.top_p}) < rounding;
    }
    order.resize(kept);
  }
  if (o.min_p > 0) {
    const auto p = softmax(1);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      result.near_a_cut |= std::abs(p[i] / p[0] - double{o.min_p}) < rounding;
      if (p[i] >= double{o.min_p} * p[0]) ++kept;
    }
    order.resize(kept);
  }
  result.probability = softmax(double{o.temperature});
  for (const auto& [minus_logit, id] : order) result.ids.push_back(id);
  return result;
}

Ids candidate_ids(const Sampler& sampler) {
  Ids ids;
  for (const auto& c : sampler.candidates()) ids.push_back(c.id);
  return ids;
}

std::vector<float> random_logits(std::mt19937& random, std::size_t count) {
  std::vector<float> logits(count);
  // Multiples of 1/8, so that there are many equal ones.
  for (float& x : logits) x = static_cast<float>(static_cast<int>(random() % 97) - 60) / 8;
  return logits;
}

TEST_CASE("Candidates, probabilities and the drawn token are the oracle's, for random options") {
  std::mt19937 random(11);
  int compared = 0;
  for (int round = 0; round < 2000; ++round) {
    const auto pick = [&](auto... values) {
      const float all[] = {static_cast<float>(values)...};
      return all[random() % std::size(all)];
    };
    const auto logits = random_logits(random, 1 + random() % 200);
    Ids recent(random() % 5);
    for (TokenId& id : recent) id = static_cast<TokenId>(random() % logits.size());
    const SamplerOptions options = {.temperature = pick(0.1, 0.8, 1, 1.7),
                                    .top_k = random() % 3 ? random() % 60 : 0,
                                    .top_p = pick(0.05, 0.3, 0.9, 0.95, 1),
                                    .min_p = pick(0, 0.01, 0.05, 0.5, 1),
                                    .repeat_penalty = pick(1, 1.1, 1.5, 0.7),
                                    .seed = random()};
    const Oracle expected = oracle(logits, recent, options);
    if (expected.near_a_cut) continue;
    ++compared;
    Sampler sampler(options);
    const TokenId token = sampler.sample(logits, recent);

    // Without top-k and top-p the candidates stay in the order of the ids.
    Ids ids = candidate_ids(sampler);
    Ids wanted = expected.ids;
    const bool sorted = options.top_p < 1 || (options.top_k > 0 && options.top_k < logits.size());
    if (!sorted) std::sort(wanted.begin(), wanted.end());
    REQUIRE(ids == wanted);

    // The draw inverts the running sum at the generator's number.
    double total = 0;
    for (const auto& c : sampler.candidates()) total += c.weight;
    const double target = lazyllm::SplitMix64(options.seed).next_unit();
    double sum = 0;
    TokenId inverted = -1;
    for (const auto& c : sampler.candidates()) {
      const auto place = std::find(expected.ids.begin(), expected.ids.end(), c.id) - expected.ids.begin();
      const double probability = expected.probability[static_cast<std::size_t>(place)];
      // Both are quotients of sums of at most 200 exponentials: 200 * 2^-53 and some for exp.
      CHECK(std::abs(c.weight / total - probability) < 1e-13);
      sum += probability;
      if (inverted < 0 && sum > target) inverted = c.id;
    }
    CHECK(token == inverted);
  }
  CHECK(compared > 1500);
}

TEST_CASE("Each step keeps exactly the candidates that its definition names") {
  // Probabilities 1/2, 1/4, 1/8, 1/16, 1/16, in a mixed order of ids.
  std::vector<float> logits;
  for (const double p : {0.125, 0.5, 0.0625, 0.25, 0.0625}) logits.push_back(static_cast<float>(std::log(p)));
  const auto kept = [&](SamplerOptions options) {
    Sampler sampler(options);
    static_cast<void>(sampler.sample(logits));
    return candidate_ids(sampler);
  };
  auto options = plain();
  CHECK(kept(options) == Ids{0, 1, 2, 3, 4});
  options.top_k = 3;
  CHECK(kept(options) == Ids{1, 3, 0});
  options.top_k = 4;
  CHECK(kept(options) == Ids{1, 3, 0, 2});  // of equal ones the lower id
  options.top_k = 0;
  options.top_p = 0.7f;
  CHECK(kept(options) == Ids{1, 3});
  options.top_p = 0.76f;
  CHECK(kept(options) == Ids{1, 3, 0});
  options.top_p = 1e-6f;
  CHECK(kept(options) == Ids{1});
  options.top_p = 1;
  options.min_p = 0.2f;
  CHECK(kept(options) == Ids{0, 1, 3});
  options.min_p = 1;
  CHECK(kept(options) == Ids{1});
  // The order of the steps: top-p works on what top-k left (4/7 of it is the first), at temperature 1.
  options = plain();
  options.top_k = 3;
  options.top_p = 0.56f;
  options.temperature = 100;
  CHECK(kept(options) == Ids{1});
}

TEST_CASE("Greedy takes the lowest id of the largest logits, after the repeat penalty") {
  auto options = plain();
  options.temperature = 0;
  options.repeat_penalty = 2;
  Sampler sampler(options);
  const std::vector<float> logits = {-1, 3, 2, 3, -infinity};
  CHECK(sampler.sample(logits) == 1);
  CHECK(candidate_ids(sampler) == Ids{1});
  CHECK(sampler.sample(logits, Ids{1}) == 3);
  CHECK(sampler.sample(logits, Ids{1, 3}) == 2);
  CHECK(sampler.sample(logits, Ids{1, 3, 2, 2, 2}) == 1);  // a token counts once: 1.5, 1.5, 1
  const std::vector<float> negative = {-3, -2};
  CHECK(sampler.sample(negative, Ids{1}) == 0);
}

TEST_CASE("A seed gives these tokens on every platform") {
  lazyllm::SplitMix64 generator(1234567);
  // The reference values of the generator's published C code for this seed.
  for (const std::uint64_t expected : {6457827717110365317u, 3203168211198807973u, 9817491932198370423u}) {
    CHECK(generator.next() == expected);
  }
  auto options = plain();
  options.seed = 42;
  Sampler first(options);
  Sampler second(options);
  options.seed = 43;
  Sampler other(options);
  const std::vector<float> logits(64, 0.5f);
  int different = 0;
  for (int i = 0; i < 100; ++i) {
    const TokenId token = first.sample(logits);
    CHECK(token == second.sample(logits));
    different += token != other.sample(logits);
  }
  CHECK(different > 80);
}

TEST_CASE("Tokens come as often as their probabilities say") {
  const std::vector<double> probability = {0.5, 0.25, 0.125, 0.0625, 0.0625};
  std::vector<float> logits;
  for (const double p : probability) logits.push_back(static_cast<float>(0.5 * std::log(p)));
  auto options = plain();
  options.temperature = 0.5f;  // undoes the factor above
  Sampler sampler(options);
  constexpr int draws = 40000;
  std::vector<int> count(probability.size());
  for (int i = 0; i < draws; ++i) ++count[static_cast<std::size_t>(sampler.sample(logits))];
  for (std::size_t i = 0; i < count.size(); ++i) {
    const double mean = draws * probability[i];
    // Five standard deviations of a binomial count: one seed in a million would fail, and the seed is fixed.
    CHECK(std::abs(count[i] - mean) < 5 * std::sqrt(mean * (1 - probability[i])));
  }
}

TEST_CASE("A forbidden token never comes, extreme logits and temperatures are harmless") {
  auto options = plain();
  Sampler sampler(options);
  for (int i = 0; i < 200; ++i)
    CHECK(sampler.sample(std::vector<float>{-infinity, 0, -infinity, 0, -infinity}) % 2 == 1);
  // A seed whose first number is exactly 0.
  auto zero = plain();
  zero.seed = std::uint64_t{0} - 0x9E3779B97F4A7C15u;
  REQUIRE(lazyllm::SplitMix64(zero.seed).next_unit() == 0);
  CHECK(Sampler(zero).sample(std::vector<float>{-infinity, 0}) == 1);
  CHECK(sampler.sample(std::vector<float>{3e38f, -3e38f, 1}) == 0);
  CHECK(sampler.sample(std::vector<float>{-3e38f}) == 0);
  options.temperature = 1e-40f;
  CHECK(Sampler(options).sample(std::vector<float>{1, 2, 1.99999f}) == 1);
  options.temperature = 3e38f;
  Sampler flat(options);
  static_cast<void>(flat.sample(std::vector<float>{1, 2}));
  CHECK(flat.candidates()[0].weight == doctest::Approx(1));
}

TEST_CASE("Logits that no distribution comes from are errors, and the sampler goes on afterwards") {
  for (const float temperature : {0.0f, 1.0f}) {
    auto options = plain();
    options.temperature = temperature;
    Sampler sampler(options);
    const auto sample = [&](std::vector<float> logits, Ids recent = {}) { return sampler.sample(logits, recent); };
    CHECK_THROWS_WITH_AS(static_cast<void>(sample({1, NAN, 2})), "sampler: logit 1 is NaN", Error);
    CHECK_THROWS_WITH_AS(static_cast<void>(sample({NAN})), "sampler: logit 0 is NaN", Error);
    CHECK_THROWS_WITH_AS(static_cast<void>(sample({1, 2, infinity})), "sampler: logit 2 is +infinity", Error);
    CHECK_THROWS_WITH_AS(static_cast<void>(sample({-infinity, -infinity})), "sampler: none of the 2 logits is finite",
                         Error);
    CHECK_THROWS_WITH_AS(static_cast<void>(sample({})), "sampler: none of the 0 logits is finite", Error);
    CHECK_THROWS_WITH_AS(static_cast<void>(sample({1, 2}, {0, 2})),
                         "sampler: recent token 2 is not one of the 2 logits", Error);
    CHECK_THROWS_AS(static_cast<void>(sample({1, 2}, {-1})), Error);
    CHECK(sample({-infinity, 1}) == 1);
  }
}

TEST_CASE("An option outside its range is an error that names it") {
  const auto error_of = [](auto change) {
    SamplerOptions options;
    change(options);
    try {
      Sampler sampler(options);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  CHECK(error_of([](auto&) {}) == "no error");
  CHECK(error_of([](auto& o) { o.temperature = -0.5f; }) ==
        "sampler: temperature is -0.500000, must be finite and at least 0");
  CHECK(error_of([](auto& o) { o.temperature = NAN; }) == "sampler: temperature is nan, must be finite and at least 0");
  CHECK(error_of([](auto& o) { o.temperature = infinity; }) != "no error");
  CHECK(error_of([](auto& o) { o.top_p = 0; }) == "sampler: top_p is 0.000000, must be above 0 and at most 1");
  CHECK(error_of([](auto& o) { o.top_p = 1.5f; }) != "no error");
  CHECK(error_of([](auto& o) { o.min_p = -0.1f; }) == "sampler: min_p is -0.100000, must be from 0 to 1");
  CHECK(error_of([](auto& o) { o.min_p = NAN; }) != "no error");
  CHECK(error_of([](auto& o) { o.repeat_penalty = 0; }) ==
        "sampler: repeat_penalty is 0.000000, must be finite and above 0");
}

}  // namespace
