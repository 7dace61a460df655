// One row of floats to 8-bit codes, a kernel per ISA; all give the same bits.
// Per block: scale = m / 127, code = round_to_nearest_even(x * (127 / m)) with m the largest magnitude; |code| <= 127.
#pragma once

#include <lazyllm/simd/isa.hpp>
#include <lazyllm/simd/target_region.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lazyllm::inline v0 {

inline constexpr std::size_t quantized_block_size = 32;

/// What kernels need beside a block's 32 codes.
struct QuantizedBlock {
  float scale;                      ///< value = scale * code; 0 for a block of zeros
  float scaled_sum;                 ///< scale * (sum of the codes): multiplies a weight minimum
  std::int32_t minus_8_first_sums;  ///< -8 * (sum of the first 16 codes)
  std::int32_t minus_8_sums;  ///< -8 * (sum of the codes): start of an accumulator whose weights have zero point 8
};
static_assert(sizeof(QuantizedBlock) == 16);

}  // namespace lazyllm::inline v0

namespace lazyllm::inline v0::detail {

/// Blocks whose largest magnitude lies below this (2^-119) count as zeros: 127 / m stays finite.
inline constexpr float smallest_quantized_magnitude = 0x1p-119f;

/// Where a row goes: its codes and QuantizedBlocks, block_bytes apart from block to block.
struct QuantizedTarget {
  std::byte* codes;
  std::byte* blocks;
  std::size_t block_bytes;
  [[nodiscard]] std::int8_t* codes_at(std::size_t block) const {
    return reinterpret_cast<std::int8_t*>(codes + block * block_bytes);
  }
  void store(std::size_t block, const QuantizedBlock& value) const {
    std::memcpy(blocks + block * block_bytes, &value, sizeof value);
  }
};

/// From the sums of the first and of the last 16 codes.
inline QuantizedBlock quantized_block(float scale, std::int32_t first, std::int32_t last) {
  return {scale, scale * static_cast<float>(first + last), -8 * first, -8 * (first + last)};
}

/// The same from first + last * 2^16, which a kernel adds up in one go: |first|, |last| <= 16 * 127.
inline QuantizedBlock quantized_block(float scale, std::int32_t both) {
  const std::int32_t first = static_cast<std::int16_t>(both);
  return quantized_block(scale, first, (both - first) >> 16);
}

inline void quantize_row(IsaTag<Isa::portable>, const float* x, const QuantizedTarget& target,
                         std::size_t block_count) {
  for (std::size_t b = 0; b < block_count; ++b, x += quantized_block_size) {
    std::int8_t* const codes = target.codes_at(b);
    float largest = 0.0f;
    for (std::size_t i = 0; i < quantized_block_size; ++i) largest = std::max(largest, std::abs(x[i]));
    const bool zero = !(largest >= smallest_quantized_magnitude);
    const float inverse = zero ? 0.0f : 127.0f / largest;
    std::int32_t sums[2] = {};
    for (std::size_t i = 0; i < quantized_block_size; ++i) {
      codes[i] = static_cast<std::int8_t>(std::lrint(x[i] * inverse));
      sums[i / 16] += codes[i];
    }
    target.store(b, quantized_block(zero ? 0.0f : largest / 127.0f, sums[0], sums[1]));
  }
}

}  // namespace lazyllm::inline v0::detail

#if defined(__x86_64__)

LAZYLLM_TARGET_AVX2_BEGIN
namespace lazyllm::inline v0::detail {

inline void quantize_row(IsaTag<Isa::avx2>, const float* x, const QuantizedTarget& target, std::size_t block_count) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (std::size_t b = 0; b < block_count; ++b, x += quantized_block_size) {
    std::int8_t* const codes = target.codes_at(b);
    const __m256 x0 = _mm256_loadu_ps(x), x1 = _mm256_loadu_ps(x + 8);
    const __m256 x2 = _mm256_loadu_ps(x + 16), x3 = _mm256_loadu_ps(x + 24);
    const __m256 m = _mm256_max_ps(_mm256_max_ps(_mm256_and_ps(x0, magnitude), _mm256_and_ps(x1, magnitude)),
                                   _mm256_max_ps(_mm256_and_ps(x2, magnitude), _mm256_and_ps(x3, magnitude)));
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    m4 = _mm_max_ss(m4, _mm_movehdup_ps(m4));
    const float largest = _mm_cvtss_f32(m4);
    const bool zero = !(largest >= smallest_quantized_magnitude);
    const __m256 inverse = _mm256_set1_ps(zero ? 0.0f : 127.0f / largest);
    const __m256i c01 = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(x0, inverse)),
                                           _mm256_cvtps_epi32(_mm256_mul_ps(x1, inverse)));
    const __m256i c23 = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(x2, inverse)),
                                           _mm256_cvtps_epi32(_mm256_mul_ps(x3, inverse)));
    const __m256i c = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(c01, c23), order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), c);
    const __m256i one = _mm256_set1_epi16(1);
    const __m256i pairs =
        _mm256_add_epi32(_mm256_madd_epi16(c01, one), _mm256_slli_epi32(_mm256_madd_epi16(c23, one), 16));
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 1));
    target.store(b, quantized_block(zero ? 0.0f : largest / 127.0f, _mm_cvtsi128_si32(s)));
  }
}

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

