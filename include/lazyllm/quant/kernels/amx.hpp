// Matmul with the tile registers of AMX: codes become bfloat16 weights, 32 rows x 32 columns (two panels) a tile.
// sum over k of bfloat16(x[k]) * bfloat16(weight[k]): products exact in float, even and odd k of 32 summed apart, then
// added to the running sum, each operation rounded; denormal numbers count as zeros. The same order for every row
// count.
#pragma once

#include <lazyllm/core/float16.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/quant/kernels/avx512vnni.hpp>
#include <lazyllm/quant/kernels/tile.hpp>
#include <lazyllm/simd/amx_tiles.hpp>
#include <lazyllm/simd/bfloat16_rows.hpp>
#include <lazyllm/simd/target_region.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)

LAZYLLM_TARGET_AMX_BEGIN
namespace lazyllm::inline v0::detail {

/// Code j of each column's four as a float (see unpack_block_amx).
template <int J, bool Wide>
[[nodiscard, gnu::always_inline]] inline __m512 code_float_amx(__m512i codes) {
  if constexpr (Wide) {
    // Byte j to the mantissa's upper bits.
    if constexpr (J < 2) codes = _mm512_slli_epi32(codes, 15 - 8 * J);
    if constexpr (J >= 2) codes = _mm512_srli_epi32(codes, 8 * J - 15);
    const __m512i field = _mm512_set1_epi32(0x007f8000), one = _mm512_set1_epi32(0x3f800000);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(codes, field, one, 0xea));  // (codes & field) | one
  } else {
    // Byte 4 c + j to byte 4 c + 2; the others are those of 0.5f.
    const __m512i source = _mm512_set4_epi32((12 + J) << 16, (8 + J) << 16, (4 + J) << 16, J << 16);
    return _mm512_castsi512_ps(
        _mm512_mask_shuffle_epi8(_mm512_set1_epi32(0x3f000000), 0x4444444444444444, codes, source));
  }
}

/// Cut to bfloat16: `even` to the low words, `odd` to the high words.
[[nodiscard, gnu::always_inline]] inline __m512i cut_pairs_amx(__m512 even, __m512 odd) {
  const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(even), 16);
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000));
  return _mm512_ternarylogic_epi32(_mm512_castps_si512(odd), high, low, 0xea);  // (odd & high) | low
}

/// Weights grow by this factor before they are cut to 8 significant bits. What is cut off lies between 0 and 2^-7 of
/// the power of two below, so that errors are at most 1.31 * 2^-8 and cancel on average; rounding (2^-8 at most) would
/// take a third more instructions. Numbers with 8 significant bits stay as they are.
inline constexpr float cut_balance_amx = 1.0f + 0.69f * 0x1p-8f;

/// Four weights of each column, from their codes, as two rows of a tile.
template <bool Wide>
[[gnu::always_inline]] inline void store_weight_pairs_amx(__m512i codes, __m512 factor, __m512 start,
                                                          std::uint16_t* tile) {
  const __m512 w0 = _mm512_fmadd_ps(code_float_amx<0, Wide>(codes), factor, start);
  const __m512 w1 = _mm512_fmadd_ps(code_float_amx<1, Wide>(codes), factor, start);
  const __m512 w2 = _mm512_fmadd_ps(code_float_amx<2, Wide>(codes), factor, start);
  const __m512 w3 = _mm512_fmadd_ps(code_float_amx<3, Wide>(codes), factor, start);
  _mm512_storeu_si512(tile, cut_pairs_amx(w0, w1));
  _mm512_storeu_si512(tile + 32, cut_pairs_amx(w2, w3));
}

/// One block (32 weights) of a panel as a tile of weights: row i holds weights 2 i and 2 i + 1 of each column.
/// weight = scale * (code - zero point) + minimum as bfloat16.
template <class Panel>
inline void unpack_block_amx(const std::byte* panel, std::size_t block, std::uint16_t* tile) {
  // A code of up to 7 bits put behind the exponent of 0.5 is the float 0.5 + code / 256; 8 bits behind that of 1.0 are
  // 1 + code / 256.
  constexpr bool wide = Panel::bits == 8;
  using Scales = typename Panel::ScaleTable;
  const std::byte* codes = Panel::codes(panel, block);
  LAZYLLM_UNROLL
  for (std::size_t part = 0; part < Panel::parts; ++part) {
    const std::size_t index = Panel::scale_index(block, part);
    const __m512 scale = load_scales_avx512<Scales>(Panel::scales(panel, block), index);
    __m512 minimum = _mm512_setzero_ps();
    if constexpr (Panel::has_minimum) {
      minimum = load_scales_avx512<Scales>(Panel::minima(panel, block), index);
    }
    const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(256.0f * cut_balance_amx));
    const __m512 zero_code = _mm512_set1_ps(static_cast<float>((wide ? 256 : 128) + Panel::zero_point));
    const __m512 start = _mm512_mul_ps(_mm512_fnmadd_ps(scale, zero_code, minimum), _mm512_set1_ps(cut_balance_amx));
    LAZYLLM_UNROLL
    for (std::size_t i = 0; i < part_groups<Panel>; ++i) {
      const std::size_t group = group_at<Panel>(part, i);
      store_weight_pairs_amx<wide>(load_codes_avx512<Panel>(codes, group), factor, start, tile + group * 64);
    }
  }
}

