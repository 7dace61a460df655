// Kernels of tiled attention: scores of a segment of keys, their softmax, the weighted sum of values, merging segments.
// Keys are transposed in tiles [head_dim, key_tile]; rows are query rows of one KV head's group, six at a time.
// Every sum has one order (dimensions, then keys, ascending), whatever the number of rows.
#pragma once

#include <lazyllm/core/row_element.hpp>
#include <lazyllm/nn/kernels/vector_exp.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace lazyllm::inline v0::detail {

inline constexpr std::size_t key_tile = 64;
inline constexpr std::size_t key_group = 16;               // keys or values that are loaded at a time
inline constexpr std::size_t segment_keys = 8 * key_tile;  // keys of one softmax, which is then merged with the others
inline constexpr std::size_t panel_rows = 6;
inline constexpr std::size_t sum_lanes = 16;  // floats a row for the partial sums; an ISA uses the first `width`

/// The softmax of some rows, not yet divided: maximum [rows], lanes of the sum of weights [rows, sum_lanes], weighted
/// sum of values [rows, padded_dim]. Where the maximum is -infinity, no key has been seen, and the others say nothing.
struct AttentionState {
  float* max = nullptr;
  float* sums = nullptr;
  float* out = nullptr;

  /// From a row on.
  [[nodiscard]] AttentionState from(std::size_t row, std::size_t padded_dim) const {
    return {max + row, sums + row * sum_lanes, out + row * padded_dim};
  }
};

/// What goes with rows of 8-bit codes (attention_codes.hpp): in a segment of keys, and in a block of queries.
struct CodeScales {
  float* keys = nullptr;            // [segment_keys]
  float* value_logs = nullptr;      // [segment_keys] log2 of the values'
  float* value_inverses = nullptr;  // [segment_keys] 1 / the values'
  float* queries = nullptr;         // [rows]
  std::int32_t* starts = nullptr;   // [rows] -128 times the sum of the row's codes
};

/// Query rows against one segment of keys. Kernels that multiply pairs of bfloat16 (attention_pairs.hpp) find those in
/// queries, keys and values, each pair in the place of a float; kernels on codes (attention_codes.hpp) four bytes.
struct AttentionSegment {
  std::size_t rows = 0;
  std::size_t head_dim = 0;
  std::size_t padded_dim = 0;           // head_dim rounded up to whole vectors
  const float* queries = nullptr;       // [rows, head_dim], times the scale
  const float* keys = nullptr;          // [segment_keys / key_tile, head_dim, key_tile]
  const float* values = nullptr;        // [segment_keys, padded_dim]
  const std::size_t* counts = nullptr;  // [rows] keys of this segment that the row sees, ascending
  float* const* score_rows = nullptr;   // [rows] where the row's scores of this segment go, or null
  CodeScales scales;                    // of codes only
  AttentionState state;                 // of the rows' segments so far, to which this one is added
  AttentionState panel;                 // [16 rows] room for a panel's own
  bool first = false;                   // no segment so far: state.max is -infinity
};

/// Keys of the tiles that hold `count` keys.
constexpr std::size_t whole_tiles(std::size_t count) { return (count + key_tile - 1) / key_tile * key_tile; }

/// Asks for a stored row of n numbers that will be read soon.
template <RowElement Element>
void prefetch_row(const Element* row, std::size_t n) {
  __asm__ volatile("");  // else g++ sees no effect, and leaves calls out that it has not inlined yet
  std::size_t i = 0;
  do __builtin_prefetch(row + i, 0, 3);
  while ((i += 64 / sizeof(Element)) < row_size<Element>(n));
}

/// What kernels on `V` need while a thread runs them over query rows.
template <class V>
struct AttentionSetup {
  explicit AttentionSetup(std::size_t) {}
};

/// Calls body(R), R an integral_constant of that many rows, 1 to panel_rows.
template <class Body>
void with_rows(std::size_t rows, Body body) {
  switch (rows) {
    case 1: body(std::integral_constant<std::size_t, 1>()); break;
    case 2: body(std::integral_constant<std::size_t, 2>()); break;
    case 3: body(std::integral_constant<std::size_t, 3>()); break;
    case 4: body(std::integral_constant<std::size_t, 4>()); break;
    case 5: body(std::integral_constant<std::size_t, 5>()); break;
    default: body(std::integral_constant<std::size_t, panel_rows>()); break;
  }
}

/// Calls body(R, row) for panels of R rows from `row` on, R an integral_constant up to panel_rows; counts ascend, and
/// panels that see no key are left out.
template <class Body>
void for_panels(const AttentionSegment& segment, Body body) {
  for (std::size_t row = 0; row < segment.rows; row += panel_rows) {
    const std::size_t rows = std::min(panel_rows, segment.rows - row);
    if (segment.counts[row + rows - 1] != 0) with_rows(rows, [&](auto count) { body(count, row); });
  }
}

/// All rows against one segment. A kernel is an attend_panel<R>(V, segment, row): R rows from `row` on; one that has
/// other panels has an attend of its own.
template <class V>
void attend(V tag, const AttentionSegment& segment) {
  for_panels(segment, [&](auto rows, std::size_t row) { attend_panel<rows()>(tag, segment, row); });
}

#define LAZYLLM_FLOATS PortableFloats<xsimd::default_arch>
#include <lazyllm/nn/kernels/attention.inc>
#undef LAZYLLM_FLOATS

#if defined(__x86_64__)
LAZYLLM_TARGET_AVX2_BEGIN
#define LAZYLLM_FLOATS Avx2Floats
#include <lazyllm/nn/kernels/attention.inc>
#undef LAZYLLM_FLOATS
LAZYLLM_TARGET_END

LAZYLLM_TARGET_AVX512VNNI_BEGIN
#define LAZYLLM_FLOATS Avx512Floats
#include <lazyllm/nn/kernels/attention.inc>
#undef LAZYLLM_FLOATS
LAZYLLM_TARGET_END
#endif

}  // namespace lazyllm::inline v0::detail
