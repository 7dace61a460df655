// Float vectors of one ISA each, with the same few operations: PortableFloats (xsimd), Avx2Floats, Avx512Floats.
// A kernel is written once against them and compiled once an ISA; their empty objects serve as tags in its overloads.
// Portable width follows the build's flags, so its type names the xsimd architecture (no two builds share a symbol).
#pragma once

#include <lazyllm/core/bfloat16.hpp>
#include <lazyllm/core/float16.hpp>
#include <lazyllm/simd/isa.hpp>
#include <lazyllm/simd/target_region.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <xsimd/xsimd.hpp>

namespace lazyllm::inline v0::detail {

struct Bfloat16Floats;
struct AmxFloats;
struct VnniFloats;
struct CodeKeyFloats;
struct PairCodeFloats;

/// What every ISA's type offers. `width` floats a vector; load widens halves, bfloat16 numbers and bytes;
/// `tile_vectors` x 6 vectors fit the registers as accumulators. fma(a, b, c) = a * b + c, fnma = c - a * b (one
/// rounding where the ISA has it); round: to the nearest integer, ties to even; scale_by_power_of_two(p, n): p * 2^n
/// for integral n in [-126, 128] and p near 1; zero_below(x, limit, v): v, or 0 where x < limit; infinite_above
/// likewise; swap_lanes<Distance>: lane i gets lane i ^ Distance, a power of two below width; transpose(rows, first,
/// out, stride): out[i * stride + j] = rows[j][first + i] for i, j < width.
template <class Arch>
struct PortableFloats {
  using Vec = xsimd::batch<float, Arch>;
  static constexpr std::size_t width = Vec::size;
  static constexpr std::size_t tile_vectors = 2;

  static Vec load(const float* p) { return Vec::load_unaligned(p); }
  static Vec load(const BFloat16* p) {
    return widened(p, [](BFloat16 x) { return to_float(x); });
  }
  static Vec load(const Float16* p) {
    return widened(p, [](Float16 x) { return to_float(x); });
  }
  static Vec load(const std::int8_t* p) {
    return widened(p, [](std::int8_t x) { return static_cast<float>(x); });
  }
  static void store(float* p, Vec v) { v.store_unaligned(p); }
  static Vec load_first(const float* p, std::size_t n) {
    std::array<float, width> lanes{};
    std::memcpy(lanes.data(), p, n * sizeof(float));
    return load(lanes.data());
  }
  static void store_first(float* p, Vec v, std::size_t n) { std::memcpy(p, to_array(v).data(), n * sizeof(float)); }
  static Vec set1(float x) { return Vec(x); }
  static Vec add(Vec a, Vec b) { return a + b; }
  static Vec sub(Vec a, Vec b) { return a - b; }
  static Vec mul(Vec a, Vec b) { return a * b; }
  static Vec div(Vec a, Vec b) {
#if defined(__aarch64__)
    if constexpr (std::is_base_of_v<xsimd::neon, Arch>) return vdivq_f32(a, b);  // xsimd 8.1 approximates it
#endif
    return a / b;
  }
  static Vec max(Vec a, Vec b) { return xsimd::max(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return xsimd::fma(a, b, c); }
  static Vec fnma(Vec a, Vec b, Vec c) { return xsimd::fnma(a, b, c); }
  static Vec round(Vec v) { return xsimd::nearbyint(v); }
  static Vec scale_by_power_of_two(Vec p, Vec n) {
    const Vec half = xsimd::nearbyint(n * Vec(0.5f));  // 2^128 is no float: two steps
    return xsimd::ldexp(xsimd::ldexp(p, xsimd::to_int(half)), xsimd::to_int(n - half));
  }
  static Vec zero_below(Vec x, float limit, Vec v) { return xsimd::select(x < Vec(limit), Vec(0.0f), v); }
  static Vec infinite_above(Vec x, float limit, Vec v) {
    return xsimd::select(x > Vec(limit), Vec(std::numeric_limits<float>::infinity()), v);
  }
  template <std::size_t Distance>
  static Vec swap_lanes(Vec v) {
    const std::array<float, width> from = to_array(v);
    std::array<float, width> lanes;
    for (std::size_t i = 0; i < width; ++i) lanes[i] = from[i ^ Distance];
    return load(lanes.data());
  }
  static float reduce_add(Vec v) {
    float sum = 0.0f;
    for (const float lane : to_array(v)) sum += lane;
    return sum;
  }
  static float reduce_max(Vec v) {
    const std::array<float, width> lanes = to_array(v);
    return *std::max_element(lanes.begin(), lanes.end());
  }
  static void transpose(const float* const* rows, std::size_t first, float* out, std::size_t stride) {
    for (std::size_t i = 0; i < width; ++i) {
      for (std::size_t j = 0; j < width; ++j) out[i * stride + j] = rows[j][first + i];
    }
  }

 private:
  template <class Element, class ToFloat>
  static Vec widened(const Element* p, ToFloat convert) {
    std::array<float, width> lanes;
    for (std::size_t i = 0; i < width; ++i) lanes[i] = convert(p[i]);
    return load(lanes.data());
  }
  static std::array<float, width> to_array(Vec v) {
    std::array<float, width> lanes;
    v.store_unaligned(lanes.data());
    return lanes;
  }
};

#if defined(__x86_64__)

LAZYLLM_TARGET_AVX2_BEGIN
struct Avx2Floats {
  using Vec = __m256;
  static constexpr std::size_t width = 8;
  static constexpr std::size_t tile_vectors = 2;

