// out[r, n] = sum over k of x[r, k] * weight[n, k], for x [rows, in_features] and a packed weight [out_features,
// in_features]. Weights of 4 or 8 bits meet 8-bit activations in integers; float weights meet float activations.
// A row's bits depend on the ISA only: not on the other rows of the call, and not on the number of threads.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/quant/activations.hpp>
#include <lazyllm/quant/epilogue.hpp>
#include <lazyllm/quant/kernels/portable.hpp>
#include <lazyllm/quant/kernels/tile.hpp>
#include <lazyllm/quant/packed_matrix.hpp>
#include <lazyllm/simd/dispatch.hpp>
#include <lazyllm/simd/isa.hpp>

#if defined(__x86_64__)
#include <lazyllm/quant/kernels/amx.hpp>
#include <lazyllm/quant/kernels/avx2.hpp>
#include <lazyllm/quant/kernels/avx512vnni.hpp>
#include <lazyllm/quant/kernels/avxvnni.hpp>
#elif defined(__aarch64__)
#include <lazyllm/quant/kernels/neon.hpp>
#endif

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>

namespace lazyllm::inline v0 {

class AnyMatrix;

/// One product of a call: out [rows, out_features] = x * weight, by way of the epilogue. Refers to the weight and to
/// what the epilogue refers to.
template <class M, MatmulEpilogue P = Store>
struct Product {
  const M& weight;
  Rows out;
  P epilogue{};
};
template <class M>
Product(const M&, Rows) -> Product<M>;
template <class M, MatmulEpilogue P>
Product(const M&, Rows, P) -> Product<M, P>;

namespace detail {
struct MatmulJob;
template <PackableFormat F, Executor E, MatmulEpilogue P>
MatmulJob matmul_job(Isa isa, Activations& x, const Product<PackedMatrix<F>, P>& product, E& executor);
template <Executor E, MatmulEpilogue P>
MatmulJob matmul_job(Isa isa, Activations& x, const Product<AnyMatrix, P>& product, E& executor);
template <Executor E>
void run_matmul_jobs(std::span<const MatmulJob> jobs, E& executor);
}  // namespace detail

/// Several products of the same x [rows, in_features] with the kernels of `isa`, in one go over the threads.
/// No out overlaps x. Precondition: supports(isa). No allocation, once the storage of x has grown.
template <Executor E, class... M, MatmulEpilogue... P>
void matmul(Isa isa, Activations& x, E& executor, const Product<M, P>&... products) {
  LAZYLLM_EXPECTS(supports(isa));
  const std::array<detail::MatmulJob, sizeof...(M)> jobs{detail::matmul_job(isa, x, products, executor)...};
  detail::run_matmul_jobs(std::span<const detail::MatmulJob>(jobs), executor);
}

/// One product.
template <class M, Executor E, MatmulEpilogue P = Store>
void matmul(Isa isa, Activations& x, const M& w, Rows out, E& executor, const P& epilogue = {}) {
  matmul(isa, x, executor, Product<M, P>{w, out, epilogue});
}

/// With the kernels of this process's ISA.
template <class M, Executor E, MatmulEpilogue P = Store>
void matmul(Activations& x, const M& w, Rows out, E& executor, const P& epilogue = {}) {
  matmul(active_isa(), x, w, out, executor, epilogue);
}

}  // namespace lazyllm::inline v0

namespace lazyllm::inline v0::detail {

/// How a product is cut into work items: blocks of row tiles x groups of panels.
struct MatmulGrid {
  std::size_t rows = 0, tiles = 0, tiles_per_block = 0, row_blocks = 0;
  std::size_t panels = 0, panels_per_group = 0, panel_groups = 0;

  MatmulGrid() = default;

  static constexpr std::size_t rows_budget = std::size_t{384} << 10;    // bytes of a block of rows
  static constexpr std::size_t panels_budget = std::size_t{192} << 10;  // bytes of a group of panels
  static constexpr std::size_t stretch_bytes = std::size_t{64} << 10;   // takes ten times as long as to claim it
  static constexpr std::size_t items_per_thread = 24;

