#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/quant/matmul.hpp>

#include "support/every_format.hpp"
#include "support/every_isa.hpp"
#include "support/matmul_oracle.hpp"
#include "support/multiply.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <type_traits>

using namespace lazyllm;

namespace {

constexpr double unit = 0x1p-24;  // half a unit in the last place of 1.0f

template <class F>
constexpr std::size_t row_step = std::max<std::size_t>(32, F::block_size);

struct NotAnEpilogue {
  void operator()(float) const {}
};
static_assert(!MatmulEpilogue<NotAnEpilogue>);
static_assert(!MatmulEpilogue<int>);

/// What the stored blocks stand for with every code byte of a panel `byte`: with 0, all the lowest codes; with 0xff,
/// all the highest.
template <class F>
std::vector<float> with_codes(std::span<const std::byte> stored, std::uint8_t byte) {
  std::vector<typename F::Block> blocks(stored.size() / sizeof(typename F::Block));
  if (!blocks.empty()) std::memcpy(blocks.data(), stored.data(), stored.size());
  for (auto& block : blocks) {
    auto entry = F::to_panel(block);
    for (auto& codes : entry.codes) codes.fill(byte);
    block = F::from_panel(entry);
  }
  return test::weights_of<F>(std::as_bytes(std::span(blocks)));
}

/// A scale (or minimum) of extreme size for tables of halves, and for tables of integers times halves.
void set_extreme(Float16& entry, std::uint16_t half, std::size_t) { entry.bits = half; }
template <class Entry>
void set_extreme(Entry& entry, std::uint16_t half, std::size_t n) {
  using Factor = typename decltype(entry.factor)::value_type;
  const bool six_bits = !std::is_signed_v<Factor>;
  entry.super.bits = half;
  for (std::size_t i = 0; i < entry.factor.size(); ++i) {
    const int factor = (n + i) % 3 == 0 ? 0 : (n + i) % 3 == 1 ? (six_bits ? 63 : 127) : (six_bits ? 1 : -128);
    entry.factor[i] = static_cast<Factor>(factor);
  }
}

/// A power of two, at most 2, in units of at least 1/4, with a sign where there can be one.
void set_exact(Float16& entry, std::mt19937& engine) {
  entry = to_float16(std::ldexp(1.0f, -static_cast<int>(engine() % 3)));
}
template <class Entry>
void set_exact(Entry& entry, std::mt19937& engine) {
  using Factor = typename decltype(entry.factor)::value_type;
  set_exact(entry.super, engine);
  for (Factor& factor : entry.factor) {
    factor = static_cast<Factor>(1 + engine() % 2);
    if (std::is_signed_v<Factor> && engine() % 2 == 0) factor = static_cast<Factor>(-factor);
  }
}

/// The bound of an AMX product's error. x and w are cut to 8 significant bits: errors of at most 2^-8 and 1.31 * 2^-8
/// of themselves. A weight is made as code * scale + (minimum - scale * (128 or 256 + zero point)), in floats: off by
/// at most two roundings of that sum's parts. Then one rounding a product and four for each sum of 32; what is denormal
/// (below 2^-126) counts as zero.
template <class F>
double amx_tolerance(std::span<const float> row, std::span<const float> w, std::span<const float> lowest,
                     std::span<const float> highest) {
  constexpr double levels = (1 << F::Panel::bits) - 1;
  constexpr double offset = (F::Panel::bits == 8 ? 256 : 128) + F::Panel::zero_point;
  const double cut = 0x1p-8, cut_weight = 1.31 * 0x1p-8;
  double terms = 0, parts = 0, largest = 0;
  for (std::size_t k = 0; k < row.size(); ++k) {
    const double scale = std::abs(double{highest[k]} - double{lowest[k]}) / levels;
    const double start = scale * offset + std::abs(double{lowest[k]});
    terms += std::abs(double{row[k]} * double{w[k]});
    parts += std::abs(double{row[k]}) * 3 * unit * (start + std::abs(double{w[k]}));
    largest = std::max({largest, std::abs(double{row[k]}), std::abs(double{w[k]})});
  }
  const double operations = static_cast<double>(row.size()) * (1.0 + 4.0 / 32) + 2;
  const double denormal = static_cast<double>(row.size()) * 0x1p-126 * (2 + largest);
  return (terms + parts) * (cut + cut_weight + cut * cut_weight + operations * unit) * (1 + 1e-6) + parts + denormal;
}

/// Checks one product against both oracles.
template <class F>
void check_product(Isa isa, std::span<const std::byte> stored, std::span<const float> values, std::size_t rows,
                   std::size_t out_features, std::size_t in_features) {
  CAPTURE(rows);
  CAPTURE(out_features);
  CAPTURE(in_features);
  SerialExecutor executor;
  const auto weights = test::weights_of<F>(stored);
  std::vector<float> lowest, highest;
  if constexpr (F::Panel::reads_codes) {
    lowest = with_codes<F>(stored, 0);
    highest = with_codes<F>(stored, 0xff);
  }
  const auto matrix = PackedMatrix<F>::pack(stored, out_features, in_features, executor);
  Activations x(ConstRows(values.data(), rows, in_features));
  std::vector<float> out(rows * out_features, -777.0f);
  test::multiply(isa, x, matrix, Rows(out.data(), rows, out_features), executor);
  std::size_t wrong = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    const auto row = values.subspan(r * in_features, in_features);
    const std::vector<double> codes = F::Panel::reads_codes ? test::quantized_row(row) : std::vector<double>{};
    for (std::size_t n = 0; n < out_features; ++n) {
      const auto w = std::span<const float>(weights).subspan(n * in_features, in_features);
      const double got = static_cast<double>(out[r * out_features + n]);
      const test::Product exact = test::dot(row, w);
      if (F::Panel::reads_codes && isa == Isa::amx) {
        if constexpr (F::Panel::reads_codes) {
          const auto part = [&](const std::vector<float>& v) {
            return std::span(v).subspan(n * in_features, in_features);
          };
          wrong += std::abs(got - exact.value) <= amx_tolerance<F>(row, w, part(lowest), part(highest)) ? 0u : 1u;
        }
      } else if constexpr (F::Panel::reads_codes) {
        // Summed are, per scale, (integer dot) * scales and minimum * (scaled sum): at most `parts` in magnitude. Each
        // is rounded twice before it is added, and the running sum once (twice without fused operations) at each.
        const test::Product product = test::dot(std::span<const double>(codes), w);
        double parts = 0;
        for (std::size_t k = 0; k < in_features; ++k) {
          const double minimum = F::Panel::has_minimum ? double{lowest[n * in_features + k]} : 0.0;
          parts += std::abs(codes[k]) * (std::abs(double{w[k]} - minimum) + std::abs(minimum));
        }
        const double operations = 4.0 * static_cast<double>(in_features / F::Panel::ScaleTable::step) + 4.0;
        const double tolerance = operations * unit * parts;
        wrong += std::abs(got - product.value) <= tolerance ? 0u : 1u;
        // Against unquantised activations: each is off by at most half a step, largest / 254.
        double half_steps = 0;
        for (std::size_t k = 0; k < in_features; ++k) {
          const std::size_t first = k / 32 * 32;
          double largest = 0;
          for (std::size_t i = first; i < first + 32; ++i) largest = std::max(largest, std::abs(double{row[i]}));
          half_steps += std::abs(double{w[k]}) * largest / 254;
        }
        wrong += std::abs(got - exact.value) <= half_steps * (1 + 1e-4) + tolerance ? 0u : 1u;
      } else {
        // One rounding a term, of the running sum (two without fused operations).
        const double tolerance = (2.0 * static_cast<double>(in_features) + 2.0) * unit * exact.magnitude;
        wrong += std::abs(got - exact.value) <= tolerance ? 0u : 1u;
      }
    }
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE_TEMPLATE("matmul agrees with double precision for sizes around the tiles", F, LAZYLLM_TEST_FORMATS) {
  test::for_every_isa([](Isa isa) {
    for (const std::size_t rows : {1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 11u, 12u, 13u, 16u, 25u, 37u}) {
      for (const std::size_t out_features : {1u, 7u, 16u, 17u, 47u, 147u}) {
        const std::size_t in_features = row_step<F> * (1 + (rows + out_features) % (row_step<F> == 32 ? 5 : 2));
        const auto stored = test::store<F>(test::random_floats(out_features * in_features, 1.0f, 7));
        const auto values = test::random_floats(rows * in_features, 3.0f, 8);
        check_product<F>(isa, stored, values, rows, out_features, in_features);
      }
    }
  });
}

TEST_CASE_TEMPLATE("matmul agrees with double precision for extreme codes and scales", F, LAZYLLM_TEST_CODE_FORMATS) {
  constexpr std::size_t entries = 192 / row_step<F> + 1, in_features = row_step<F> * entries, out_features = 19;
  constexpr std::array<std::uint16_t, 5> scales{0x0001, 0x03ff, 0x7bff, 0xfbff, 0x0000};  // denormals, largest, zero
  std::vector<typename F::Block> blocks;
  for (std::size_t n = 0; n < out_features; ++n) {
    for (std::size_t b = 0; b < entries; ++b) {
      // All codes the lowest, all the highest, or both in turn.
      const std::size_t kind = (n + b) % 3;
      typename F::Panel::Entry entry{};
      for (auto& codes : entry.codes) {
        for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = kind == 1 || (kind == 2 && i % 2 == 0) ? 0xff : 0x00;
      }
      set_extreme(entry.scale, scales[(n * entries + b) % scales.size()], n);
      if constexpr (F::Panel::has_minimum) set_extreme(entry.minimum, scales[(n + b + 1) % scales.size()], n + 1);
      blocks.push_back(F::from_panel(entry));
    }
  }
  const auto stored = std::as_bytes(std::span(blocks));
  constexpr std::size_t rows = 14;
  std::vector<float> values(rows * in_features);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t r = i / in_features, b = i % in_features / 32;
    const float sign = (r % 3 == 0 || (r % 3 == 1 && i % 2 == 0)) ? 1.0f : -1.0f;
    const float magnitude = (r + b) % 4 == 0 ? 0.0f : (r + b) % 4 == 1 ? 1e-30f : (r + b) % 4 == 2 ? 1.0f : 1e25f;
    values[i] = sign * magnitude;
  }
  test::for_every_isa([&](Isa isa) { check_product<F>(isa, stored, values, rows, out_features, in_features); });
}

TEST_CASE_TEMPLATE("Integer sums are exact on every ISA", F, LAZYLLM_TEST_CODE_FORMATS) {
  // Activations are integers with 127 in each block (scale 1), weight scales are small powers of two: every float
  // operation is exact as well, so that one wrong integer shows.
  constexpr std::size_t entries = row_step<F> == 32 ? 5 : 1, in_features = row_step<F> * entries;
  constexpr std::size_t out_features = 33, rows = 29;
  std::mt19937 engine(11);
  const auto below = [&](unsigned n) { return static_cast<int>(engine() % n); };
  std::vector<typename F::Block> stored(out_features * entries);
  for (auto& block : stored) {
    typename F::Panel::Entry entry{};
    for (auto& codes : entry.codes) {
      for (auto& code : codes) code = static_cast<std::uint8_t>(below(256));
    }
    set_exact(entry.scale, engine);
    if constexpr (F::Panel::has_minimum) set_exact(entry.minimum, engine);
    block = F::from_panel(entry);
  }
  std::vector<float> values(rows * in_features);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 32 == 3 ? 127 : below(255) - 127);
  std::vector<float> weights(out_features * in_features);
  F::dequantize(stored, weights);
  SerialExecutor executor;
  const auto matrix = PackedMatrix<F>::pack(std::as_bytes(std::span(stored)), out_features, in_features, executor);
  test::for_every_isa([&](Isa isa) {
    if (isa == Isa::amx) return;  // multiplies bfloat16, no integers
    Activations x(ConstRows(values.data(), rows, in_features));
    std::vector<float> out(rows * out_features);
    test::multiply(isa, x, matrix, Rows(out.data(), rows, out_features), executor);
    std::size_t wrong = 0;
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t n = 0; n < out_features; ++n) {
        const auto product = test::dot(std::span<const float>(values).subspan(r * in_features, in_features),
                                       std::span<const float>(weights).subspan(n * in_features, in_features));
        wrong += static_cast<double>(out[r * out_features + n]) == product.value ? 0u : 1u;
      }
    }
    CHECK(wrong == 0);
  });
}