  static __m256i first_lanes(std::size_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
  }
  static Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static Vec load(const BFloat16* p) {
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
  }
  static Vec load(const Float16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static Vec load(const std::int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
  static Vec load_first(const float* p, std::size_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
  static void store_first(float* p, Vec v, std::size_t n) { _mm256_maskstore_ps(p, first_lanes(n), v); }
  static Vec set1(float x) { return _mm256_set1_ps(x); }
  static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
  static Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
  static Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static Vec fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }
  static Vec round(Vec v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Vec scale_by_power_of_two(Vec p, Vec n) {
    // Adding to the exponent field: p in [0.7, 1.5] keeps it within 1 .. 254 wherever the result is a normal number.
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
  }
  static Vec zero_below(Vec x, float limit, Vec v) {
    return _mm256_and_ps(_mm256_cmp_ps(x, _mm256_set1_ps(limit), _CMP_NLT_UQ), v);
  }
  static Vec infinite_above(Vec x, float limit, Vec v) {
    const Vec infinity = _mm256_set1_ps(std::numeric_limits<float>::infinity());
    return _mm256_blendv_ps(v, infinity, _mm256_cmp_ps(x, _mm256_set1_ps(limit), _CMP_GT_OQ));
  }
  template <std::size_t Distance>
  static Vec swap_lanes(Vec v) {
    if constexpr (Distance == 4) return _mm256_permute2f128_ps(v, v, 0x01);
    return _mm256_permute_ps(v, Distance == 1 ? 0xb1 : 0x4e);
  }
  static float reduce_add(Vec v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static float reduce_max(Vec v) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  static void transpose(const float* const* rows, std::size_t first, float* out, std::size_t stride) {
    Vec a[8], b[8];
    LAZYLLM_UNROLL
    for (std::size_t j = 0; j < 4; ++j) {  // lanes 0..3 of rows j and j + 4, then lanes 4..7
      a[j] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows[j] + first)),
                                  _mm_loadu_ps(rows[j + 4] + first), 1);
      a[j + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows[j] + first + 4)),
                                      _mm_loadu_ps(rows[j + 4] + first + 4), 1);
    }
    LAZYLLM_UNROLL
    for (std::size_t h = 0; h < 8; h += 4) {  // a 4 x 4 transpose in both halves of the registers
      b[h] = _mm256_unpacklo_ps(a[h], a[h + 1]);
      b[h + 1] = _mm256_unpackhi_ps(a[h], a[h + 1]);
      b[h + 2] = _mm256_unpacklo_ps(a[h + 2], a[h + 3]);
      b[h + 3] = _mm256_unpackhi_ps(a[h + 2], a[h + 3]);
      store(out + h * stride, _mm256_shuffle_ps(b[h], b[h + 2], 0x44));
      store(out + (h + 1) * stride, _mm256_shuffle_ps(b[h], b[h + 2], 0xee));
      store(out + (h + 2) * stride, _mm256_shuffle_ps(b[h + 1], b[h + 3], 0x44));
      store(out + (h + 3) * stride, _mm256_shuffle_ps(b[h + 1], b[h + 3], 0xee));
    }
  }
};
LAZYLLM_TARGET_END

LAZYLLM_TARGET_AVX512VNNI_BEGIN
struct Avx512Floats {
  using Vec = __m512;
  static constexpr std::size_t width = 16;
  static constexpr std::size_t tile_vectors = 4;