LAZYLLM_TARGET_AVX512VNNI_BEGIN
namespace lazyllm::inline v0::detail {

inline void quantize_block(const float* x, const QuantizedTarget& target, std::size_t b) {
  const __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
  const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(x0), _mm512_abs_ps(x1)));
  const bool zero = !(largest >= smallest_quantized_magnitude);
  const __m512 inverse = _mm512_set1_ps(zero ? 0.0f : 127.0f / largest);
  const __m512i c0 = _mm512_cvtps_epi32(_mm512_mul_ps(x0, inverse));
  const __m512i c1 = _mm512_cvtps_epi32(_mm512_mul_ps(x1, inverse));
  auto* const codes = reinterpret_cast<__m128i*>(target.codes_at(b));
  _mm_storeu_si128(codes, _mm512_cvtsepi32_epi8(c0));
  _mm_storeu_si128(codes + 1, _mm512_cvtsepi32_epi8(c1));
  const std::int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(c0, _mm512_slli_epi32(c1, 16)));
  target.store(b, quantized_block(zero ? 0.0f : largest / 127.0f, sum));
}

/// Lane i of 128 bits of the result: the largest element of v[i], four times.
[[nodiscard, gnu::always_inline]] inline __m512 largest_of_each(const __m512 (&v)[4]) {
  const __m512 v01 = _mm512_max_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x44), _mm512_shuffle_f32x4(v[0], v[1], 0xee));
  const __m512 v23 = _mm512_max_ps(_mm512_shuffle_f32x4(v[2], v[3], 0x44), _mm512_shuffle_f32x4(v[2], v[3], 0xee));
  const __m512 lanes = _mm512_max_ps(_mm512_shuffle_f32x4(v01, v23, 0x88), _mm512_shuffle_f32x4(v01, v23, 0xdd));
  const __m512 pairs = _mm512_max_ps(lanes, _mm512_permute_ps(lanes, 0x4e));
  return _mm512_max_ps(pairs, _mm512_permute_ps(pairs, 0xb1));
}

/// Of four blocks, block i in lane i of 128 bits, four times.
struct FourBlockFactors {
  float inverses[16];  // 127 / largest magnitude
  float scales[16];    // largest magnitude / 127
};

/// One reduction for four blocks, which a single block would wait for.
inline void find_factors(const float* x, FourBlockFactors& factors) {
  __m512 magnitudes[4];
  LAZYLLM_UNROLL
  for (std::size_t i = 0; i < 4; ++i) {
    magnitudes[i] =
        _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + 32 * i)), _mm512_abs_ps(_mm512_loadu_ps(x + 32 * i + 16)));
  }
  const __m512 largest = largest_of_each(magnitudes);
  const __mmask16 nonzero = _mm512_cmp_ps_mask(largest, _mm512_set1_ps(smallest_quantized_magnitude), _CMP_GE_OQ);
  _mm512_storeu_ps(factors.inverses, _mm512_maskz_div_ps(nonzero, _mm512_set1_ps(127.0f), largest));
  _mm512_storeu_ps(factors.scales, _mm512_maskz_div_ps(nonzero, largest, _mm512_set1_ps(127.0f)));
}