/// Adds `blocks` products to the sums of one tile: 16 or 32 rows (Halves), one or two panels. `weights`: unpacked
/// blocks, those of the second panel `chunk_blocks` further.
template <std::size_t Halves, std::size_t P>
inline void multiply_blocks_amx(const std::uint16_t* x, std::size_t x_stride_bytes, const std::uint16_t* weights,
                                std::size_t panel_stride, std::size_t blocks) {
  for (std::size_t b = 0; b < blocks; ++b, x += 32, weights += 512) {
    AmxTiles::load<4>(x, x_stride_bytes);
    AmxTiles::load<6>(weights, 64);
    AmxTiles::multiply<0, 4, 6>();
    if constexpr (P == 2) {
      AmxTiles::load<7>(weights + panel_stride, 64);
      AmxTiles::multiply<1, 4, 7>();
    }
    if constexpr (Halves == 2) {
      AmxTiles::load<5>(x + 8 * x_stride_bytes, x_stride_bytes);  // 16 rows further: strides in bytes, elements of 2
      AmxTiles::multiply<2, 5, 6>();
      if constexpr (P == 2) AmxTiles::multiply<3, 5, 7>();
    }
  }
}

/// The sums of one tile, kept between stretches of blocks or handed on: [16 * Halves][stride floats].
template <std::size_t Halves, std::size_t P>
inline void store_sums_amx(float* sums, std::size_t stride) {
  AmxTiles::store<0>(sums, 4 * stride);
  if constexpr (P == 2) AmxTiles::store<1>(sums + 16, 4 * stride);
  if constexpr (Halves == 2) AmxTiles::store<2>(sums + 16 * stride, 4 * stride);
  if constexpr (Halves == 2 && P == 2) AmxTiles::store<3>(sums + 16 * stride + 16, 4 * stride);
}
template <std::size_t Halves, std::size_t P>
inline void load_sums_amx(const float* sums, std::size_t stride) {
  AmxTiles::load<0>(sums, 4 * stride);
  if constexpr (P == 2) AmxTiles::load<1>(sums + 16, 4 * stride);
  if constexpr (Halves == 2) AmxTiles::load<2>(sums + 16 * stride, 4 * stride);
  if constexpr (Halves == 2 && P == 2) AmxTiles::load<3>(sums + 16 * stride + 16, 4 * stride);
}
inline void zero_sums_amx() {
  AmxTiles::zero<0>();
  AmxTiles::zero<1>();
  AmxTiles::zero<2>();
  AmxTiles::zero<3>();
}

/// Weights are unpacked a stretch of K at a time, short enough to stay in L1, for all rows of a work item.
template <int Bits, int ZeroPoint, class Scales, bool HasMinimum>
struct TileKernel<Isa::amx, AffinePanel<Bits, ZeroPoint, Scales, HasMinimum>> {
  using Panel = AffinePanel<Bits, ZeroPoint, Scales, HasMinimum>;
  static constexpr std::size_t max_rows = 32;
  static constexpr std::size_t max_panels = 2;
  static constexpr std::size_t max_item_rows = 512;
  static constexpr std::size_t chunk_blocks = 8;

  /// What a thread needs while it runs: tile registers for products of `rows` rows.
  using Setup = AmxTiles;

  /// Rows first .. first + rows - 1, at most max_item_rows, times panels that lie panel_stride bytes apart.
  /// sink(row, panel, sums) takes finished sums of rows first + row .. and columns from `panel` on; or they go to
  /// sink.direct(row, panel, panels), where that is not empty.
  template <class Sink>
  static void run(const BFloat16Rows& x, std::size_t first, std::size_t rows, const std::byte* panels,
                  std::size_t panel_stride, std::size_t panel_count, std::size_t blocks, const Sink& sink) {
    if (rows <= 32) {
      for (std::size_t b = 0; b < std::min(prefetch_blocks, blocks); ++b) {
        for (std::size_t p = 0; p < std::min(max_panels, panel_count); ++p) {
          prefetch_block<Panel>(panels + p * panel_stride, b);
        }
      }
    }
    for (std::size_t p = 0; p < panel_count; p += max_panels) {
      const Part part{panels + p * panel_stride, panel_stride, blocks, p};
      if (panel_count - p >= 2) {
        run_panels<2>(x, first, rows, part, sink);
      } else {
        run_panels<1>(x, first, rows, part, sink);
      }
    }
  }

 private:
  static constexpr std::size_t prefetch_blocks = 8;

  struct Part {
    const std::byte* panels;
    std::size_t panel_stride, blocks, first_panel;
  };

