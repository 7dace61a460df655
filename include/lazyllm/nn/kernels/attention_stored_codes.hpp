// Attention of one panel of rows on stored rows of 8-bit codes, as when a token is generated: keys and values are
// multiplied as they come from memory, as another form of them, which many panels would share, does not pay.
#pragma once

#include <lazyllm/core/row_element.hpp>
#include <lazyllm/nn/kernels/attention.hpp>
#include <lazyllm/nn/kernels/attention_code_operands.hpp>
#include <lazyllm/nn/kernels/attention_code_scores.hpp>
#include <lazyllm/nn/kernels/attention_codes.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#if defined(__x86_64__)

LAZYLLM_TARGET_AVX512VNNI_BEGIN
namespace lazyllm::inline v0::detail {

// Rows further on are asked for a cache line at a time, between dots. A CPU that waits for as many lines as it can
// forgets what else it is asked for. So a line is asked for more than once on its way here, and requests keep a pace,
// which nothing else would give them: while dots wait for their keys, a CPU runs ahead to the next requests.

/// The pace: a number that is always 0 and part of each request's address, and that is nine cycles in the making.
class RequestPace {
 public:
  /// Asks for the line at `address`. In assembly, as compilers gather prefetches.
  [[gnu::always_inline]] inline void ask(const Int8* address) const {
    __asm__ volatile("prefetcht0 %0" : : "m"(address[zero_]));
  }
  /// Makes later requests wait for nine cycles after the last step.
  [[gnu::always_inline]] inline void step() {
    __asm__ volatile("imulq $1, %0, %0\n\timulq $1, %0, %0\n\timulq $1, %0, %0" : "+r"(zero_));
  }

 private:
  std::size_t zero_ = 0;
};

/// Groups of adjacent rows, from their first row on.
template <std::size_t head_dim>
struct AdjacentAhead {
  static constexpr std::size_t bytes = key_group * row_bytes<Int8>(head_dim);
  const Int8* const (&groups)[6];

  /// For a line of those that four rows from `row` on have, the r-th of four for each part of 64 numbers: in order.
  [[gnu::always_inline]] inline void ask(const RequestPace& pace, std::size_t row, std::size_t part,
                                         std::size_t r) const {
    ask_at(pace, row * head_dim + 64 * (4 * part + r));
  }
  /// For what those leave.
  [[gnu::always_inline]] inline void ask_for_last_line(const RequestPace& pace) const {
    ask_at(pace, key_group * head_dim);
  }
  [[gnu::always_inline]] inline void ask_for_last_byte(const RequestPace& pace) const { ask_at(pace, bytes - 1); }

 private:
  [[gnu::always_inline]] inline void ask_at(const RequestPace& pace, std::size_t at) const {
    LAZYLLM_UNROLL
    for (std::size_t i = 0; i < 6; ++i) pace.ask(groups[i] + at);
  }
};

/// Groups of rows that lie anywhere.
template <std::size_t head_dim>
struct ListedAhead {
  const Int8* const* const (&groups)[4];

