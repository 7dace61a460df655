// What attention kernels multiply: queries of a block of rows, keys and values of a segment, brought from where they
// lie into a thread's workspace, in the form that the kernels on `V` read.
#pragma once

#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/row_element.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/nn/attention_rows.hpp>
#include <lazyllm/nn/attention_scratch.hpp>
#include <lazyllm/nn/kernels/attention.hpp>
#include <lazyllm/nn/kernels/attention_amx.hpp>
#include <lazyllm/nn/kernels/attention_pairs_codes.hpp>

#include <algorithm>
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

  /// The rows of the segment that begins at key `first`, up to key `limit`: none where it begins there or later.
  [[nodiscard]] SegmentRows<KV> segment_rows(std::size_t kv_head, std::size_t first, std::size_t limit) const {
    first = std::min(first, limit);
    return {kv_, kv_head, keys_.subspan(first, std::min(segment_keys, limit - first))};
  }

  /// The keys of a segment, in whole tiles.
  void load_keys(const SegmentRows<KV>& segment, AttentionWorkspace& workspace) const {
    typename SegmentRows<KV>::Key rows[segment_keys];
    segment.look_up_keys(rows, [&](std::size_t first) { load_key_group(rows + first, first, workspace); });
  }
  /// The same of values.
  void load_values(const SegmentRows<KV>& segment, AttentionWorkspace& workspace) const {
    typename SegmentRows<KV>::Value rows[segment_keys];
    segment.look_up_values(rows, [&](std::size_t first) { load_value_group(rows + first, first, workspace); });
  }

 private:
  /// The key_group keys from `first` on to their columns of a tile: [head_dim, key_tile] floats, [head_dim / 2,
  /// key_tile] pairs or [head_dim / 4, key_tile] words of codes.
  void load_key_group(const KeyElementOf<KV>* const* stored, std::size_t first, AttentionWorkspace& workspace) const {
    const std::size_t column = first % key_tile;
    const std::size_t tile = first - column;
    if constexpr (takes_code_keys<V>) {
      const std::size_t words = (shape_.head_dim + 3) / 4;
      load_key_scales(stored, first, code_scales(workspace));
      load_code_keys(V{}, stored, words, reinterpret_cast<std::byte*>(workspace.keys.data() + tile * words + column));
    } else {
      static_assert(key_group % V::width == 0);
      const std::size_t places = takes_pairs<V> ? shape_.head_dim / 2 : shape_.head_dim;
      const float* rows[V::width];
      for (std::size_t k = 0; k < key_group; k += V::width) {
        for (std::size_t j = 0; j < V::width; ++j) {
          const auto* const row = stored[k + j];
          float* const space = workspace.rows.data() + j * blocking_.padded_dim;
          if constexpr (takes_pairs<V>) {
            rows[j] = reinterpret_cast<const float*>(bfloat16_row(V{}, row, shape_.head_dim, space));
          } else {
            rows[j] = float_row(V{}, row, shape_.head_dim, space);
          }
        }
        transpose_keys(V{}, rows, places, workspace.keys.data() + tile * places + column + k);
      }
    }
  }

  /// The key_group values from `first` on to [key_group, padded_dim] floats, [key_group / 2, padded_dim] pairs or
  /// [key_group / 4, padded_dim] words of codes; words in the order of value_group_place in their tile.
  void load_value_group(const ValueElementOf<KV>* const* stored, std::size_t first,
                        AttentionWorkspace& workspace) const {
    const std::size_t dim = blocking_.padded_dim;
    if constexpr (takes_code_values<V>) {
      load_value_scales(stored, first, code_scales(workspace));
      load_code_values(V{}, stored, shape_.head_dim, first, dim, reinterpret_cast<std::byte*>(workspace.values.data()));
    } else if constexpr (takes_pairs<V>) {
      const auto row = [&](std::size_t k, float* space) {
        return bfloat16_row(V{}, stored[k], shape_.head_dim, space);
      };
      float* const storage = workspace.rows.data();
      float* const to = workspace.values.data() + first / 2 * dim;
      for (std::size_t k = 0; k < key_group; k += 2) {
        pair_values(V{}, row(k, storage), row(k + 1, storage + dim), shape_.head_dim, to + k / 2 * dim);
      }
    } else {
      for (std::size_t k = 0; k < key_group; ++k) {
        float* const row = workspace.values.data() + (first + k) * dim;
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
