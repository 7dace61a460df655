// The tile registers of AMX, and the bfloat16 product on them.
// A tile is up to 16 rows of 64 bytes: 16 floats, or 16 pairs of bfloat16 numbers that a product multiplies together.
#pragma once

#include <lazyllm/simd/target_region.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)

LAZYLLM_TARGET_AMX_BEGIN
namespace lazyllm::inline v0::detail {

/// The eight tile registers of this thread, for as long as this lives: 16 rows of 64 bytes each. Tiles 0 to 5 (sums and
/// left factors) have `rows` rows, at most 16; the right factors 6 and 7 always 16.
class AmxTiles {
 public:
  explicit AmxTiles(std::size_t rows) {
    rows = std::min<std::size_t>(rows, 16);
    alignas(64) struct {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {};
      std::uint8_t rows[16] = {};
    } config;
    static_assert(sizeof config == 64);
    for (std::size_t i = 0; i < 8; ++i) {
      config.row_bytes[i] = 64;
      config.rows[i] = static_cast<std::uint8_t>(i < 6 ? rows : 16);
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
  }
  ~AmxTiles() { __asm__ volatile("tilerelease"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  // Registers are part of the instruction: inline assembly, with the number as a constant. No compiler uses them
  // itself.
  template <int Tile>
  static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" ::"i"(Tile));
  }
  template <int Tile>
  static void load(const void* source, std::size_t stride_bytes) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(source), "r"(stride_bytes), "i"(Tile) : "memory");
  }
  template <int Tile>
  static void store(void* target, std::size_t stride_bytes) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(target), "r"(stride_bytes), "i"(Tile) : "memory");
  }
  /// Tile C [rows, 16 floats] += tile A [rows, 16 pairs] * tile B [16 pairs, 16 columns], pairs of bfloat16: products
  /// exact in float, the first elements of all pairs summed apart from the second, then both added to C, each operation
  /// rounded to nearest even; denormal numbers count as zeros.
  template <int C, int A, int B>
  static void multiply() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
};

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
