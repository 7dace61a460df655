// The share of the machine's product peak that a matmul tile can reach at most by its own instructions: per block the
// products wait for the ports that unpacking and scaling take. Counted by hand from quant/kernels/; a change there
// changes the counts here. Loads, stores and loop control have ports of their own and are not counted.
#pragma once

#include <lazyllm/quant/matmul.hpp>
#include <lazyllm/quant/panel.hpp>
#include <lazyllm/simd/isa.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace lazyllm::bench {

/// Vector instructions of a piece of code, by what they compete for.
struct VectorOperations {
  double integer_products = 0;  // vpdpbusd, vpmaddubsw, vpmaddwd
  double float_products = 0;    // mul, fma
  double shifts = 0;            // and conversions
  double others = 0;            // and, or, add

  [[nodiscard]] double all() const { return integer_products + float_products + shifts + others; }
};

/// Cycles that the operations take at least. Intel server cores, 512-bit: every operation takes one of two ports;
/// 256-bit: three ports, two of which take products, shifts and conversions. AMD since Zen 3 (Zen 4 splits 512-bit
/// operations, which changes no share): four pipes, two of which take products, float or integer (measured on Zen 4: 12
/// of vpmaddubsw and vmulps each take 12 cycles).
[[nodiscard]] inline double least_cycles(const VectorOperations& ops, Isa isa, bool amd) {
  const double products = ops.integer_products + ops.float_products;
  if (!amd) return isa == Isa::avx512vnni ? ops.all() / 2 : std::max((products + ops.shifts) / 2, ops.all() / 3);
  return std::max(products / 2, ops.all() / 4);
}

/// One unit of measure_machine_peak's loop.
[[nodiscard]] inline VectorOperations peak_unit(Isa isa, bool integers) {
  if (!integers) return {.float_products = 1};
  if (isa == Isa::avx2) return {.integer_products = 2, .others = 1};
  return {.integer_products = 1};
}

namespace detail {

/// To bring one vector of scales or minima to float.
template <class Scales>
[[nodiscard]] VectorOperations scale_operations() {
  if constexpr (std::is_same_v<Scales, HalfScales>) return {.shifts = 2};  // vcvtph2ps is two
  return {.float_products = 1, .shifts = 2 + 1 + 1};
}

/// To get the codes of a block out of one vector's share of its lines.
template <class Panel>
[[nodiscard]] VectorOperations unpack_operations(Isa isa) {
  if (Panel::bits == 8) {  // AVX2: magnitudes, signs, and the sum of what the signs take away
    return isa == Isa::avx2 ? VectorOperations{.integer_products = 8 + 1, .others = 4 * 8} : VectorOperations{};
  }
  VectorOperations ops{.shifts = 4, .others = 8};
  if (Panel::high_bits > 0) {
    for (std::size_t group = 0; group < 8; ++group) ops.shifts += Panel::high_shift(group) == 4 ? 0 : 1;
    ops.others += isa == Isa::avx512vnni ? 8 : 16;
  }
  return ops;
}

/// A block of 32 weights times `rows` rows, for one vector of columns (16 with AVX-512, else 8). The accumulators'
/// start values, which all vectors of a row share, are not counted.
template <class Panel>
[[nodiscard]] VectorOperations block_operations(Isa isa, double rows) {
  constexpr double parts = Panel::parts, minima = Panel::has_minimum ? 1 : 0;
  VectorOperations ops = unpack_operations<Panel>(isa);
  if (isa != Isa::avx2) {
    ops.integer_products += rows * 8;
  } else if (Panel::bits == 8) {
    ops.integer_products += rows * 8 * 2;
    ops.others += rows * (8 * 2 + 1);  // the sign, and the sums
  } else {
    const double widened = Panel::bits == 4 ? 1 : Panel::bits == 5 ? 2 : 4;
    ops.integer_products += rows * (8 + widened);
    ops.others += rows * (8 - widened) + rows * (widened - (Panel::zero_point == 0 ? parts : 0));
  }
  const VectorOperations scales = scale_operations<typename Panel::ScaleTable>();
  const double conversions = parts * (1 + minima);
  ops.float_products += conversions * scales.float_products + rows * parts * (2 + minima);
  ops.shifts += conversions * scales.shifts + rows * parts;  // vcvtdq2ps
  return ops;
}

/// One weight of each column times `rows` rows.
template <class Element>
[[nodiscard]] VectorOperations float_operations(double rows) {
  return {.float_products = rows, .shifts = std::is_same_v<Element, float> ? 0.0 : 2.0};
}

}  // namespace detail

/// In (0, 1], or above with AVX2, whose kernels widen less often than the peak's sequence; 0: not counted for this ISA.
/// `rows`: of the whole product; the bound is that of its average tile.
template <class Panel>
[[nodiscard]] double kernel_bound(Isa isa, std::size_t rows, bool amd = lazyllm::detail::cpu_features().amd) {
  isa = Panel::reads_codes ? integer_isa(isa) : float_isa(isa);
  if (isa != Isa::avx2 && isa != Isa::avxvnni && isa != Isa::avx512vnni) return 0;
  return dispatch(isa, [&](auto tag) {
    constexpr std::size_t most = lazyllm::detail::TileKernel<tag(), Panel>::max_rows;
    const auto tile_rows = static_cast<double>(rows) / static_cast<double>((rows + most - 1) / most);
    const double unit = least_cycles(peak_unit(isa, Panel::reads_codes), isa, amd);
    if constexpr (Panel::reads_codes) {
      const VectorOperations ops = detail::block_operations<Panel>(isa, tile_rows);
      return 8 * tile_rows * unit / least_cycles(ops, isa, amd);
    } else {
      const VectorOperations ops = detail::float_operations<typename Panel::Element>(tile_rows);
      return tile_rows * unit / least_cycles(ops, isa, amd);
    }
  });
}

}  // namespace lazyllm::bench