  /// For kernels that read codes as they lie: a block of rows and a group of panels stay in the L2 cache together, the
  /// tile's rows stay in L1 over the group.
  static MatmulGrid for_tiles(std::size_t rows, std::size_t max_tile_rows, std::size_t row_bytes, std::size_t panels,
                              std::size_t tile_panels, std::size_t panel_bytes, std::size_t threads) {
    MatmulGrid grid(rows, ceil_div(rows, max_tile_rows), panels);
    const std::size_t wanted_items = threads > 1 ? items_per_thread * threads : 1;
    std::size_t group = std::clamp<std::size_t>(panels_budget / std::max<std::size_t>(panel_bytes, 1), 1, panels);
    // Rows are split first: a tile's activations then stay in L1 over many panels, which stream past in order.
    const std::size_t most =
        std::clamp<std::size_t>(rows_budget / std::max<std::size_t>(row_bytes * max_tile_rows, 1), 1, grid.tiles);
    grid.tiles_per_block =
        std::clamp<std::size_t>(grid.tiles / ceil_div(wanted_items, ceil_div(panels, group)), 1, most);
    grid.row_blocks = ceil_div(grid.tiles, grid.tiles_per_block);
    group = std::clamp<std::size_t>(panels / ceil_div(wanted_items, grid.row_blocks), 1, group);
    if (grid.tiles == 1) {  // nothing is read again: an item is a stretch of memory
      group = std::clamp<std::size_t>(stretch_bytes / std::max<std::size_t>(panel_bytes, 1), 1,
                                      std::max<std::size_t>(panels / (2 * threads), 1));
    }
    grid.set_group(group, tile_panels);
    return grid;
  }

  /// For kernels that unpack the weights once per work item: panels are split first, rows only where the panels give
  /// the threads too little.
  static MatmulGrid for_unpacked(std::size_t rows, std::size_t max_tile_rows, std::size_t max_item_rows,
                                 std::size_t panels, std::size_t max_tile_panels, std::size_t threads) {
    MatmulGrid grid(rows, ceil_div(rows, max_tile_rows), panels);
    const std::size_t wanted_items = threads > 1 ? items_per_thread * threads : 1;
    grid.set_group(std::max<std::size_t>(panels / wanted_items, 1), max_tile_panels);
    const std::size_t least_blocks = ceil_div(threads > 1 ? 2 * threads : 1, grid.panel_groups);
    grid.tiles_per_block = std::clamp<std::size_t>(grid.tiles / least_blocks, 1, max_item_rows / max_tile_rows);
    grid.row_blocks = ceil_div(grid.tiles, grid.tiles_per_block);
    return grid;
  }

  [[nodiscard]] std::size_t items() const { return row_blocks * panel_groups; }

  static constexpr std::size_t ceil_div(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

 private:
  MatmulGrid(std::size_t row_count, std::size_t tile_count, std::size_t panel_count)
      : rows(row_count), tiles(tile_count), panels(panel_count) {}
  void set_group(std::size_t group, std::size_t max_tile_panels) {
    panels_per_group = ceil_div(group, max_tile_panels) * max_tile_panels;
    panel_groups = ceil_div(panels, panels_per_group);
  }
};

/// An epilogue, its type erased, so that kernels are compiled once for all.
struct AnyEpilogue {
  const void* object = nullptr;
  void (*call)(const void* object, std::size_t row, std::size_t column, ConstRows sums, Rows out) = nullptr;
  bool stores = false, adds = false;  // a kernel does Store and AddTo itself