TEST_CASE_TEMPLATE("A row's bits depend neither on its neighbours nor on the threads", F, LAZYLLM_TEST_FORMATS) {
  constexpr std::size_t in_features = row_step<F> == 32 ? 192 : 256, out_features = 147, most = 40;
  SerialExecutor serial;
  const auto stored = test::store<F>(test::random_floats(out_features * in_features, 1.0f, 21));
  const auto values = test::random_floats(most * in_features, 1.0f, 22);
  const auto matrix = PackedMatrix<F>::pack(stored, out_features, in_features, serial);
  ThreadPool two(2), three(3);
  test::for_every_isa([&](Isa isa) {
    std::vector<float> alone(most * out_features), out(most * out_features);
    for (std::size_t r = 0; r < most; ++r) {
      Activations x(ConstRows(values.data() + r * in_features, 1, in_features));
      test::multiply(isa, x, matrix, Rows(alone.data() + r * out_features, 1, out_features), serial);
    }
    std::size_t wrong = 0;
    const auto check = [&](std::size_t first, std::size_t rows, auto& executor) {
      Activations x(ConstRows(values.data() + first * in_features, rows, in_features));
      test::multiply(isa, x, matrix, Rows(out.data(), rows, out_features), executor);
      const float* expected = alone.data() + first * out_features;
      wrong += std::memcmp(out.data(), expected, rows * out_features * sizeof(float)) == 0 ? 0u : 1u;
    };
    for (std::size_t rows = 1; rows <= most; ++rows) {
      check(most - rows, rows, serial);
      check((most - rows) / 2, rows, two);
      check(0, rows, three);
    }
    CHECK(wrong == 0);
  });
}