/// Blocks b .. b + 3.
inline void quantize_four_blocks(const float* x, const FourBlockFactors& factors, const QuantizedTarget& target,
                                 std::size_t b) {
  __m512i words[4];  // block i: lanes of 4 codes of its first half, then 4 of its last
  LAZYLLM_UNROLL
  for (std::size_t i = 0; i < 4; ++i) {
    const __m512 inverse = _mm512_set1_ps(factors.inverses[4 * i]);
    words[i] = _mm512_packs_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 32 * i), inverse)),
                                  _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 32 * i + 16), inverse)));
  }
  const __m512 scale = _mm512_loadu_ps(factors.scales);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i sums[2];  // lanes of parts of: first half and last half of a block, then of the next
  LAZYLLM_UNROLL
  for (std::size_t i = 0; i < 2; ++i) {
    const __m512i bytes = _mm512_packs_epi16(words[2 * i], words[2 * i + 1]);
    const __m512i codes = _mm512_permutexvar_epi32(order, bytes);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target.codes_at(b + 2 * i)), _mm512_castsi512_si256(codes));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target.codes_at(b + 2 * i + 1)),
                        _mm512_extracti64x4_epi64(codes, 1));
    sums[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
  }
  __m512i halves =
      _mm512_add_epi32(_mm512_shuffle_i32x4(sums[0], sums[1], 0x44), _mm512_shuffle_i32x4(sums[0], sums[1], 0xee));
  halves = _mm512_add_epi32(halves, _mm512_shuffle_i32x4(halves, halves, 0xb1));  // lanes 0 and 2: all sums of a pair
  // Lane i becomes block i's QuantizedBlock: scale, scale * (first + last), -8 * first, -8 * (first + last).
  const __m512i first =
      _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 8, 8, 8, 8, 10, 10, 10, 10), halves);
  const __m512i last = _mm512_maskz_permutexvar_epi32(
      0xbbbb, _mm512_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 11, 11, 11, 11), halves);
  const __m512i sum = _mm512_add_epi32(first, last);
  const __m512 scaled_sum = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum));
  const __m512i minus_8_sums = _mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), sum), 3);
  const __m512 infos =
      _mm512_mask_blend_ps(0xcccc, _mm512_mask_blend_ps(0x2222, scale, scaled_sum), _mm512_castsi512_ps(minus_8_sums));
  alignas(64) QuantizedBlock four[4];
  _mm512_store_ps(four, infos);
  LAZYLLM_UNROLL
  for (std::size_t i = 0; i < 4; ++i) target.store(b + i, four[i]);
}

inline void quantize_row(IsaTag<Isa::avx512vnni>, const float* x, const QuantizedTarget& target,
                         std::size_t block_count) {
  // Factors of several fours first: the codes would wait for those of their own, and keep the CPU from looking ahead.
  constexpr std::size_t fours = 8;
  FourBlockFactors factors[fours];
  std::size_t b = 0;
  while (b + 4 <= block_count) {
    const std::size_t count = std::min(fours, (block_count - b) / 4);
    for (std::size_t i = 0; i < count; ++i) find_factors(x + (b + 4 * i) * quantized_block_size, factors[i]);
    for (std::size_t i = 0; i < count; ++i, b += 4) {
      quantize_four_blocks(x + b * quantized_block_size, factors[i], target, b);
    }
  }
  for (; b < block_count; ++b) quantize_block(x + b * quantized_block_size, target, b);
}

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#elif defined(__aarch64__)

namespace lazyllm::inline v0::detail {

inline void quantize_row(IsaTag<Isa::neon>, const float* x, const QuantizedTarget& target, std::size_t block_count) {
  constexpr std::size_t vectors = quantized_block_size / 4;
  for (std::size_t b = 0; b < block_count; ++b, x += quantized_block_size) {
    std::int8_t* const codes = target.codes_at(b);
    float32x4_t magnitudes = vabsq_f32(vld1q_f32(x));
    LAZYLLM_UNROLL
    for (std::size_t i = 1; i < vectors; ++i) magnitudes = vmaxq_f32(magnitudes, vabsq_f32(vld1q_f32(x + 4 * i)));
    const float largest = vmaxvq_f32(magnitudes);
    const bool zero = !(largest >= smallest_quantized_magnitude);
    const float inverse = zero ? 0.0f : 127.0f / largest;
    int16x8_t sums[2] = {vdupq_n_s16(0), vdupq_n_s16(0)};
    LAZYLLM_UNROLL
    for (std::size_t i = 0; i < vectors; i += 2) {
      const int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), inverse));
      const int32x4_t high = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i + 4), inverse));
      const int16x8_t eight = vcombine_s16(vmovn_s32(low), vmovn_s32(high));
      vst1_s8(codes + 4 * i, vmovn_s16(eight));
      sums[i / 4] = vaddq_s16(sums[i / 4], eight);
    }
    target.store(b, quantized_block(zero ? 0.0f : largest / 127.0f, vaddlvq_s16(sums[0]), vaddlvq_s16(sums[1])));
  }
}

}  // namespace lazyllm::inline v0::detail

#endif
