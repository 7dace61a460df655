// out[r, n] = sum over k of x[r, k] * weight[n, k], for x [rows, in_features] and a packed weight [out_features,
// in_features]. Weights of 4 or 8 bits meet 8-bit activations in integers; float weights meet float activations.
// A row's bits depend on the ISA only: not on the other rows of the call, and not on the number of threads.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/quant/activations.hpp>
#include <lazyllm/quant/kernels/portable.hpp>
#include <lazyllm/quant/kernels/tile.hpp>
#include <lazyllm/quant/packed_matrix.hpp>
#include <lazyllm/simd/dispatch.hpp>
#include <lazyllm/simd/isa.hpp>

#if defined(__x86_64__)
#include <lazyllm/quant/kernels/avx2.hpp>
#include <lazyllm/quant/kernels/avx512vnni.hpp>
#endif

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <span>

namespace lazyllm::inline v0 {

/// What becomes of a few finished sums, columns `column`.. of row `row`; `out` is where they go in the output.
/// Called once per sum, from the executor's threads.
template <class P>
concept MatmulEpilogue = requires(const P& p, std::size_t row, std::size_t column, std::span<const float> sums,
                                  std::span<float> out) {
  p(row, column, sums, out);
};

/// Replaces the output.
struct Store {
  void operator()(std::size_t, std::size_t, std::span<const float> sums, std::span<float> out) const {
    std::copy(sums.begin(), sums.end(), out.begin());
  }
};

/// Adds to the output: a residual connection without a pass of its own.
struct AddTo {
  void operator()(std::size_t, std::size_t, std::span<const float> sums, std::span<float> out) const {
    for (std::size_t i = 0; i < sums.size(); ++i) out[i] += sums[i];
  }
};
static_assert(MatmulEpilogue<Store> && MatmulEpilogue<AddTo>);

namespace detail {
template <Isa I, PackableFormat F, class Operand, Executor E, MatmulEpilogue P>
void multiply(const Operand& x, const PackedMatrix<F>& w, Rows out, E& executor, const P& epilogue);
}  // namespace detail

/// With the kernels of `isa`. x [rows, in_features], out [rows, out_features]; out must not overlap x.
/// Precondition: supports(isa). No allocation, once the storage of x has grown.
template <PackableFormat F, Executor E, MatmulEpilogue P = Store>
void matmul(Isa isa, Activations& x, const PackedMatrix<F>& w, Rows out, E& executor, const P& epilogue = {}) {
  LAZYLLM_EXPECTS(supports(isa));
  LAZYLLM_EXPECTS(x.cols() == w.in_features() && x.rows() == out.rows() && out.cols() == w.out_features());
  if (out.empty()) return;
  dispatch(isa, [&](auto tag) {
    if constexpr (F::Panel::reads_codes) {
      detail::multiply<tag()>(x.quantized(executor), w, out, executor, epilogue);
    } else {
      detail::multiply<tag()>(x.floats(), w, out, executor, epilogue);
    }
  });
}

/// With the kernels of this process's ISA.
template <PackableFormat F, Executor E, MatmulEpilogue P = Store>
void matmul(Activations& x, const PackedMatrix<F>& w, Rows out, E& executor, const P& epilogue = {}) {
  matmul(active_isa(), x, w, out, executor, epilogue);
}

}  // namespace lazyllm::inline v0

namespace lazyllm::inline v0::detail {

/// How a product is cut into work items: blocks of row tiles x groups of panels.
/// A block of rows and a group of panels stay in the L2 cache together; the tile's rows stay in L1 over the group.
struct MatmulGrid {
  std::size_t rows, tiles, tiles_per_block, row_blocks;
  std::size_t panels, panels_per_group, panel_groups;

  static constexpr std::size_t rows_budget = std::size_t{384} << 10;    // bytes of a block of rows
  static constexpr std::size_t panels_budget = std::size_t{192} << 10;  // bytes of a group of panels
  static constexpr std::size_t items_per_thread = 8;

