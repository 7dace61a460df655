#include <lazyllm/quant/f32.hpp>
#include <lazyllm/quant/q4_0.hpp>
#include <lazyllm/quant/q4_1.hpp>
#include <lazyllm/quant/q6_k.hpp>
#include <lazyllm/quant/q8_0.hpp>

#include "support/kernel_bound.hpp"

#include <doctest/doctest.h>

using namespace lazyllm;

namespace {

constexpr bool amd = true, intel = false;

template <class F>
double bound(Isa isa, std::size_t rows, bool on_amd) {
  return bench::kernel_bound<typename F::Panel>(isa, rows, on_amd);
}

}  // namespace

TEST_CASE("Where every instruction takes one of two ports, the bound is the dots' share of the instructions") {
  // 12 rows: 96 dots, 4 shifts and 8 ands to unpack, 2 conversions of the scales, then 3 a row.
  CHECK(bound<Q4_0>(Isa::avx512vnni, 12, intel) == doctest::Approx(96.0 / 146));
  // A minimum: 2 conversions and 12 fused multiply-adds more.
  CHECK(bound<Q4_1>(Isa::avx512vnni, 12, intel) == doctest::Approx(96.0 / 160));
  // Codes of a byte need no unpacking.
  CHECK(bound<Q8_0>(Isa::avx512vnni, 12, intel) == doctest::Approx(96.0 / 134));
}

TEST_CASE("Where only products compete, the bound is the dots' share of the products") {
  CHECK(bound<Q4_0>(Isa::avx512vnni, 12, amd) == doctest::Approx(96.0 / (96 + 24)));
  CHECK(bound<Q4_1>(Isa::avx512vnni, 12, amd) == doctest::Approx(96.0 / (96 + 36)));
  // Two scales a block: a product of each with the factor of 256 weights, then two a row.
  CHECK(bound<Q6_K>(Isa::avx512vnni, 12, amd) == doctest::Approx(96.0 / (96 + 2 + 48)));
}

TEST_CASE("On AVX2 the unit is maddubs, madd and add: kernels that widen less often have a bound above 1") {
  // A row and vector of 8 columns: 8 products and a widening, their 8 sums, 3 to scale; 6 rows share 4 shifts, 8 ands
  // and 2 conversions. 8 units of two products on two ports take 8 cycles.
  CHECK(bound<Q4_0>(Isa::avx2, 6, amd) == doctest::Approx(8.0 * 6 / ((20 * 6 + 14) / 4.0)));
  // 12 rows of a byte a code: 16 products, 17 others and 3 to scale each; 9 products, 32 others and 2 conversions.
  CHECK(bound<Q8_0>(Isa::avx2, 12, amd) == doctest::Approx(8.0 * 12 / ((36 * 12 + 43) / 4.0)));
}

TEST_CASE("A bound is that of the average tile, and fewer rows share what unpacking costs") {
  CHECK(bound<Q4_0>(Isa::avx512vnni, 120, intel) == bound<Q4_0>(Isa::avx512vnni, 12, intel));
  CHECK(bound<Q4_0>(Isa::avx512vnni, 16, intel) == bound<Q4_0>(Isa::avx512vnni, 8, intel));
  CHECK(bound<Q4_0>(Isa::avx512vnni, 1, intel) == doctest::Approx(8.0 / (8 + 12 + 2 + 3)));
}

TEST_CASE("Kernels of AVX-512-BF16 are those of AVX-512-VNNI, and what is not counted has the bound 0") {
  CHECK(bound<Q4_0>(Isa::avx512bf16, 12, amd) == bound<Q4_0>(Isa::avx512vnni, 12, amd));
  CHECK(bound<F32>(Isa::avx512vnni, 12, amd) == 1);
  for (const Isa isa : {Isa::portable, Isa::amx}) CHECK(bound<Q4_0>(isa, 12, amd) == 0);
}
