// Tiled attention with the tile registers of AMX, for keys and values in bfloat16: 16 query rows against 64 keys.
// Scores and the weighted sum of values are bfloat16 products summed in float (amx_tiles.hpp): queries and softmax
// weights are rounded to bfloat16; maximum, exponential and sum of weights are those of the float kernels.
#pragma once

#include <lazyllm/nn/kernels/attention.hpp>
#include <lazyllm/simd/amx_tiles.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>

#if defined(__x86_64__)

namespace lazyllm::inline v0::detail {

template <>
struct AttentionSetup<AmxFloats> : AmxTiles {
  using AmxTiles::AmxTiles;
};

}  // namespace lazyllm::inline v0::detail

LAZYLLM_TARGET_AMX_BEGIN
namespace lazyllm::inline v0::detail {

/// n numbers, times the scale, as pairs [n / 2]; n is a multiple of 32.
inline void load_pair_queries(AmxFloats, const float* from, std::size_t n, float scale, float* pairs) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (std::size_t i = 0; i < n; i += 32) {
    const __m512 low = _mm512_mul_ps(_mm512_loadu_ps(from + i), factor);
    const __m512 high = _mm512_mul_ps(_mm512_loadu_ps(from + i + 16), factor);
    const __m512bh words = _mm512_cvtne2ps_pbh(high, low);
    std::memcpy(pairs + i / 2, &words, sizeof words);
  }
}

/// key_pairs [head_dim / 2, key_tile]: dimensions 2 i and 2 i + 1 of each key. value_pairs [key_tile / 2, padded_dim]:
/// each dimension of keys 2 j and 2 j + 1. Rows are bfloat16 [head_dim], head_dim a multiple of 32.
inline void load_pairs(AmxFloats, const float* const* keys, const float* const* values, std::size_t head_dim,
                       std::size_t padded_dim, float* key_pairs, float* value_pairs) {
  transpose_keys(Avx512Floats{}, keys, head_dim / 2, key_pairs);
  for (std::size_t j = 0; j < key_tile / 2; ++j) {
    const auto* even = reinterpret_cast<const __m256i_u*>(values[2 * j]);
    const auto* odd = reinterpret_cast<const __m256i_u*>(values[2 * j + 1]);
    for (std::size_t i = 0; i < head_dim / 16; ++i) {
      const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(even + i));
      const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(odd + i)), 16);
      _mm512_storeu_si512(value_pairs + j * padded_dim + i * 16, _mm512_or_si512(low, high));
    }
  }
}

/// scores [16, key_tile] = queries [16, head_dim / 2 pairs] * key_pairs.
inline void score_panel_amx(const float* queries, std::size_t head_dim, const float* key_pairs, float* scores) {
  constexpr std::size_t row_bytes = key_tile * sizeof(float);
  static_assert(key_tile == 64);
  AmxTiles::zero<0>();
  AmxTiles::zero<1>();
  AmxTiles::zero<2>();
  AmxTiles::zero<3>();
  for (std::size_t i = 0; i < head_dim / 2; i += 16) {
    const float* keys = key_pairs + i * key_tile;
    AmxTiles::load<4>(queries + i, head_dim / 2 * sizeof(float));
    AmxTiles::load<6>(keys, row_bytes);
    AmxTiles::multiply<0, 4, 6>();
    AmxTiles::load<7>(keys + 16, row_bytes);
    AmxTiles::multiply<1, 4, 7>();
    AmxTiles::load<6>(keys + 32, row_bytes);
    AmxTiles::multiply<2, 4, 6>();
    AmxTiles::load<7>(keys + 48, row_bytes);
    AmxTiles::multiply<3, 4, 7>();
  }
  AmxTiles::store<0>(scores, row_bytes);
  AmxTiles::store<1>(scores + 16, row_bytes);
  AmxTiles::store<2>(scores + 32, row_bytes);
  AmxTiles::store<3>(scores + 48, row_bytes);
}

/// out [16, 32] += weights [16, key_tile / 2 pairs] * value_pairs [key_tile / 2, 32].
inline void value_columns_amx(const float* weights, const float* value_pairs, float* out, std::size_t padded_dim) {
  const std::size_t row_bytes = padded_dim * sizeof(float);
  AmxTiles::load<0>(out, row_bytes);
  AmxTiles::load<1>(out + 16, row_bytes);
  for (std::size_t j = 0; j < key_tile / 2; j += 16) {
    AmxTiles::load<4>(weights + j, key_tile / 2 * sizeof(float));
    AmxTiles::load<6>(value_pairs + j * padded_dim, row_bytes);
    AmxTiles::multiply<0, 4, 6>();
    AmxTiles::load<7>(value_pairs + j * padded_dim + 16, row_bytes);
    AmxTiles::multiply<1, 4, 7>();
  }
  AmxTiles::store<0>(out, row_bytes);
  AmxTiles::store<1>(out + 16, row_bytes);
}

/// All rows against one tile; counts ascend. Weights of keys that a row does not see are zeros: such keys add nothing,
/// as long as their values are finite. With more than 16 rows the last panel may end in rows that nobody reads.
inline void attend_tile(AmxFloats, const AttentionTile& tile) {
  alignas(64) float scores[16 * key_tile];
  alignas(64) float weights[16 * key_tile / 2];
  const AttentionState& state = tile.state;
  for (std::size_t row = 0; row < tile.rows; row += 16) {
    const std::size_t rows = std::min<std::size_t>(16, tile.rows - row);
    if (tile.counts[row + rows - 1] == 0) continue;
    score_panel_amx(tile.queries + row * tile.head_dim / 2, tile.head_dim, tile.keys, scores);
    for (std::size_t r = 0; r < rows; ++r) {
      float* s = scores + r * key_tile;
      const std::size_t count = tile.counts[row + r];
      if (tile.score_rows[row + r] != nullptr) std::memcpy(tile.score_rows[row + r], s, count * sizeof(float));
      if (count == 0) {
        std::fill_n(s, key_tile, 0.0f);
      } else {
        for (std::size_t k = count; k < key_tile; ++k) s[k] = -std::numeric_limits<float>::infinity();
        softmax_step(Avx512Floats{}, s, state.max[row + r], state.sums + (row + r) * sum_lanes,
                     state.out + (row + r) * tile.padded_dim, tile.padded_dim);
      }
    }
    std::fill_n(scores + rows * key_tile, (16 - rows) * key_tile, 0.0f);
    for (std::size_t i = 0; i < 16 * key_tile; i += 32) {
      const __m512bh words = _mm512_cvtne2ps_pbh(_mm512_load_ps(scores + i + 16), _mm512_load_ps(scores + i));
      std::memcpy(weights + i / 2, &words, sizeof words);
    }
    float* out = state.out + row * tile.padded_dim;
    for (std::size_t column = 0; column < tile.head_dim; column += 32) {
      value_columns_amx(weights, tile.value_pairs + column, out + column, tile.padded_dim);
    }
  }
}

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