  static __mmask16 first_lanes(std::size_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
  static Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static Vec load(const BFloat16* p) {
    const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
  }
  static Vec load(const Float16* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static Vec load(const std::int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static Vec load_first(const float* p, std::size_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
  static void store_first(float* p, Vec v, std::size_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
  static Vec set1(float x) { return _mm512_set1_ps(x); }
  static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
  static Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
  static Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static Vec fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }
  static Vec round(Vec v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Vec scale_by_power_of_two(Vec p, Vec n) { return _mm512_scalef_ps(p, n); }
  static Vec zero_below(Vec x, float limit, Vec v) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_NLT_UQ), v);
  }
  static Vec infinite_above(Vec x, float limit, Vec v) {
    const Vec infinity = _mm512_set1_ps(std::numeric_limits<float>::infinity());
    return _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_GT_OQ), infinity);
  }
  template <std::size_t Distance>
  static Vec swap_lanes(Vec v) {
    if constexpr (Distance >= 4) return _mm512_shuffle_f32x4(v, v, Distance == 4 ? 0xb1 : 0x4e);
    return _mm512_permute_ps(v, Distance == 1 ? 0xb1 : 0x4e);
  }
  static float reduce_add(Vec v) { return _mm512_reduce_add_ps(v); }
  static float reduce_max(Vec v) { return _mm512_reduce_max_ps(v); }
  static void transpose(const float* const* rows, std::size_t first, float* out, std::size_t stride) {
    Vec columns[16];
    transpose(rows, first, columns);
    LAZYLLM_UNROLL
    for (std::size_t i = 0; i < 16; ++i) store(out + i * stride, columns[i]);
  }
  /// The same into registers.
  [[gnu::always_inline]] static void transpose(const float* const* rows, std::size_t first, Vec (&columns)[16]) {
    Vec a[16], b[16];
    LAZYLLM_UNROLL
    for (std::size_t c = 0; c < 4; ++c) {  // quarter c of rows j, j + 4, j + 8, j + 12 in one register
      LAZYLLM_UNROLL
      for (std::size_t j = 0; j < 4; ++j) {
        Vec v = _mm512_castps128_ps512(_mm_loadu_ps(rows[j] + first + 4 * c));
        v = _mm512_insertf32x4(v, _mm_loadu_ps(rows[j + 4] + first + 4 * c), 1);
        v = _mm512_insertf32x4(v, _mm_loadu_ps(rows[j + 8] + first + 4 * c), 2);
        a[4 * c + j] = _mm512_insertf32x4(v, _mm_loadu_ps(rows[j + 12] + first + 4 * c), 3);
      }
    }
    LAZYLLM_UNROLL
    for (std::size_t c = 0; c < 16; c += 4) {  // a 4 x 4 transpose in all quarters of the registers
      b[c] = _mm512_unpacklo_ps(a[c], a[c + 1]);
      b[c + 1] = _mm512_unpackhi_ps(a[c], a[c + 1]);
      b[c + 2] = _mm512_unpacklo_ps(a[c + 2], a[c + 3]);
      b[c + 3] = _mm512_unpackhi_ps(a[c + 2], a[c + 3]);
      columns[c] = _mm512_shuffle_ps(b[c], b[c + 2], 0x44);
      columns[c + 1] = _mm512_shuffle_ps(b[c], b[c + 2], 0xee);
      columns[c + 2] = _mm512_shuffle_ps(b[c + 1], b[c + 3], 0x44);
      columns[c + 3] = _mm512_shuffle_ps(b[c + 1], b[c + 3], 0xee);
    }
  }
};
LAZYLLM_TARGET_END

/// Those of AVX-512, and dots of 8-bit codes.
struct VnniFloats : Avx512Floats {};

/// The same, for scores alone.
struct CodeKeyFloats : VnniFloats {};

/// Those of AVX-512, and dots of bfloat16 pairs.
struct Bfloat16Floats : Avx512Floats {};

/// The same, and dots of 8-bit codes.
struct PairCodeFloats : Bfloat16Floats {};

/// Those of AVX-512, and products of bfloat16 pairs on tile registers.
struct AmxFloats : Bfloat16Floats {};

#endif

template <Isa I>
struct FloatsOf {
  using type = PortableFloats<xsimd::default_arch>;
};
#if defined(__x86_64__)
template <>
struct FloatsOf<Isa::avx2> {
  using type = Avx2Floats;
};
template <>
struct FloatsOf<Isa::avx512vnni> {
  using type = Avx512Floats;
};
#endif

/// The float vectors of an ISA.
template <Isa I>
using Floats = typename FloatsOf<I>::type;

}  // namespace lazyllm::inline v0::detail
