// What all matmul kernels share: a tile is up to max_rows rows of activations times up to max_panels panels of 16
// output columns.
// A kernel accumulates per (row, column) over K in one fixed order of float operations, the same for every tile height:
// a row's result does not depend on its neighbours.
#pragma once

#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/quant/panel.hpp>
#include <lazyllm/simd/bfloat16_rows.hpp>
#include <lazyllm/simd/isa.hpp>
#include <lazyllm/simd/quantized_rows.hpp>
#include <lazyllm/simd/target_region.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace lazyllm::inline v0::detail {

/// Where a tile goes: row r, column c of the tile is data[r * stride + c], c < columns; all panels but the last are
/// full.
struct TileOutput {
  float* data = nullptr;
  std::size_t stride = 0;
  std::size_t columns = panel_columns;
  std::size_t rows = 0;  // the first of the tile's rows, at most; others that a kernel computes go nowhere
  bool add = false;      // add to what is there instead of replacing it
};

/// Specialised per ISA and panel shape:
///   static constexpr std::size_t max_rows, max_panels;  // max_panels: a power of two
///   static std::size_t tile_panels(rows);  // optional: how many it has on this CPU
///   template <std::size_t R, std::size_t P>   // R <= max_rows rows (codes: only R of tile_rows), P panels, a power of
///                                             // two, panel_stride bytes apart
///   static void run(const Operand& x, std::size_t first_row, const std::byte* panels, std::size_t panel_stride,
///                   std::size_t blocks, const TileOutput& out);
template <Isa I, class Panel>
struct TileKernel;

/// What the kernels of an ISA read: floats for float weights, 8-bit codes or bfloat16 for codes.
template <Isa I, class Panel>
using MatmulOperand =
    std::conditional_t<!Panel::reads_codes, ConstRows, std::conditional_t<I == Isa::amx, BFloat16Rows, QuantizedRows>>;

/// The i-th group of weights of one part of a block, in the order in which kernels take them: groups whose codes share
/// bytes follow each other.
template <class Panel>
[[nodiscard]] constexpr std::size_t group_at(std::size_t part, std::size_t i) {
  if (Panel::bits == 8) return i;
  return Panel::parts == 2 ? part * 4 + i : i / 2 + i % 2 * 4;
}
template <class Panel>
inline constexpr std::size_t part_groups = 8 / Panel::parts;

/// Accumulators start at -zero_point times the sum of the part's activation codes: a multiple, by this power of two, of
/// the sums that a QuantizedBlock has.
template <class Panel>
inline constexpr int zero_point_shift = Panel::zero_point == 0 ? 0 : std::countr_zero(Panel::zero_point / 8u);

template <class Operand>
using TileFunction = void (*)(const Operand&, std::size_t, const std::byte*, std::size_t, std::size_t,
                              const TileOutput&);

/// How far ahead of their use weights are asked for, if a kernel has no other number.
inline constexpr std::size_t read_ahead_bytes = 4096;

/// Asks for the share of a panel's bytes that reading one block takes. Beyond the matrix's end that does nothing.
template <class Panel>
[[gnu::always_inline]] inline void prefetch_block(const std::byte* panel, std::size_t block) {
  constexpr std::size_t bytes = Panel::cell_bytes / Panel::cell_blocks;
  LAZYLLM_UNROLL
  for (std::size_t i = 0; i < bytes; i += 64) __builtin_prefetch(panel + block * bytes + i);
}

/// The same, some way ahead of `block`: in the same panel or, as panels follow each other, in the next ones.
template <class Panel>
[[gnu::always_inline]] inline void prefetch_ahead(const std::byte* panel, std::size_t block,
                                                  std::size_t ahead = read_ahead_bytes) {
  prefetch_block<Panel>(panel + ahead, block);
}

/// Rows that a kernel of codes computes for `rows` of them: a power of two or max_rows, so that few kernels are
/// compiled.
[[nodiscard]] constexpr std::size_t tile_rows(std::size_t rows, std::size_t max_rows) {
  return std::min(std::bit_ceil(rows), max_rows);
}

/// The kernel for `rows` rows and `panels` panels, a power of two.
template <class Kernel, class Operand>
[[nodiscard]] TileFunction<Operand> tile_function(std::size_t rows, std::size_t panels) {
  constexpr bool few_heights = std::is_same_v<Operand, QuantizedRows>;
  constexpr std::size_t max_rows = Kernel::max_rows;
  constexpr std::size_t heights = few_heights ? std::size_t{std::bit_width(max_rows - 1)} + 1 : max_rows;
  constexpr std::size_t widths = std::bit_width(Kernel::max_panels);
  static constexpr auto table = []<std::size_t... I>(std::index_sequence<I...>) {
    constexpr auto height = [](std::size_t i) {
      return few_heights ? tile_rows(std::size_t{1} << i / widths, max_rows) : i / widths + 1;
    };
    return std::array<TileFunction<Operand>, sizeof...(I)>{
        &Kernel::template run<height(I), std::size_t{1} << I % widths>...};
  }
  (std::make_index_sequence<heights * widths>{});
  const std::size_t height = few_heights ? static_cast<std::size_t>(std::bit_width(rows - 1)) : rows - 1;
  return table[height * widths + static_cast<std::size_t>(std::bit_width(panels)) - 1];
}

/// Pointers into R rows that advance together, one kept for each three rows: row r is base + (0, 1 or 2) * stride, an
/// address that a load computes by itself. A pointer a row would not fit the registers.
template <class T, std::size_t R>
class RowPointers {
 public:
  RowPointers(const T* first, std::size_t stride) : stride_(stride) {
    LAZYLLM_UNROLL
    for (std::size_t i = 0; i < bases; ++i) base_[i] = first + 3 * i * stride;
  }
  [[nodiscard]] const T* operator[](std::size_t r) const { return base_[r / 3] + (r % 3) * stride_; }
  void advance(std::size_t count) {
    LAZYLLM_UNROLL
    for (std::size_t i = 0; i < bases; ++i) {
      base_[i] += count;
      __asm__("" : "+r"(base_[i]));  // else compilers see the rows' addresses and keep one for each
    }
  }

 private:
  static constexpr std::size_t bases = (R + 2) / 3;
  const T* base_[bases];
  std::size_t stride_;
};

}  // namespace lazyllm::inline v0::detail
