// AmxTiles in plain C++: eight tiles of 16 rows of 64 bytes, and TDPBF16PS in the order of operations that Intel's
// manual gives.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lazyllm::inline v0::detail {

class AmxTilesShim {
 public:
  explicit AmxTilesShim(std::size_t rows) {
    std::memset(tiles_, 0, sizeof tiles_);
    for (int i = 0; i < 8; ++i) rows_[i] = i < 6 ? std::min<std::size_t>(rows, 16) : 16;
  }
  AmxTilesShim(const AmxTilesShim&) = delete;
  AmxTilesShim& operator=(const AmxTilesShim&) = delete;
  ~AmxTilesShim() { std::fill_n(rows_, 8, std::size_t{0}); }

  template <int Tile>
  static void zero() {
    std::memset(tiles_[Tile], 0, sizeof tiles_[Tile]);
  }
  /// Rows beyond those that are configured become zeros.
  template <int Tile>
  static void load(const void* source, std::size_t stride_bytes) {
    zero<Tile>();
    const auto* bytes = static_cast<const std::byte*>(source);
    for (std::size_t r = 0; r < rows_[Tile]; ++r) std::memcpy(tiles_[Tile][r], bytes + r * stride_bytes, 64);
  }
  template <int Tile>
  static void store(void* target, std::size_t stride_bytes) {
    auto* bytes = static_cast<std::byte*>(target);
    for (std::size_t r = 0; r < rows_[Tile]; ++r) std::memcpy(bytes + r * stride_bytes, tiles_[Tile][r], 64);
  }
  /// For each row m and column n: the sum over k of A[m][2 k] * B[k][2 n], that of A[m][2 k + 1] * B[k][2 n + 1], both
  /// in the order of k, then C[m][n] + (first + second). Denormal inputs and results count as zeros.
  template <int C, int A, int B>
  static void multiply() {
    for (std::size_t m = 0; m < rows_[A]; ++m) {
      for (std::size_t n = 0; n < 16; ++n) {
        float first = 0.0f, second = 0.0f;
        for (std::size_t k = 0; k < rows_[B]; ++k) {
          const std::uint32_t a = tiles_[A][m][k], b = tiles_[B][k][n];
          first = flushed(std::fma(low(a), low(b), first));
          second = flushed(std::fma(high(a), high(b), second));
        }
        const float sum = flushed(std::bit_cast<float>(tiles_[C][m][n])) + flushed(first + second);
        tiles_[C][m][n] = std::bit_cast<std::uint32_t>(flushed(sum));
      }
    }
  }

 private:
  static float flushed(float value) { return std::fpclassify(value) == FP_SUBNORMAL ? 0.0f : value; }
  static float low(std::uint32_t pair) { return flushed(std::bit_cast<float>(pair << 16)); }
  static float high(std::uint32_t pair) { return flushed(std::bit_cast<float>(pair & 0xffff0000u)); }

  static inline thread_local std::uint32_t tiles_[8][16][16];
  static inline thread_local std::size_t rows_[8];
};

}  // namespace lazyllm::inline v0::detail