  /// For a part of row + r.
  [[gnu::always_inline]] inline void ask(const RequestPace& pace, std::size_t row, std::size_t part,
                                         std::size_t r) const {
    LAZYLLM_UNROLL
    for (std::size_t i = 0; i < 4; ++i) {
      const Int8* const first = groups[i][row + r];
      pace.ask(first + 64 * part);
      if (part + 1 == head_dim / 64) pace.ask(first + row_bytes<Int8>(head_dim) - 1);
    }
  }
  void ask_for_last_line(const RequestPace&) const {}
  void ask_for_last_byte(const RequestPace&) const {}
};

/// Of 128-bit lanes {a0, a1, a2, a3} and {b0, b1, b2, b3}: {a0 + a2, b0 + b2, a1 + a3, b1 + b3}.
inline CodeSums add_halves(CodeSums a, CodeSums b) {
  return (CodeSums)_mm512_add_epi32(_mm512_unpacklo_epi32((__m512i)a, (__m512i)b),
                                    _mm512_unpackhi_epi32((__m512i)a, (__m512i)b));
}
/// Of what add_halves gave for a and b, and for c and d: the sums of all four numbers of a, b, c and d.
inline CodeSums add_pairs(CodeSums a, CodeSums b) {
  return (CodeSums)_mm512_add_epi32(_mm512_unpacklo_epi64((__m512i)a, (__m512i)b),
                                    _mm512_unpackhi_epi64((__m512i)a, (__m512i)b));
}

/// Sums of products of codes of R queries [R, head_dim] with keys 0, 4, 8 and 12 of these, one a 128-bit lane: four
/// sums of a quarter of the numbers. Meanwhile asks for four rows ahead, from `row` on.
template <std::size_t head_dim, std::size_t R, class Rows, class Ahead>
[[gnu::always_inline]] inline void multiply_four_keys(const std::byte* queries, const Rows& rows, const Ahead& ahead,
                                                      RequestPace& pace, std::size_t row, CodeSums (&sums)[R]) {
  const __m512i signs = _mm512_set1_epi8(-128);
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) sums[r] = CodeSums{};
  for (std::size_t i = 0; i < head_dim; i += 64) {
    CodeSums quarters[4];
    LAZYLLM_UNROLL
    for (std::size_t k = 0; k < 4; ++k) {
      quarters[k] = (CodeSums)_mm512_xor_si512(_mm512_loadu_si512(row_codes(rows[4 * k]) + i), signs);
    }
    transpose_lanes(quarters);
    LAZYLLM_UNROLL
    for (std::size_t q = 0; q < 4; ++q) {
      ahead.ask(pace, row, i / 64, q);
      pace.step();
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        const __m512i query = _mm512_broadcast_i32x4(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(queries + r * head_dim + i + 16 * q)));
        sums[r] = (CodeSums)_mm512_dpbusd_epi32((__m512i)sums[r], (__m512i)quarters[q], query);
        keep_in_order(sums[r]);
      }
    }
  }
}

/// Sums of products of codes of R queries with key_group keys, in their order. Meanwhile asks for as many rows ahead.
/// A quarter of the numbers of four keys fills a vector, and lanes are added up at the end: half the instructions of
/// transposing the keys.
template <std::size_t head_dim, std::size_t R, class Rows, class Ahead>
[[gnu::always_inline]] inline void multiply_group(const std::byte* queries, const Rows& rows, const Ahead& ahead,
                                                  RequestPace& pace, CodeSums (&sums)[R]) {
  CodeSums even[R], odd[R], half[R];
  multiply_four_keys<head_dim>(queries, rows, ahead, pace, 0, even);
  multiply_four_keys<head_dim>(queries, rows + 1, ahead, pace, 4, odd);
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) half[r] = add_halves(even[r], odd[r]);
  ahead.ask_for_last_line(pace);
  multiply_four_keys<head_dim>(queries, rows + 2, ahead, pace, 8, even);
  multiply_four_keys<head_dim>(queries, rows + 3, ahead, pace, 12, odd);
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) sums[r] = add_pairs(half[r], add_halves(even[r], odd[r]));
  ahead.ask_for_last_byte(pace);
}

/// Weights of one panel in one segment after another: those of a segment are made, and meet its values, a tile of keys
/// at a time, before the scores of the next segment take the tile's place. So memory, from which only scores read,
/// never waits long.
class StoredWeightCodes : private WeightCodes {
 public:
  /// Whether it takes a segment: a panel of rows of the usual head sizes, for which it is compiled (with_shape).
  [[nodiscard]] static bool takes(const AttentionSegment& segment) {
    const std::size_t head_dim = segment.head_dim;
    return segment.rows <= panel_rows && (head_dim == 64 || head_dim == 128 || head_dim == 256);
  }

  /// Keys of the segment before, if something is left of it, else 0.
  [[nodiscard]] std::size_t left_keys() const { return left_keys_; }

  /// Begins a segment with the first `keys` keys, a multiple of key_tile. Precondition: it has as many rows of the same
  /// head size as the segment before, or nothing is left of that.
  void begin(const AttentionSegment& segment, std::size_t keys) { WeightCodes::begin(segment, 0, segment.rows, keys); }

  /// Exponents of key_group keys, the segment's from `first` on, whose rows and values lie one behind the other from
  /// here, and asks for groups that lie so. Precondition: nothing is left of the tile of the segment before.
  void score(const Int8* keys, const Int8* values, std::size_t first, const Int8* const (&ahead)[6]) {
    with_shape([&](auto rows, auto head_dim) {
      constexpr std::size_t n = head_dim();
      score<rows(), n>(AdjacentRows<n>{keys}, AdjacentRows<n>{values}, first, AdjacentAhead<n>{ahead});
    });
  }
  /// The same of rows that lie here.
  void score(const Int8* const* keys, const Int8* const* values, std::size_t first,
             const Int8* const* const (&ahead)[4]) {
    with_shape([&](auto rows, auto head_dim) {
      score<rows(), head_dim()>(keys, values, first, ListedAhead<head_dim()>{ahead});
    });
  }

