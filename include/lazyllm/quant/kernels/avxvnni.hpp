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
template <int Bits, int ZeroPoint, bool HasMinimum>
struct TileKernel<Isa::avxvnni, AffinePanel<Bits, ZeroPoint, HasMinimum>> {
  using Panel = AffinePanel<Bits, ZeroPoint, HasMinimum>;
  static_assert(ZeroPoint == 0 || ZeroPoint == 8 || ZeroPoint == 128);
  static constexpr std::size_t max_rows = 6;
  static constexpr std::size_t max_panels = 1;

  [[gnu::always_inline]] static inline __m256i load_codes(const std::byte* codes, std::size_t group, std::size_t half) {
    if constexpr (Bits == 8) {
      return load_codes_avx2(codes + group * 64 + half * 32);
    } else {
      __m256i low = load_codes_avx2(codes + group % 4 * 64 + half * 32);
      if (group >= 4) low = _mm256_srli_epi16(low, 4);
      return _mm256_and_si256(low, _mm256_set1_epi8(15));
    }
  }

  template <std::size_t R, std::size_t>
  static void run(const QuantizedRows& x, std::size_t first_row, const std::byte* panel, std::size_t,
                  std::size_t blocks, const TileOutput& out) {
    RowPointers<std::int8_t, R> a(x.codes(first_row), x.stride());
    RowPointers<std::byte, R> info(reinterpret_cast<const std::byte*>(x.blocks(first_row)),
                                   x.block_stride() * sizeof(QuantizedBlock));
    alignas(32) float sums[R][2][8] = {};
    for (std::size_t b = 0; b < blocks; ++b, a.advance(32), info.advance(sizeof(QuantizedBlock))) {
      __m256i dots[R][2];
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        LAZYLLM_UNROLL
        for (std::size_t half = 0; half < 2; ++half) {
          __m256i start = _mm256_setzero_si256();
          if constexpr (ZeroPoint != 0) {
            start = _mm256_set1_epi32(reinterpret_cast<const QuantizedBlock*>(info[r])->minus_8_sums);
          }
          if constexpr (ZeroPoint == 128) start = _mm256_slli_epi32(start, 4);
          dots[r][half] = start;
          keep_in_register(dots[r][half]);
        }
      }
      LAZYLLM_UNROLL
      for (std::size_t i = 0; i < 8; ++i) {
        const std::size_t group = i / 2 + i % 2 * 4;  // groups whose codes share bytes follow each other
        const std::byte* codes = panel + b * Panel::code_bytes;
        const __m256i left = load_codes(codes, group, 0), right = load_codes(codes, group, 1);
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          const __m256i four = broadcast_codes_avx2(a[r] + group * 4);
          dots[r][0] = _mm256_dpbusd_avx_epi32(dots[r][0], left, four);
          dots[r][1] = _mm256_dpbusd_avx_epi32(dots[r][1], right, four);
          keep_in_register(dots[r][0]);  // in this order: g++ would hold more codes than registers
          keep_in_register(dots[r][1]);
        }
      }
      LAZYLLM_UNROLL
      for (std::size_t half = 0; half < 2; ++half) {
        const std::byte* lane = panel + b * Panel::scale_bytes + half * 16;
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          const QuantizedBlock& block = *reinterpret_cast<const QuantizedBlock*>(info[r]);
          const __m256 sum = scale_dots_avx2<Panel>(_mm256_load_ps(sums[r][half]), dots[r][half], lane, blocks, block);
          _mm256_store_ps(sums[r][half], sum);
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