  AnyEpilogue() = default;
  /// Refers to `epilogue`.
  template <MatmulEpilogue P>
  explicit AnyEpilogue(const P& epilogue)
      : object(&epilogue),
        call([](const void* p, std::size_t row, std::size_t column, ConstRows sums, Rows out) {
          (*static_cast<const P*>(p))(row, column, sums, out);
        }),
        stores(std::same_as<P, Store>),
        adds(std::same_as<P, AddTo>) {}
};

/// One product, its types erased, so that products of several formats share one pass over the threads.
struct MatmulJob {
  const void* x = nullptr;
  const void* weight = nullptr;
  AnyEpilogue epilogue;
  Rows out;
  MatmulGrid grid;
  std::size_t weight_bytes = 0;
  void (*run)(const MatmulJob&, std::size_t begin, std::size_t end) = nullptr;  // work items begin .. end - 1
};

/// Products below this many bytes of weights times rows are over before another thread is awake.
inline constexpr std::size_t serial_matmul_bytes = std::size_t{48} << 10;

template <Executor E>
void run_matmul_jobs(std::span<const MatmulJob> jobs, E& executor) {
  std::size_t items = 0, bytes = 0;
  for (const MatmulJob& job : jobs) {
    items += job.grid.items();
    bytes += job.weight_bytes * job.out.rows();
  }
  const auto body = [&](std::size_t begin, std::size_t end) {
    std::size_t first = 0;
    for (const MatmulJob& job : jobs) {
      const std::size_t last = first + job.grid.items();
      if (begin < last && first < end) job.run(job, std::max(begin, first) - first, std::min(end, last) - first);
      first = last;
    }
  };
  if (bytes <= serial_matmul_bytes) {
    body(0, items);
  } else {
    executor.parallel_for(items, body);
  }
}

/// Rows first .. first + count - 1 times panels p .. p + panels - 1.
template <class Kernel, class Operand, class F>
void multiply_tile(const Operand& x, std::size_t first, std::size_t count, const PackedMatrix<F>& w, std::size_t p,
                   std::size_t panels, Rows out, const AnyEpilogue& epilogue) {
  const auto run = tile_function<Kernel, Operand>(count, panels);
  const std::size_t column = p * panel_columns;
  const std::size_t columns = std::min(panels * panel_columns, out.cols() - column);
  const Rows target = out.middle_rows(first, count).middle_cols(column, columns);
  if (epilogue.stores || epilogue.adds) {
    const TileOutput output{target.data(), out.stride(), columns, count, epilogue.adds};
    run(x, first, w.panel(p), w.panel_bytes(), w.block_count(), output);
  } else {
    alignas(64) std::array<float, Kernel::max_rows * Kernel::max_panels * panel_columns> sums;
    const std::size_t stride = panels * panel_columns;
    run(x, first, w.panel(p), w.panel_bytes(), w.block_count(), TileOutput{sums.data(), stride, columns, count, false});
    epilogue.call(epilogue.object, first, column, ConstRows(sums.data(), count, columns, stride), target);
  }
}

/// Where the sums of rows and panels from (first_row, first_panel) on go, tile by tile.
struct TileSink {
  std::size_t first_row, first_panel;
  Rows out;  // the whole output
  const AnyEpilogue& epilogue;

