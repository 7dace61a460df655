// Matmul tiles for AVX2 with VNNI: 6 rows x 16 columns (two halves of 8), the accumulators in registers.
// Per block: dots = zero-point correction + sum of code * activation (u8 x s8 in groups of 4), an exact int32 of at
// most 2^21; then the float operations of the other kernels. Float weights go through AVX2's kernels.
#pragma once

#include <lazyllm/quant/kernels/avx2.hpp>
#include <lazyllm/quant/kernels/tile.hpp>
#include <lazyllm/simd/quantized_rows.hpp>
#include <lazyllm/simd/target_region.hpp>

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)

LAZYLLM_TARGET_AVXVNNI_BEGIN
namespace lazyllm::inline v0::detail {

/// The accumulators, the two halves of the codes, one broadcast and the mask are all 16 registers. The float sums live
/// in memory, in L1; they are needed once a block.
template <int Bits, int ZeroPoint, class Scales, bool HasMinimum>
struct TileKernel<Isa::avxvnni, AffinePanel<Bits, ZeroPoint, Scales, HasMinimum>> {
  using Panel = AffinePanel<Bits, ZeroPoint, Scales, HasMinimum>;
  static constexpr std::size_t max_rows = 6;
  static constexpr std::size_t max_panels = 1;

  template <std::size_t R, std::size_t>
  static void run(const QuantizedRows& x, std::size_t first_row, const std::byte* panel, std::size_t,
                  std::size_t blocks, const TileOutput& out) {
    QuantizedTile a = x.tile(first_row);
    alignas(32) float sums[R][2][8] = {};
    for (std::size_t b = 0; b < blocks; ++b, a.next_block()) {
      const std::byte* codes = Panel::codes(panel, b);
      prefetch_ahead<Panel>(panel, b);
      LAZYLLM_UNROLL
      for (std::size_t part = 0; part < Panel::parts; ++part) {
        __m256i dots[R][2];
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          LAZYLLM_UNROLL
          for (std::size_t half = 0; half < 2; ++half) {
            dots[r][half] = start_of_dots_avx2<Panel>(a.block(r), part);
            keep_in_register(dots[r][half]);
          }
        }
        LAZYLLM_UNROLL
        for (std::size_t i = 0; i < part_groups<Panel>; ++i) {
          const std::size_t group = group_at<Panel>(part, i);
          const __m256i left = load_codes_avx2<Panel>(codes, group, 0), right = load_codes_avx2<Panel>(codes, group, 1);
          LAZYLLM_UNROLL
          for (std::size_t r = 0; r < R; ++r) {
            const __m256i four = broadcast_codes_avx2(a.codes(r) + group * 4);
            dots[r][0] = _mm256_dpbusd_avx_epi32(dots[r][0], left, four);
            dots[r][1] = _mm256_dpbusd_avx_epi32(dots[r][1], right, four);
            keep_in_register(dots[r][0]);  // in this order: g++ would hold more codes than registers
            keep_in_register(dots[r][1]);
          }
        }
        LAZYLLM_UNROLL
        for (std::size_t half = 0; half < 2; ++half) {
          LAZYLLM_UNROLL
          for (std::size_t r = 0; r < R; ++r) {
            const QuantizedBlock& block = a.block(r);
            const __m256 sum =
                scale_dots_avx2<Panel>(_mm256_load_ps(sums[r][half]), dots[r][half], panel, b, part, half, block);
            _mm256_store_ps(sums[r][half], sum);
          }
        }
      }
    }
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) write_row_avx2(_mm256_load_ps(sums[r][0]), _mm256_load_ps(sums[r][1]), r, out);
  }
};

template <class Element>
struct TileKernel<Isa::avxvnni, FloatPanel<Element>> : TileKernel<Isa::avx2, FloatPanel<Element>> {};

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
