// Matmul tiles in plain C++, for CPUs without kernels of their own; loops over 16 columns, which compilers vectorise.
// Per block: sum += (float)(integer dot) * (weight scale * activation scale), after sum += minimum * scaled_sum.
#pragma once

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
  float* target = out.data + row * out.stride;
  for (std::size_t c = 0; c < out.columns; ++c) target[c] = out.add ? target[c] + sums[c] : sums[c];
}

/// Scales or minima of one block as floats.
template <class Build>
[[nodiscard]] inline PanelRow load_panel_halves(const std::byte* source) {
  PanelRow values;
  for (std::size_t c = 0; c < panel_columns; ++c) values[c] = to_float(load_as<Float16>(source + 2 * c));
  return values;
}

template <class Panel, class Build>
struct PortableAffineKernel {
  static constexpr std::size_t max_rows = 4;
  static constexpr std::size_t max_panels = 1;
  // Codes of one block without zero point: [32 weights][16 columns].
  using Codes = std::array<std::array<std::int16_t, panel_columns>, 32>;

  static void unpack(const std::byte* source, Codes& codes) {
    for (std::size_t group = 0; group < std::size_t{Panel::bits}; ++group) {
      for (std::size_t c = 0; c < panel_columns; ++c) {
        for (std::size_t j = 0; j < 4; ++j) {
          const int byte = std::to_integer<int>(source[(group * panel_columns + c) * 4 + j]);
          if constexpr (Panel::bits == 4) {
            codes[group * 4 + j][c] = static_cast<std::int16_t>((byte & 15) - Panel::zero_point);
            codes[group * 4 + j + 16][c] = static_cast<std::int16_t>((byte >> 4) - Panel::zero_point);
          } else {
            codes[group * 4 + j][c] = static_cast<std::int16_t>(byte - Panel::zero_point);
          }
        }
      }
    }
  }

  template <std::size_t R, std::size_t>
  static void run(const QuantizedRows& x, std::size_t first_row, const std::byte* panel, std::size_t,
                  std::size_t blocks, const TileOutput& out) {
    std::array<PanelRow, R> sums{};
    Codes codes;
    for (std::size_t b = 0; b < blocks; ++b) {
      unpack(panel + b * Panel::code_bytes, codes);
      const std::byte* lane = panel + b * Panel::scale_bytes;
      const PanelRow scales = load_panel_halves<Build>(lane + Panel::scale_offset(blocks));
      for (std::size_t r = 0; r < R; ++r) {
        const std::int8_t* a = x.codes(first_row + r) + b * 32;
        const QuantizedBlock& info = x.blocks(first_row + r)[b];
        std::array<std::int32_t, panel_columns> dots{};  // at most 32 * 128 * 127 in magnitude
        for (std::size_t k = 0; k < 32; ++k) {
          const std::int32_t value = a[k];
          for (std::size_t c = 0; c < panel_columns; ++c) dots[c] += value * codes[k][c];
        }
        if constexpr (Panel::has_minimum) {
          const PanelRow minima = load_panel_halves<Build>(lane + Panel::minimum_offset(blocks));
          for (std::size_t c = 0; c < panel_columns; ++c) {
            sums[r][c] = multiply_add<Build>(minima[c], info.scaled_sum, sums[r][c]);
          }
        }
        for (std::size_t c = 0; c < panel_columns; ++c) {
          sums[r][c] = multiply_add<Build>(static_cast<float>(dots[c]), scales[c] * info.scale, sums[r][c]);
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
  static float value(Float16 element) { return to_float(element); }

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

template <int Bits, int ZeroPoint, bool HasMinimum>
struct TileKernel<Isa::portable, AffinePanel<Bits, ZeroPoint, HasMinimum>>
    : PortableAffineKernel<AffinePanel<Bits, ZeroPoint, HasMinimum>, PortableBuild> {};

template <class Element>
struct TileKernel<Isa::portable, FloatPanel<Element>> : PortableFloatKernel<Element, PortableBuild> {};

}  // namespace lazyllm::inline v0::detail
