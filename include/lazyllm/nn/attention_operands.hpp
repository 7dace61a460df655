// What attention kernels multiply: queries of a block of rows, keys and values of a segment, brought from where they
// lie into a thread's workspace, in the form that the kernels on `V` read.
#pragma once

#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/row_element.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/nn/attention_scratch.hpp>
#include <lazyllm/nn/kernels/attention.hpp>
#include <lazyllm/nn/kernels/attention_amx.hpp>
#include <lazyllm/nn/kernels/attention_pairs_codes.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace lazyllm::inline v0::detail {

template <class V>
inline constexpr bool takes_pairs = std::derived_from<V, Bfloat16Floats>;
template <class V>
inline constexpr bool takes_code_keys = std::derived_from<V, VnniFloats>;
template <class V>
inline constexpr bool takes_code_values = std::same_as<V, VnniFloats> || std::same_as<V, PairCodeFloats>;

/// The scales of a workspace's codes.
[[nodiscard]] inline CodeScales code_scales(AttentionWorkspace& workspace) {
  float* const scales = workspace.scales.data();
  return {scales, scales + segment_keys, scales + 2 * segment_keys, scales + 3 * segment_keys, workspace.starts.data()};
}

/// The queries, keys and values of one call of attention().
template <class V, KeyValueReader KV>
class AttentionOperands {
 public:
  AttentionOperands(const AttentionShape& shape, ConstRows queries, std::span<const TokenIndex> keys, const KV& kv)
      : shape_(shape), blocking_(shape), queries_(queries), keys_(keys), kv_(kv) {}

  /// Queries of one KV head's group, scaled, of `tokens` token rows from `first` on: query row = token * group + head
  /// of the group.
  void load_queries(std::size_t first, std::size_t tokens, std::size_t kv_head, AttentionWorkspace& workspace) const {
    const std::size_t width = blocking_.group * shape_.head_dim;
    float* to = workspace.queries.data();
    for (std::size_t t = 0; t < tokens; ++t) {
      const float* from = queries_.row(first + t).data() + kv_head * width;
      if constexpr (takes_code_keys<V>) {
        const CodeScales scales = code_scales(workspace);
        for (std::size_t g = 0; g < blocking_.group; ++g) {
          const std::size_t row = t * blocking_.group + g;
          load_code_query(V{}, from + g * shape_.head_dim, shape_.head_dim, shape_.scale,
                          reinterpret_cast<std::byte*>(to) + row * blocking_.padded_dim, scales.queries[row],
                          scales.starts[row]);
        }
      } else if constexpr (takes_pairs<V>) {
        load_pair_queries(V{}, from, width, shape_.scale, to + t * width / 2);
        if constexpr (takes_code_values<V>) {
          std::fill_n(code_scales(workspace).queries + t * blocking_.group, blocking_.group, 1.0f);
        }
      } else {
        for (std::size_t i = 0; i < width; ++i) to[t * width + i] = from[i] * shape_.scale;
      }
    }
  }

  /// The keys of the segment that begins at key `first`, up to key `limit` > first: whole tiles, in which from there on
  /// the last one before it stands in.
  void load_keys(std::size_t kv_head, std::size_t first, std::size_t limit, AttentionWorkspace& workspace) const {
    const auto row_of = [&](TokenIndex token) { return kv_.key(kv_head, token); };
    for_tiles(first, limit, row_of, [&](const auto& rows, std::size_t tile) { load_key_tile(rows, tile, workspace); });
  }
  /// The same of values.
  void load_values(std::size_t kv_head, std::size_t first, std::size_t limit, AttentionWorkspace& workspace) const {
    const auto row_of = [&](TokenIndex token) { return kv_.value(kv_head, token); };
    for_tiles(first, limit, row_of,
              [&](const auto& rows, std::size_t tile) { load_value_tile(rows, tile, workspace); });
  }

 private:
  /// Stored rows of a tile of keys.
  template <class Element>  // a RowElement; clang 14 crashes where a lambda names a template with constraints
  using TileRows = std::array<const Element*, key_tile>;