  MatmulGrid(std::size_t row_count, std::size_t max_tile_rows, std::size_t row_bytes, std::size_t panel_count,
             std::size_t max_tile_panels, std::size_t panel_bytes, std::size_t threads)
      : rows(row_count), tiles(ceil_div(row_count, max_tile_rows)), panels(panel_count) {
    const std::size_t wanted_items = threads > 1 ? items_per_thread * threads : 1;
    panels_per_group = std::clamp<std::size_t>(panels_budget / std::max<std::size_t>(panel_bytes, 1), 1, panels);
    // Rows are split first: a tile's activations then stay in L1 over many panels, which stream past in order.
    tiles_per_block =
        std::clamp<std::size_t>(rows_budget / std::max<std::size_t>(row_bytes * max_tile_rows, 1), 1, tiles);
    tiles_per_block =
        std::clamp<std::size_t>(tiles / ceil_div(wanted_items, ceil_div(panels, panels_per_group)), 1, tiles_per_block);
    row_blocks = ceil_div(tiles, tiles_per_block);
    panels_per_group = std::clamp<std::size_t>(panels / ceil_div(wanted_items, row_blocks), 1, panels_per_group);
    panels_per_group = ceil_div(panels_per_group, max_tile_panels) * max_tile_panels;
    panel_groups = ceil_div(panels, panels_per_group);
  }

  [[nodiscard]] std::size_t items() const { return row_blocks * panel_groups; }
  /// First row of a tile; tiles differ by at most one row.
  [[nodiscard]] std::size_t first_row(std::size_t tile) const { return tile * rows / tiles; }

  static constexpr std::size_t ceil_div(std::size_t a, std::size_t b) { return (a + b - 1) / b; }
};

/// Products below this many bytes of weights times rows are over before another thread is awake.
inline constexpr std::size_t serial_matmul_bytes = std::size_t{48} << 10;

/// Rows first .. first + count - 1 times panels p .. p + panels - 1.
template <class Kernel, class Operand, class F, class P>
void multiply_tile(const Operand& x, std::size_t first, std::size_t count, const PackedMatrix<F>& w, std::size_t p,
                   std::size_t panels, Rows out, const P& epilogue) {
  const auto run = tile_function<Kernel, Operand>(count, panels);
  const std::size_t column = p * panel_columns;
  const std::size_t columns = std::min(panels * panel_columns, out.cols() - column);
  float* target = out.data() + first * out.stride() + column;
  if constexpr (std::same_as<P, Store> || std::same_as<P, AddTo>) {
    const TileOutput output{target, out.stride(), columns, std::same_as<P, AddTo>};
    run(x, first, w.panel(p), w.panel_bytes(), w.block_count(), output);
  } else {
    constexpr std::size_t stride = Kernel::max_panels * panel_columns;
    std::array<float, Kernel::max_rows * stride> sums;
    run(x, first, w.panel(p), w.panel_bytes(), w.block_count(), TileOutput{sums.data(), stride, columns, false});
    for (std::size_t r = 0; r < count; ++r) {
      epilogue(first + r, column, std::span<const float>(sums).subspan(r * stride, columns),
               std::span<float>(target + r * out.stride(), columns));
    }
  }
}

template <Isa I, PackableFormat F, class Operand, Executor E, MatmulEpilogue P>
void multiply(const Operand& x, const PackedMatrix<F>& w, Rows out, E& executor, const P& epilogue) {
  using Kernel = TileKernel<I, typename F::Panel>;
  const std::size_t row_bytes = F::Panel::reads_codes ? w.in_features() * 3 / 2 : w.in_features() * sizeof(float);
  const MatmulGrid grid(out.rows(), Kernel::max_rows, row_bytes, w.panel_count(), Kernel::max_panels, w.panel_bytes(),
                        executor.concurrency());
  const auto body = [&](std::size_t begin, std::size_t end) {
    for (std::size_t item = begin; item < end; ++item) {
      const std::size_t first_tile = item / grid.panel_groups * grid.tiles_per_block;
      const std::size_t last_tile = std::min(first_tile + grid.tiles_per_block, grid.tiles);
      const std::size_t first_panel = item % grid.panel_groups * grid.panels_per_group;
      const std::size_t last_panel = std::min(first_panel + grid.panels_per_group, grid.panels);
      for (std::size_t tile = first_tile; tile < last_tile; ++tile) {
        const std::size_t first = grid.first_row(tile);
        const std::size_t count = grid.first_row(tile + 1) - first;
        for (std::size_t p = first_panel; p < last_panel; p += Kernel::max_panels) {
          multiply_tile<Kernel>(x, first, count, w, p, std::min(Kernel::max_panels, last_panel - p), out, epilogue);
        }
      }
    }
  };
  if (w.size_bytes() * out.rows() <= serial_matmul_bytes) {
    body(0, grid.items());
  } else {
    executor.parallel_for(grid.items(), body);
  }
}

}  // namespace lazyllm::inline v0::detail