TEST_CASE_TEMPLATE("matmul reads and writes rows with a stride, and nothing beside them", F, Q4_1, Q8_0, F16) {
  constexpr std::size_t in_features = 64, out_features = 21, rows = 9, stride = 40;
  SerialExecutor executor;
  const auto stored = test::store<F>(test::random_floats(out_features * in_features, 1.0f, 31));
  const auto matrix = PackedMatrix<F>::pack(stored, out_features, in_features, executor);
  const auto values = test::random_floats(rows * 100, 1.0f, 32);
  std::vector<float> dense;
  for (std::size_t r = 0; r < rows; ++r) {
    dense.insert(dense.end(), values.begin() + static_cast<std::ptrdiff_t>(r * 100),
                 values.begin() + static_cast<std::ptrdiff_t>(r * 100 + in_features));
  }
  test::for_every_isa([&](Isa isa) {
    std::vector<float> expected(rows * out_features), out(rows * stride, -1.0f);
    Activations plain(ConstRows(dense.data(), rows, in_features));
    test::multiply(isa, plain, matrix, Rows(expected.data(), rows, out_features), executor);
    Activations strided(ConstRows(values.data(), rows, in_features, 100));
    test::multiply(isa, strided, matrix, Rows(out.data(), rows, out_features, stride), executor);
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t n = 0; n < stride; ++n) {
        CHECK(out[r * stride + n] == (n < out_features ? expected[r * out_features + n] : -1.0f));
      }
    }
  });
}

