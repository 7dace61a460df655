// Tiled attention with the tile registers of AMX, for keys and values in bfloat16: 16 query rows against 64 keys.
// Scores and the weighted sum of values are products of the pairs of attention_pairs.hpp, summed in float
// (amx_tiles.hpp).
#pragma once

#include <lazyllm/nn/kernels/attention_pairs.hpp>
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

/// scores [16, key_tile] = queries [16, head_dim / 2 pairs] * key_pairs; rows of scores are segment_keys apart.
inline void score_tile_amx(const float* queries, std::size_t head_dim, const float* key_pairs, float* scores) {
  constexpr std::size_t row_bytes = key_tile * sizeof(float);
  constexpr std::size_t score_bytes = segment_keys * sizeof(float);
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
  AmxTiles::store<0>(scores, score_bytes);
  AmxTiles::store<1>(scores + 16, score_bytes);
  AmxTiles::store<2>(scores + 32, score_bytes);
  AmxTiles::store<3>(scores + 48, score_bytes);
}

/// out [16, 32] = the first n weights [16, segment_keys / 2 pairs] * value_pairs [n / 2, 32].
inline void value_columns_amx(const float* weights, std::size_t n, const float* value_pairs, float* out,
                              std::size_t padded_dim) {
  const std::size_t row_bytes = padded_dim * sizeof(float);
  AmxTiles::zero<0>();
  AmxTiles::zero<1>();
  for (std::size_t j = 0; j < n / 2; j += 16) {
    AmxTiles::load<4>(weights + j, segment_keys / 2 * sizeof(float));
    AmxTiles::load<6>(value_pairs + j * padded_dim, row_bytes);
    AmxTiles::multiply<0, 4, 6>();
    AmxTiles::load<7>(value_pairs + j * padded_dim + 16, row_bytes);
    AmxTiles::multiply<1, 4, 7>();
  }
  AmxTiles::store<0>(out, row_bytes);
  AmxTiles::store<1>(out + 16, row_bytes);
}

/// All rows against one segment; counts ascend. As in attention_pairs.hpp, weights of keys that a row does not see are
/// zeros.
inline void attend(AmxFloats, const AttentionSegment& segment) {
  alignas(64) float scores[16 * segment_keys];
  alignas(64) float weights[16 * segment_keys / 2];
  for (std::size_t row = 0; row < segment.rows; row += 16) {
    const std::size_t rows = std::min<std::size_t>(16, segment.rows - row);
    const std::size_t keys = whole_tiles(segment.counts[row + rows - 1]);
    if (keys == 0) continue;
    for (std::size_t first = 0; first < keys; first += key_tile) {
      score_tile_amx(segment.queries + row * segment.head_dim / 2, segment.head_dim,
                     segment.keys + first * segment.head_dim / 2, scores + first);
    }
    weigh_rows(Avx512Floats{}, segment, row, rows, keys, scores);
    pair_weights(rows, keys, scores, weights);
    std::fill_n(weights + rows * segment_keys / 2, (16 - rows) * segment_keys / 2, 0.0f);
    for (std::size_t column = 0; column < segment.head_dim; column += 32) {
      value_columns_amx(weights, keys, segment.values + column, segment.panel.out + column, segment.padded_dim);
    }
    add_panel(Avx512Floats{}, segment, row, rows);
  }
}

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