  /// After the last scores. Precondition: nothing is left of the segment before.
  void end_scores() {
    for (std::size_t r = 0; r < rows_; ++r) find_shift(r);
    add_maxima();
    before_ = *segment_;
    left_keys_ = keys_;
  }

  /// Weights of the segment before for the tile of keys from `first` on, and their sums of values; the last tile adds
  /// all to the state. `values`: the segment's rows, or if `adjacent` the first rows of its groups.
  void sum_tile(const Int8* const* values, bool adjacent, std::size_t first) {
    with_rows(before_.rows, [&](auto rows) { sum_tile<rows()>(values, adjacent, first); });
    if (first + key_tile == left_keys_) left_keys_ = 0;
  }

 private:
  template <class Body>
  void with_shape(const Body& body) const {
    with_rows(rows_, [&](auto rows) {
      switch (segment_->head_dim) {
        case 64: return body(rows, std::integral_constant<std::size_t, 64>());
        case 128: return body(rows, std::integral_constant<std::size_t, 128>());
        default: return body(rows, std::integral_constant<std::size_t, 256>());
      }
    });
  }

  template <std::size_t R, std::size_t head_dim, class Rows, class Ahead>
  void score(const Rows& keys, const Rows& values, std::size_t first, const Ahead& ahead) {
    const CodeScales scales = segment_->scales;
    load_value_scales(values, first, scales);
    CodeSums sums[R];
    RequestPace pace = pace_;  // in a register
    multiply_group<head_dim>(reinterpret_cast<const std::byte*>(segment_->queries), keys, ahead, pace, sums);
    pace_ = pace;
    load_key_scales(keys, first, scales);
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      const __m512i start = _mm512_set1_epi32(scales.starts[r]);
      _mm512_store_ps(exponents_ + r * segment_keys + first,
                      scaled_sums((CodeSums)_mm512_add_epi32((__m512i)sums[r], start), scales.keys + first));
    }
    const std::size_t tile = first - first % key_tile;
    if (first + key_group != tile + key_tile) return;
    report_and_mask(tile);
    take_products<R>(tile);
  }

  template <std::size_t R>
  void sum_tile(const Int8* const* values, bool adjacent, std::size_t first) {
    const std::size_t head_dim = before_.head_dim, row = row_size<Int8>(head_dim);
    for (std::size_t r = 0; r < R; ++r) make_weights(r, first, before_.scales, codes_ + r * key_tile);
    const bool last = first + key_tile == left_keys_;
    if (last) add_weights<R>(before_);
    for (std::size_t column = 0; column < head_dim; column += 64) {
      CodeSums* const kept = tile_sums_ + column / 16 * R;
      CodeSums sums[R][4];
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        LAZYLLM_UNROLL
        for (std::size_t c = 0; c < 4; ++c) sums[r][c] = first == 0 ? CodeSums{} : kept[r * 4 + c];
      }
      for (std::size_t group = 0; group < key_tile / 4; ++group) {
        CodeSums words[4];
        if (adjacent) {
          const Int8* const four = values[first / key_group + group / 4] + group % 4 * 4 * row;
          const Int8* const rows[] = {four, four + row, four + 2 * row, four + 3 * row};
          interleave_codes(rows, column, 64, words);
        } else {
          interleave_codes(values + first + 4 * group, column, 64, words);
        }
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          const __m512i weights = broadcast_word(codes_ + r * key_tile + 4 * value_group_place(group));
          LAZYLLM_UNROLL
          for (std::size_t c = 0; c < 4; ++c) {
            sums[r][c] = (CodeSums)_mm512_dpbusd_epi32((__m512i)sums[r][c], weights, (__m512i)words[c]);
          }
        }
      }
      if (last) {
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) transpose_lanes(sums[r]);
        add_columns(before_, sums, column);
      } else {
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          LAZYLLM_UNROLL
          for (std::size_t c = 0; c < 4; ++c) kept[r * 4 + c] = sums[r][c];
        }
      }
    }
  }

  AttentionSegment before_;  // whose exponents have this segment's place
  std::size_t left_keys_ = 0;
  RequestPace pace_;
  CodeSums tile_sums_[panel_rows * 16];  // of values, between tiles; head size up to 256
};

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
