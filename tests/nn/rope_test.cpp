#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <lazyllm/core/error.hpp>
#include <lazyllm/nn/rope.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <span>
#include <vector>

#include "support/every_isa.hpp"
#include "support/noise.hpp"

using namespace lazyllm;
using namespace lazyllm::test;

namespace {

/// One head, in double: pair i turned by position / (base^(2i / d) * factor).
std::vector<double> turned(std::span<const float> head, std::size_t rotary_dim, RopePairing pairing, double base,
                           std::span<const float> factors, TokenIndex position) {
  std::vector<double> out(head.begin(), head.end());
  const std::size_t half = rotary_dim / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const double factor = factors.empty() ? 1.0 : static_cast<double>(factors[i]);
    const double frequency = std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim)) / factor;
    const double angle = static_cast<double>(position) * frequency;
    const std::size_t a = pairing == RopePairing::halves ? i : 2 * i;
    const std::size_t b = pairing == RopePairing::halves ? i + half : 2 * i + 1;
    const auto x = static_cast<double>(head[a]);
    const auto y = static_cast<double>(head[b]);
    out[a] = x * std::cos(angle) - y * std::sin(angle);
    out[b] = x * std::sin(angle) + y * std::cos(angle);
  }
  return out;
}

}  // namespace

TEST_CASE("rope agrees with double precision in both pairings, at positions up to 100000") {
  struct Case {
    std::size_t heads, head_dim, rotary_dim;
    bool factors;
  };
  const std::vector<TokenIndex> positions{0, 1, 2, 17, 511, 512, 4096, 65535, 99999, 100000};
  SerialExecutor executor;
  for (const Case c : {Case{3, 64, 64, false}, Case{2, 80, 32, true}, Case{1, 96, 96, true}, Case{2, 20, 10, false},
                       Case{1, 256, 256, true}, Case{1, 400, 390, false}, Case{1, 2, 2, false}}) {
    const std::size_t width = c.heads * c.head_dim;
    const std::vector<float> input = noise(positions.size() * width, 1);
    std::vector<float> factors;
    for (std::size_t i = 0; c.factors && i < c.rotary_dim / 2; ++i) {
      factors.push_back(1.0f + 0.25f * static_cast<float>(i));
    }
    RopeTable table(c.rotary_dim, 10000.0f, factors);
    table.reserve(512);  // some positions from the table, some computed
    CAPTURE(c.head_dim);
    CAPTURE(c.rotary_dim);
    for (const RopePairing pairing : {RopePairing::neighbours, RopePairing::halves}) {
      for_every_isa([&](Isa isa) {
        std::vector<float> x = input;
        rope(table, pairing, positions, c.head_dim, Rows(x.data(), positions.size(), width), executor, isa);
        double worst = 0.0;
        for (std::size_t r = 0; r < positions.size(); ++r) {
          for (std::size_t head = 0; head < c.heads; ++head) {
            const std::span<const float> from = std::span(input).subspan(r * width + head * c.head_dim, c.head_dim);
            const std::vector<double> exact = turned(from, c.rotary_dim, pairing, 10000.0, factors, positions[r]);
            for (std::size_t i = 0; i < c.head_dim; ++i) {
              // |x|, |y| < 6: rounding of cosine, sine, two products and a sum of at most 6 * sqrt(2) each; frequencies
              // differ by a few 2^-53 of an angle of 100000.
              const double bound = i < c.rotary_dim ? 5.0 * 8.5 * 0x1p-24 + 1e-9 : 0.0;
              const double error =
                  std::fabs(static_cast<double>(x[r * width + head * c.head_dim + i]) - exact[i]) - bound;
              worst = std::isnan(error) ? HUGE_VAL : std::fmax(worst, error);
            }
          }
        }
        CHECK(worst <= 0.0);
      });
    }
  }
}

TEST_CASE("rope has the same bits with and without reserved positions, for one row and for many") {
  const std::size_t rows = 100;
  const std::size_t width = 9 * 64;  // above the threshold for threads
  const std::vector<float> input = noise(rows * width, 2);
  std::vector<TokenIndex> positions(rows);
  for (std::size_t r = 0; r < rows; ++r) positions[r] = static_cast<TokenIndex>(3 * r);
  const RopeTable computed(64, 100000.0f);
  RopeTable stored(64, 100000.0f);
  stored.reserve(100);
  stored.reserve(300);
  stored.reserve(200);
  CHECK(stored.capacity() == 300);
  CHECK(stored.rotary_dim() == 64);
  ThreadPool pool(3);
  SerialExecutor serial;
  for (const RopePairing pairing : {RopePairing::neighbours, RopePairing::halves}) {
    for_every_isa([&](Isa isa) {
      std::vector<float> many = input;
      rope(stored, pairing, positions, 64, Rows(many.data(), rows, width), pool, isa);
      std::vector<float> single = input;
      for (std::size_t r = 0; r < rows; ++r) {
        rope(computed, pairing, std::span(positions).subspan(r, 1), 64, Rows(single.data() + r * width, 1, width),
             serial, isa);
      }
      CHECK(std::memcmp(many.data(), single.data(), many.size() * sizeof(float)) == 0);
    });
  }
}

TEST_CASE("a RopeTable names the parameter that makes no sense") {
  CHECK_THROWS_AS(RopeTable(0, 10000.0f), Error);
  CHECK_THROWS_AS(RopeTable(63, 10000.0f), Error);
  CHECK_THROWS_AS(RopeTable(64, 0.0f), Error);
  CHECK_THROWS_AS(RopeTable(64, NAN), Error);
  const std::vector<float> factors(31, 1.0f);
  CHECK_THROWS_WITH_AS(RopeTable(64, 10000.0f, factors), "RoPE frequency factors: 31 given, 32 pairs", Error);
  const std::vector<float> zero(32, 0.0f);
  CHECK_THROWS_AS(RopeTable(64, 10000.0f, zero), Error);
}