  template <std::size_t P, class Sink>
  static void run_panels(const BFloat16Rows& x, std::size_t first, std::size_t rows, const Part& part,
                         const Sink& sink) {
    if (rows <= 16) {
      run_few<1, P>(x, first, rows, part, sink);
    } else if (rows <= 32) {
      run_few<2, P>(x, first, rows, part, sink);
    } else {
      run_many<P>(x, first, rows, part, sink);
    }
  }

  /// Weights are unpacked a stretch of K at a time, which stays in L1 while all rows pass.
  template <std::size_t P, class Sink>
  static void run_many(const BFloat16Rows& x, std::size_t first, std::size_t rows, const Part& part, const Sink& sink) {
    const auto& [panels, panel_stride, blocks, first_panel] = part;
    alignas(64) std::uint16_t weights[max_panels * chunk_blocks * 512];
    alignas(64) float sums[max_item_rows * 32];
    const std::size_t chunks = (blocks + chunk_blocks - 1) / chunk_blocks;
    for (std::size_t chunk = 0; chunk < chunks; ++chunk) {
      const std::size_t begin = chunk * blocks / chunks, end = (chunk + 1) * blocks / chunks;
      for (std::size_t p = 0; p < P; ++p) {
        for (std::size_t b = begin; b < end; ++b) {
          unpack_block_amx<Panel>(panels + p * panel_stride, b, weights + (p * chunk_blocks + b - begin) * 512);
        }
      }
      const Stretch stretch{weights, begin, end - begin, chunk == 0, chunk + 1 == chunks};
      std::size_t row = 0;
      for (; row + 16 < rows; row += 32)
        run_tile<2, P>(x, first, row, rows, first_panel, stretch, sums + row * 32, sink);
      if (row < rows) run_tile<1, P>(x, first, row, rows, first_panel, stretch, sums + row * 32, sink);
    }
  }

  struct Stretch {
    const std::uint16_t* weights;
    std::size_t begin, blocks;  // along K
    bool is_first, is_last;
  };

  /// One tile over one stretch.
  template <std::size_t Halves, std::size_t P, class Sink>
  static void run_tile(const BFloat16Rows& x, std::size_t first, std::size_t row, std::size_t rows,
                       std::size_t first_panel, const Stretch& stretch, float* sums, const Sink& sink) {
    if (stretch.is_first) {
      zero_sums_amx();
    } else {
      load_sums_amx<Halves, P>(sums, 32);
    }
    multiply_blocks_amx<Halves, P>(x.row(first + row) + stretch.begin * 32, x.stride() * 2, stretch.weights,
                                   chunk_blocks * 512, stretch.blocks);
    if (stretch.is_last) {
      finish<Halves, P>(row, std::min(16 * Halves, rows - row), first_panel, sums, sink);
    } else {
      store_sums_amx<Halves, P>(sums, 32);
    }
  }

  /// One tile over all of K. Weights are unpacked `lag` blocks before they are used: a tile load must not wait for
  /// stores that are still on their way.
  template <std::size_t Halves, std::size_t P, class Sink>
  static void run_few(const BFloat16Rows& x, std::size_t first, std::size_t rows, const Part& part, const Sink& sink) {
    constexpr std::size_t lag = 4, ring = 8;
    const auto& [panels, panel_stride, blocks, first_panel] = part;
    alignas(64) std::uint16_t weights[ring * P * 512];
    alignas(64) float sums[16 * Halves * 32];
    zero_sums_amx();
    const std::uint16_t* row = x.row(first);
    for (std::size_t b = 0; b < blocks + lag; ++b) {
      if (b < blocks) {
        for (std::size_t p = 0; p < P; ++p) {
          const std::byte* panel = panels + p * panel_stride;
          if (b + prefetch_blocks < blocks) {
            prefetch_block<Panel>(panel, b + prefetch_blocks);
          } else {  // the next panels
            prefetch_block<Panel>(panel + P * panel_stride, b + prefetch_blocks - blocks);
          }
          unpack_block_amx<Panel>(panel, b, weights + (b % ring * P + p) * 512);
        }
      }
      if (b >= lag) {
        multiply_blocks_amx<Halves, P>(row + (b - lag) * 32, x.stride() * 2, weights + (b - lag) % ring * P * 512, 512,
                                       1);
      }
    }
    finish<Halves, P>(0, rows, first_panel, sums, sink);
  }

  template <std::size_t Halves, std::size_t P, class Sink>
  static void finish(std::size_t row, std::size_t rows, std::size_t panel, float* sums, const Sink& sink) {
    const Rows target = rows == 16 * Halves ? sink.direct(row, panel, P) : Rows();
    if (!target.empty()) {
      store_sums_amx<Halves, P>(target.data(), target.stride());
    } else {
      store_sums_amx<Halves, P>(sums, 32);
      sink(row, panel, ConstRows(sums, rows, P * panel_columns, 32));
    }
  }
};

/// Float weights have no tiles.
template <class Element>
struct TileKernel<Isa::amx, FloatPanel<Element>> : TileKernel<Isa::avx512vnni, FloatPanel<Element>> {};

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