TEST_CASE_TEMPLATE("Epilogues see each sum once", F, Q4_0, F32) {
  constexpr std::size_t in_features = 64, out_features = 37, rows = 15;
  ThreadPool executor(2);
  const auto stored = test::store<F>(test::random_floats(out_features * in_features, 1.0f, 41));
  const auto matrix = PackedMatrix<F>::pack(stored, out_features, in_features, executor);
  const auto values = test::random_floats(rows * in_features, 1.0f, 42);
  const auto start = test::random_floats(rows * out_features, 1.0f, 43);
  test::for_every_isa([&](Isa isa) {
    Activations x(ConstRows(values.data(), rows, in_features));
    std::vector<float> sums(start), added(start), own(start);
    test::multiply(isa, x, matrix, Rows(sums.data(), rows, out_features), executor, Store{});
    test::multiply(isa, x, matrix, Rows(added.data(), rows, out_features), executor, AddTo{});
    test::multiply(isa, x, matrix, Rows(own.data(), rows, out_features), executor,
                   [](std::size_t row, std::size_t column, ConstRows s, Rows out) {
                     for (std::size_t r = 0; r < s.rows(); ++r) {
                       for (std::size_t c = 0; c < s.cols(); ++c) {
                         out.row(r)[c] -= s.row(r)[c] * static_cast<float>((row + r) * 100 + column + c);
                       }
                     }
                   });
    for (std::size_t i = 0; i < sums.size(); ++i) {
      CHECK(added[i] == start[i] + sums[i]);
      const float factor = static_cast<float>(i / out_features * 100 + i % out_features);
      CHECK(own[i] == doctest::Approx(start[i] - sums[i] * factor).epsilon(1e-6));
    }
  });
}

TEST_CASE("A product without rows or columns is nothing") {
  SerialExecutor executor;
  const auto matrix = PackedMatrix<Q4_0>::pack({}, 0, 64, executor);
  std::vector<float> values(64);
  Activations x(ConstRows(values.data(), 1, 64));
  Activations none(ConstRows(nullptr, 0, 64));
  test::for_every_isa([&](Isa isa) {
    CHECK_NOTHROW(test::multiply(isa, x, matrix, Rows(nullptr, 1, 0), executor));
    CHECK_NOTHROW(test::multiply(isa, none, matrix, Rows(nullptr, 0, 0), executor));
  });
}
