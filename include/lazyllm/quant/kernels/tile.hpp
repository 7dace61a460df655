// What all matmul kernels share: a tile is up to max_rows rows of activations times one panel of 16 output columns.
// A kernel accumulates per (row, column) over K in one fixed order of float operations, the same for every tile height:
// a row's result does not depend on its neighbours.
#pragma once

#include <lazyllm/quant/panel.hpp>
#include <lazyllm/simd/isa.hpp>

#include <array>
#include <cstddef>
#include <utility>

namespace lazyllm::inline v0::detail {

/// Where a tile goes: row r, column c of the tile is data[r * stride + c], c < columns (at most 16).
struct TileOutput {
  float* data = nullptr;
  std::size_t stride = 0;
  std::size_t columns = panel_columns;
  bool add = false;  // add to what is there instead of replacing it
};

/// Specialised per ISA and panel shape:
///   static constexpr std::size_t max_rows;
///   template <std::size_t R> static void run(const Operand& x, std::size_t first_row, const std::byte* panel,
///                                            std::size_t blocks, TileOutput out);   // R rows, 1 <= R <= max_rows
/// Operand is QuantizedRows for panels of codes and ConstRows for panels of floats.
template <Isa I, class Panel>
struct TileKernel;

/// The kernel for `rows` rows, as a function pointer.
template <class Kernel, class Operand>
[[nodiscard]] auto tile_function(std::size_t rows) {
  using Function = void (*)(const Operand&, std::size_t, const std::byte*, std::size_t, TileOutput);
  static constexpr auto table = []<std::size_t... I>(std::index_sequence<I...>) {
    return std::array<Function, sizeof...(I)>{&Kernel::template run<I + 1>...};
  }
  (std::make_index_sequence<Kernel::max_rows>{});
  return table[rows - 1];
}

}  // namespace lazyllm::inline v0::detail