  /// The output itself, where whole tiles only replace what is there.
  [[nodiscard]] Rows direct(std::size_t row, std::size_t panel, std::size_t panels) const {
    const std::size_t column = (first_panel + panel) * panel_columns, columns = panels * panel_columns;
    if (!epilogue.stores || column + columns > out.cols()) return {};
    return {out.data() + (first_row + row) * out.stride() + column, 1, columns, out.stride()};
  }
  void operator()(std::size_t row, std::size_t panel, ConstRows sums) const {
    const std::size_t column = (first_panel + panel) * panel_columns;
    const std::size_t columns = std::min(sums.cols(), out.cols() - column);
    epilogue.call(epilogue.object, first_row + row, column, sums.middle_cols(0, columns),
                  out.middle_rows(first_row + row, sums.rows()).middle_cols(column, columns));
  }
};

/// Kernels that unpack weights once for all rows of a work item.
template <class Kernel>
concept UnpackingKernel = requires {
  typename Kernel::Setup;
};

struct NoSetup {
  explicit NoSetup(std::size_t) {}
};
template <class Kernel>
struct SetupOf {
  using type = NoSetup;
};
template <UnpackingKernel Kernel>
struct SetupOf<Kernel> {
  using type = typename Kernel::Setup;
};

/// Panels that a tile of `rows` rows has on this CPU, if there are as many.
template <class Kernel>
[[nodiscard]] std::size_t tile_panels(std::size_t rows) {
  if constexpr (requires { Kernel::tile_panels(rows); }) {
    return Kernel::tile_panels(rows);
  } else {
    return Kernel::max_panels;
  }
}

template <class Kernel, class Operand, PackableFormat F>
void run_matmul_items(const MatmulJob& job, std::size_t begin, std::size_t end) {
  const auto& x = *static_cast<const Operand*>(job.x);
  const auto& w = *static_cast<const PackedMatrix<F>*>(job.weight);
  const MatmulGrid& grid = job.grid;
  [[maybe_unused]] const typename SetupOf<Kernel>::type setup(grid.rows);
  for (std::size_t item = begin; item < end; ++item) {
    const std::size_t first_tile = item / grid.panel_groups * grid.tiles_per_block;
    const std::size_t last_tile = std::min(first_tile + grid.tiles_per_block, grid.tiles);
    const std::size_t first_panel = item % grid.panel_groups * grid.panels_per_group;
    const std::size_t last_panel = std::min(first_panel + grid.panels_per_group, grid.panels);
    if constexpr (UnpackingKernel<Kernel>) {
      const std::size_t first = first_tile * Kernel::max_rows;
      const std::size_t rows = std::min(last_tile * Kernel::max_rows, grid.rows) - first;
      const TileSink sink{first, first_panel, job.out, job.epilogue};
      Kernel::run(x, first, rows, w.panel(first_panel), w.panel_bytes(), last_panel - first_panel, w.block_count(),
                  sink);
    } else {
      static_assert(!std::same_as<Operand, QuantizedRows> || QuantizedRows::group_rows % Kernel::max_rows == 0);
      for (std::size_t tile = first_tile; tile < last_tile; ++tile) {
        const std::size_t first = tile * Kernel::max_rows;
        const std::size_t count = std::min(Kernel::max_rows, grid.rows - first);
        const std::size_t most = tile_panels<Kernel>(count);
        for (std::size_t p = first_panel, panels; p < last_panel; p += panels) {
          panels = std::min(most, std::bit_floor(last_panel - p));
          multiply_tile<Kernel>(x, first, count, w, p, panels, job.out, job.epilogue);
        }
      }
    }
  }
}

template <Isa I, PackableFormat F, Executor E, MatmulEpilogue P>
MatmulJob matmul_job_on(Activations& x, const Product<PackedMatrix<F>, P>& product, E& executor) {
  using Kernel = TileKernel<I, typename F::Panel>;
  using Operand = MatmulOperand<I, typename F::Panel>;
  const PackedMatrix<F>& w = product.weight;
  const Rows& out = product.out;
  LAZYLLM_EXPECTS(x.cols() == w.in_features() && x.rows() == out.rows() && out.cols() == w.out_features());
  MatmulJob job;
  job.weight = &w;
  job.epilogue = AnyEpilogue(product.epilogue);
  job.out = out;
  job.weight_bytes = w.size_bytes();
  if (out.empty()) return job;  // no items
  job.x = &x.template as<Operand>(executor);
  job.run = &run_matmul_items<Kernel, Operand, F>;
  if constexpr (UnpackingKernel<Kernel>) {
    job.grid = MatmulGrid::for_unpacked(out.rows(), Kernel::max_rows, Kernel::max_item_rows, w.panel_count(),
                                        Kernel::max_panels, executor.concurrency());
  } else {
    const std::size_t row_bytes = F::Panel::reads_codes ? w.in_features() * 3 / 2 : w.in_features() * sizeof(float);
    const std::size_t panels = tile_panels<Kernel>(std::min(out.rows(), Kernel::max_rows));
    job.grid = MatmulGrid::for_tiles(out.rows(), Kernel::max_rows, row_bytes, w.panel_count(), panels, w.panel_bytes(),
                                     executor.concurrency());
  }
  return job;
}

template <PackableFormat F, Executor E, MatmulEpilogue P>
MatmulJob matmul_job(Isa isa, Activations& x, const Product<PackedMatrix<F>, P>& product, E& executor) {
  return dispatch(isa, [&](auto tag) { return matmul_job_on<tag()>(x, product, executor); });
}

}  // namespace lazyllm::inline v0::detail