  /// Calls load(rows, tile) for each tile of the segment. While it loads, the next tile is on its way from memory: no
  /// prefetcher of the hardware foresees rows with gaps, as of pruned tokens or of one head out of many.
  template <class RowOf, class Load>
  void for_tiles(std::size_t first, std::size_t limit, const RowOf& row_of, const Load& load) const {
    const auto look_up = [&](std::size_t from) {
      TileRows<std::remove_cvref_t<decltype(*row_of(TokenIndex{}))>> rows;
      for (std::size_t k = 0; k < key_tile; ++k) {
        rows[k] = row_of(keys_[std::min(from + k, limit - 1)]);
        prefetch_row(rows[k], shape_.head_dim);
      }
      return rows;
    };
    auto rows = look_up(first);
    for (std::size_t tile = 0; tile < segment_keys && first + tile < limit; tile += key_tile) {
      const auto next = look_up(first + tile + key_tile);
      load(rows, tile);
      rows = next;
    }
  }

  /// Codes and scales of stored rows.
  static void split_codes(const TileRows<Int8>& rows, const std::int8_t* (&codes)[key_tile], float* scales) {
    for (std::size_t k = 0; k < key_tile; ++k) {
      scales[k] = row_scale(rows[k]);
      codes[k] = row_codes(rows[k]);
    }
  }

  /// A tile to [head_dim, key_tile] floats, [head_dim / 2, key_tile] pairs or [head_dim / 4, key_tile] words of codes.
  void load_key_tile(const TileRows<KeyElementOf<KV>>& stored, std::size_t tile, AttentionWorkspace& workspace) const {
    if constexpr (takes_code_keys<V>) {
      const std::size_t words = (shape_.head_dim + 3) / 4;
      const std::int8_t* rows[key_tile];
      split_codes(stored, rows, code_scales(workspace).keys + tile);
      load_code_keys(V{}, rows, words, reinterpret_cast<std::byte*>(workspace.keys.data()) + tile * words * 4);
    } else {
      static_assert(V::width <= 16);
      const std::size_t places = takes_pairs<V> ? shape_.head_dim / 2 : shape_.head_dim;
      const float* rows[V::width];
      for (std::size_t k = 0; k < key_tile; k += V::width) {
        for (std::size_t j = 0; j < V::width; ++j) {
          const auto* const row = stored[k + j];
          float* const space = workspace.rows.data() + j * blocking_.padded_dim;
          if constexpr (takes_pairs<V>) {
            rows[j] = reinterpret_cast<const float*>(bfloat16_row(V{}, row, shape_.head_dim, space));
          } else {
            rows[j] = float_row(V{}, row, shape_.head_dim, space);
          }
        }
        transpose_keys(V{}, rows, places, workspace.keys.data() + tile * places + k);
      }
    }
  }

  /// A tile to [key_tile, padded_dim] floats, [key_tile / 2, padded_dim] pairs or [key_tile / 4, padded_dim] words of
  /// codes.
  void load_value_tile(const TileRows<ValueElementOf<KV>>& stored, std::size_t tile,
                       AttentionWorkspace& workspace) const {
    const std::size_t dim = blocking_.padded_dim;
    if constexpr (takes_code_values<V>) {
      const std::int8_t* rows[key_tile];
      float stored_scales[key_tile];
      split_codes(stored, rows, stored_scales);
      const CodeScales scales = code_scales(workspace);
      take_value_scales(V{}, stored_scales, scales.value_logs + tile, scales.value_inverses + tile);
      load_code_values(V{}, rows, shape_.head_dim, dim,
                       reinterpret_cast<std::byte*>(workspace.values.data()) + tile * dim);
    } else if constexpr (takes_pairs<V>) {
      const auto row = [&](std::size_t k, float* space) {
        return bfloat16_row(V{}, stored[k], shape_.head_dim, space);
      };
      float* const storage = workspace.rows.data();
      float* const to = workspace.values.data() + tile / 2 * dim;
      for (std::size_t k = 0; k < key_tile; k += 2) {
        pair_values(V{}, row(k, storage), row(k + 1, storage + dim), shape_.head_dim, to + k / 2 * dim);
      }
    } else {
      for (std::size_t k = 0; k < key_tile; ++k) {
        float* const row = workspace.values.data() + (tile + k) * dim;
        const float* const from = float_row(V{}, stored[k], shape_.head_dim, row);
        if (from != row) std::copy_n(from, shape_.head_dim, row);
        std::fill_n(row + shape_.head_dim, dim - shape_.head_dim, 0.0f);
      }
    }
  }

  const AttentionShape& shape_;
  const AttentionBlocking blocking_;
  const ConstRows queries_;
  const std::span<const TokenIndex> keys_;
  const KV& kv_;
};

}  // namespace lazyllm::inline v0::detail
