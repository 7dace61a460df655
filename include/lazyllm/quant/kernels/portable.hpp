// Matmul tiles in plain C++, for CPUs without kernels of their own; loops over 16 columns, which compilers vectorise.
// Per block: sum += (float)(integer dot) * (weight scale * activation scale), after sum += minimum * scaled_sum.
#pragma once

#include <lazyllm/core/bfloat16.hpp>
#include <lazyllm/core/float16.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/quant/kernels/tile.hpp>
#include <lazyllm/simd/quantized_rows.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace lazyllm::inline v0::detail {

// The compiler may fuse a product and a sum or not, by flags and by context. Where the CPU that the build names can
// fuse, it is asked for explicitly; elsewhere nothing can be fused: either way every tile height gives the same bits.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
struct FusedBuild {};
using PortableBuild = FusedBuild;
#else
struct UnfusedBuild {};
using PortableBuild = UnfusedBuild;
#endif

/// `Build` keeps copies of translation units with other flags apart.
template <class Build>
[[nodiscard]] inline float multiply_add(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

using PanelRow = std::array<float, panel_columns>;

template <class Build>
inline void write_panel_row(const PanelRow& sums, std::size_t row, const TileOutput& out) {
  if (row >= out.rows) return;
  float* target = out.data + row * out.stride;
  for (std::size_t c = 0; c < out.columns; ++c) target[c] = out.add ? target[c] + sums[c] : sums[c];
}

/// One vector of a scale table as floats.
template <class Scales, class Build>
[[nodiscard]] inline PanelRow load_scales(const std::byte* table, std::size_t index) {
  PanelRow values;
  for (std::size_t c = 0; c < panel_columns; ++c) values[c] = Scales::scale(table, index, c);
  return values;
}

template <class Panel, class Build>
struct PortableAffineKernel {
  static constexpr std::size_t max_rows = 4;
  static constexpr std::size_t max_panels = 1;
  // Codes of one block without zero point: [32 weights][16 columns].
  using Codes = std::array<std::array<std::int16_t, panel_columns>, 32>;

  static int code(const std::byte* block, std::size_t group, std::size_t lane) {
    constexpr std::size_t line = 4 * panel_columns;
    if constexpr (Panel::bits == 8) {
      return std::to_integer<int>(block[group * line + lane]);
    } else {
      const int byte = std::to_integer<int>(block[group % 4 * line + lane]);
      const int low = group < 4 ? byte & 15 : byte >> 4;
      if constexpr (Panel::high_bits == 0) return low;
      const int high = std::to_integer<int>(block[Panel::high_line(group) * line + lane]) >> Panel::high_shift(group);
      return low | (high & ((1 << Panel::high_bits) - 1)) << 4;
    }
  }
  static void unpack(const std::byte* block, Codes& codes) {
    for (std::size_t group = 0; group < 8; ++group) {
      for (std::size_t c = 0; c < panel_columns; ++c) {
        for (std::size_t j = 0; j < 4; ++j) {
          codes[group * 4 + j][c] = static_cast<std::int16_t>(code(block, group, c * 4 + j) - Panel::zero_point);
        }
      }
    }
  }

  template <std::size_t R, std::size_t>
  static void run(const QuantizedRows& x, std::size_t first_row, const std::byte* panel, std::size_t,
                  std::size_t blocks, const TileOutput& out) {
    using Scales = typename Panel::ScaleTable;
    std::array<PanelRow, R> sums{};
    Codes codes;
    QuantizedTile a = x.tile(first_row);
    for (std::size_t b = 0; b < blocks; ++b, a.next_block()) {
      unpack(Panel::codes(panel, b), codes);
      for (std::size_t part = 0; part < Panel::parts; ++part) {
        const std::size_t index = Panel::scale_index(b, part);
        const PanelRow scales = load_scales<Scales, Build>(Panel::scales(panel, b), index);
        PanelRow minima{};
        if constexpr (Panel::has_minimum) {
          minima = load_scales<Scales, Build>(Panel::minima(panel, b), index);
        }
        for (std::size_t r = 0; r < R; ++r) {
          const QuantizedBlock& info = a.block(r);
          std::array<std::int32_t, panel_columns> dots{};  // at most 32 * 128 * 127 in magnitude
          for (std::size_t k = part * Scales::step; k < (part + 1) * Scales::step; ++k) {
            const std::int32_t value = a.codes(r)[k];
            for (std::size_t c = 0; c < panel_columns; ++c) dots[c] += value * codes[k][c];
          }
          if constexpr (Panel::has_minimum) {
            for (std::size_t c = 0; c < panel_columns; ++c) {
              sums[r][c] = multiply_add<Build>(minima[c], info.scaled_sum, sums[r][c]);
            }
          }
          for (std::size_t c = 0; c < panel_columns; ++c) {
            sums[r][c] = multiply_add<Build>(static_cast<float>(dots[c]), scales[c] * info.scale, sums[r][c]);
          }
        }
      }
    }
    for (std::size_t r = 0; r < R; ++r) write_panel_row<Build>(sums[r], r, out);
  }
};

template <class Element, class Build>
struct PortableFloatKernel {
  static constexpr std::size_t max_rows = 4;
  static constexpr std::size_t max_panels = 1;

  static float value(float element) { return element; }
  template <class Half>
  static float value(Half element) {
    return to_float(element);
  }

  template <std::size_t R, std::size_t>
  static void run(const ConstRows& x, std::size_t first_row, const std::byte* panel, std::size_t, std::size_t blocks,
                  const TileOutput& out) {
    std::array<PanelRow, R> sums{};
    const float* rows = x.data() + first_row * x.stride();
    for (std::size_t k = 0; k < blocks; ++k) {
      PanelRow weights;
      for (std::size_t c = 0; c < panel_columns; ++c) {
        weights[c] = value(load_as<Element>(panel + (k * panel_columns + c) * sizeof(Element)));
      }
      for (std::size_t r = 0; r < R; ++r) {
        const float a = rows[r * x.stride() + k];
        for (std::size_t c = 0; c < panel_columns; ++c) sums[r][c] = multiply_add<Build>(a, weights[c], sums[r][c]);
      }
    }
    for (std::size_t r = 0; r < R; ++r) write_panel_row<Build>(sums[r], r, out);
  }
};

template <int Bits, int ZeroPoint, class Scales, bool HasMinimum>
struct TileKernel<Isa::portable, AffinePanel<Bits, ZeroPoint, Scales, HasMinimum>>
    : PortableAffineKernel<AffinePanel<Bits, ZeroPoint, Scales, HasMinimum>, PortableBuild> {};

template <class Element>
struct TileKernel<Isa::portable, FloatPanel<Element>> : PortableFloatKernel<Element, PortableBuild> {};

}  // namespace lazyllm::inline v0::detail
