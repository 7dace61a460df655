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

/// The pace: a number that is always 0 and part of each request's address, and that is nine cycles in the making; or
/// twelve where threads share the memory, of which each then gets less.
class RequestPace {
 public:
  explicit RequestPace(bool shares_memory) : shares_memory_(shares_memory) {}

  /// Asks for the line at `address`. In assembly, as compilers gather prefetches.
  [[gnu::always_inline]] inline void ask(const Int8* address) const {
    __asm__ volatile("prefetcht0 %0" : : "m"(address[zero_]));
  }
  /// Makes later requests wait for so many cycles after the last step.
  [[gnu::always_inline]] inline void step() {
    __asm__ volatile("imulq $1, %0, %0\n\timulq $1, %0, %0\n\timulq $1, %0, %0" : "+r"(zero_));
    if (shares_memory_) [[unlikely]] {
      __asm__ volatile("imulq $1, %0, %0" : "+r"(zero_));
    }
  }

 private:
  std::size_t zero_ = 0;
  bool shares_memory_;
};

/// How far ahead rows are asked for, in groups.
struct GroupsAhead {
  std::size_t middle = 0, far = 0;  // about 3 and 6 KB
};

/// Adjacent rows: the first key and value of a group and of those after it.
struct AdjacentGroups {
  const Int8* const* keys;
  const Int8* const* values;
  GroupsAhead ahead;

  static constexpr bool sums_ask = true;  // for one line of four

  [[nodiscard]] AdjacentGroups from(std::size_t group) const { return {keys + group, values + group, ahead}; }

  template <std::size_t head_dim>
  [[nodiscard]] AdjacentRows<head_dim> key_rows() const {
    return {keys[0]};
  }
  template <std::size_t head_dim>
  [[nodiscard]] AdjacentRows<head_dim> value_rows() const {
    return {values[0]};
  }

  /// Asks for a line of those that four rows from `row` on have, the r-th of four for each part of 64 numbers: in
  /// order.
  template <std::size_t head_dim>
  [[gnu::always_inline]] inline void ask(const RequestPace& pace, std::size_t row, std::size_t part,
                                         std::size_t r) const {
    ask_at(pace, row * head_dim + 64 * (4 * part + r));
  }
  /// For what those leave: the last line of a group, and what lies in the next one.
  template <std::size_t head_dim>
  [[gnu::always_inline]] inline void ask_for_last_line(const RequestPace& pace) const {
    ask_at(pace, key_group * head_dim);
  }
  template <std::size_t head_dim>
  [[gnu::always_inline]] inline void ask_for_last_byte(const RequestPace& pace) const {
    ask_at(pace, key_group * row_bytes<Int8>(head_dim) - 1);
  }

  /// Of the tile that begins here, for the fourth of the lines that four rows have for 64 numbers.
  [[gnu::always_inline]] inline void ask_for_fourth(const RequestPace& pace, std::size_t head_dim, std::size_t four,
                                                    std::size_t column) const {
    from(four / 4).ask_at(pace, four % 4 * 4 * head_dim + 4 * column + 192);
  }

 private:
  [[gnu::always_inline]] inline void ask_at(const RequestPace& pace, std::size_t at) const {
    pace.ask(keys[1] + at);
    pace.ask(values[1] + at);
    pace.ask(keys[ahead.middle] + at);
    pace.ask(values[ahead.middle] + at);
    pace.ask(keys[ahead.far] + at);
    pace.ask(values[ahead.far] + at);
  }
};

/// Rows that lie anywhere: each key and value of a group and of those after it.
struct ListedGroups {
  const Int8* const* keys;
  const Int8* const* values;
  GroupsAhead ahead;

  static constexpr bool sums_ask = false;

  [[nodiscard]] ListedGroups from(std::size_t group) const {
    return {keys + group * key_group, values + group * key_group, ahead};
  }

  template <std::size_t>
  [[nodiscard]] const Int8* const* key_rows() const {
    return keys;
  }
  template <std::size_t>
  [[nodiscard]] const Int8* const* value_rows() const {
    return values;
  }

  /// Asks for a part of 64 numbers of row + r, once: those further ahead are asked for where they are looked up.
  template <std::size_t head_dim>
  [[gnu::always_inline]] inline void ask(const RequestPace& pace, std::size_t row, std::size_t part,
                                         std::size_t r) const {
    for (const Int8* const* const rows : {keys, values}) {
      const Int8* const first = rows[ahead.middle * key_group + row + r];
      pace.ask(first + 64 * part);
      if (part + 1 == head_dim / 64) pace.ask(first + row_bytes<Int8>(head_dim) - 1);
    }
  }
  template <std::size_t>
  void ask_for_last_line(const RequestPace&) const {}
  template <std::size_t>
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
template <std::size_t head_dim, std::size_t R, class Rows, class Groups>
[[gnu::always_inline]] inline void multiply_four_keys(const std::byte* queries, const Rows& rows, const Groups& groups,
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
      if (!Groups::sums_ask || q < 3) {
        groups.template ask<head_dim>(pace, row, i / 64, q);
        pace.step();
      }
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
template <std::size_t head_dim, std::size_t R, class Groups>
[[gnu::always_inline]] inline void multiply_group(const std::byte* queries, const Groups& groups, RequestPace& pace,
                                                  CodeSums (&sums)[R]) {
  const auto rows = groups.template key_rows<head_dim>();
  CodeSums even[R], odd[R], half[R];
  multiply_four_keys<head_dim>(queries, rows, groups, pace, 0, even);
  multiply_four_keys<head_dim>(queries, rows + 1, groups, pace, 4, odd);
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) half[r] = add_halves(even[r], odd[r]);
  groups.template ask_for_last_line<head_dim>(pace);
  multiply_four_keys<head_dim>(queries, rows + 2, groups, pace, 8, even);
  multiply_four_keys<head_dim>(queries, rows + 3, groups, pace, 12, odd);
  LAZYLLM_UNROLL
  for (std::size_t r = 0; r < R; ++r) sums[r] = add_pairs(half[r], add_halves(even[r], odd[r]));
  groups.template ask_for_last_byte<head_dim>(pace);
}

/// Weights of one panel in one segment after another: those of a segment are made, and meet its values, a tile of keys
/// at a time, before the scores of the next segment take the tile's place. So memory, from which only scores read,
/// never waits long.
class StoredWeightCodes : private WeightCodes {
 public:
  /// `shares_memory`: other threads read from it at the same time.
  explicit StoredWeightCodes(bool shares_memory) : pace_(shares_memory) {}

  /// Whether it takes a segment: a panel of rows of the usual head sizes, for which it is compiled (with_shape).
  [[nodiscard]] static bool takes(const AttentionSegment& segment) {
    const std::size_t head_dim = segment.head_dim;
    return segment.rows <= panel_rows && (head_dim == 64 || head_dim == 128 || head_dim == 256);
  }

  /// Begins a segment with the first `keys` keys, a multiple of key_tile. Precondition: it has as many rows of the same
  /// head size as the segment before, or nothing is left of that.
  void begin(const AttentionSegment& segment, std::size_t keys) { WeightCodes::begin(segment, 0, segment.rows, keys); }

  /// Exponents of a tile of keys, the segment's from `first` on, which `groups` begins with; asks for what comes later.
  /// Before that, of the tile of the segment before whose place they take: its sums of `values_before`, the segment's
  /// rows, or if they are `adjacent` the first rows of its groups.
  template <class Groups>
  void take_tile(const Groups& groups, std::size_t first, const Int8* const* values_before, bool adjacent) {
    if (first < left_keys_) {
      with_rows(before_.rows, [&](auto rows) { sum_tile<rows()>(values_before, adjacent, first, groups); });
    } else if constexpr (Groups::sums_ask) {
      const std::size_t head_dim = segment_->head_dim;
      for (std::size_t column = 0; column < head_dim; column += 64) {
        for (std::size_t four = 0; four < key_tile / 4; ++four) groups.ask_for_fourth(pace_, head_dim, four, column);
      }
    }
    with_shape([&](auto rows, auto head_dim) { score_tile<rows(), head_dim()>(groups, first); });
  }

  /// Sums what is left of the segment before from key `first` on.
  void sum_left(std::size_t first, const Int8* const* values_before, bool adjacent) {
    for (; first < left_keys_; first += key_tile) {
      with_rows(before_.rows, [&](auto rows) { sum_tile<rows()>(values_before, adjacent, first, NoGroups{}); });
    }
    left_keys_ = 0;
  }

  /// After the last scores. Precondition: nothing is left of the segment before.
  void end_scores() {
    for (std::size_t r = 0; r < rows_; ++r) find_shift(r);
    add_maxima();
    before_ = *segment_;
    left_keys_ = keys_;
    with_rows(rows_, [&](auto rows) { make_tile_weights<rows()>(0); });
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

  /// Where nothing is asked for.
  struct NoGroups {
    static constexpr bool sums_ask = false;
  };

  template <std::size_t R, std::size_t head_dim, class Groups>
  void score_tile(const Groups& tile, std::size_t first) {
    const CodeScales scales = segment_->scales;
    const bool plain = is_plain(first);
    for (std::size_t g = 0; g < key_tile / key_group; ++g) {
      const Groups groups = tile.from(g);
      const std::size_t key = first + g * key_group;
      load_value_scales(groups.template value_rows<head_dim>(), key, scales);
      CodeSums sums[R];
      RequestPace pace = pace_;  // in a register
      multiply_group<head_dim>(reinterpret_cast<const std::byte*>(segment_->queries), groups, pace, sums);
      pace_ = pace;
      load_key_scales(groups.template key_rows<head_dim>(), key, scales);
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        const __m512i start = _mm512_set1_epi32(scales.starts[r]);
        __m512 numbers = scaled_sums((CodeSums)_mm512_add_epi32((__m512i)sums[r], start), scales.keys + key);
        if (plain) {
          numbers = exponents_of(scales, r, key, numbers);
          maxima_[r] = (CodeMaxima)_mm512_max_ps((__m512)maxima_[r], numbers);
        }
        _mm512_store_ps(exponents_ + r * segment_keys + key, numbers);
      }
    }
    if (plain) return;
    report_and_mask(first);
    take_products<R>(first);
  }

  /// Weights of the segment before for the tile of keys from `first` on. They are made a tile ahead of their sums, so
  /// that a CPU need not wait for them.
  template <std::size_t R>
  void make_tile_weights(std::size_t first) {
    for (std::size_t r = 0; r < R; ++r) make_weights(r, first, before_.scales, tile_codes<R>(first) + r * key_tile);
  }
  template <std::size_t R>
  [[nodiscard]] std::uint8_t* tile_codes(std::size_t first) {
    return codes_ + first / key_tile % 2 * R * key_tile;
  }

  /// Sums of the segment before for the tile of keys from `first` on; the last tile adds all to the state. Meanwhile
  /// asks for the lines that score_tile leaves to it.
  template <std::size_t R, class Groups>
  void sum_tile(const Int8* const* values, bool adjacent, std::size_t first, const Groups& groups) {
    const std::size_t head_dim = before_.head_dim, row = row_size<Int8>(head_dim);
    const std::uint8_t* const codes = tile_codes<R>(first);
    const bool last = first + key_tile == left_keys_;
    if (last) add_weights<R>(before_);
    RequestPace pace = pace_;
    for (std::size_t column = 0; column < head_dim; column += 64) {
      CodeSums* const kept = tile_sums_ + column / 16 * R;
      CodeSums sums[R][4];
      LAZYLLM_UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        LAZYLLM_UNROLL
        for (std::size_t c = 0; c < 4; ++c) sums[r][c] = first == 0 ? CodeSums{} : kept[r * 4 + c];
      }
      for (std::size_t four = 0; four < key_tile / 4; ++four) {
        if constexpr (Groups::sums_ask) {
          groups.ask_for_fourth(pace, head_dim, four, column);
          pace.step();
        }
        CodeSums words[4];
        if (adjacent) {
          const Int8* const at = values[first / key_group + four / 4] + four % 4 * 4 * row;
          const Int8* const rows[] = {at, at + row, at + 2 * row, at + 3 * row};
          interleave_codes(rows, column, 64, words);
        } else {
          interleave_codes(values + first + 4 * four, column, 64, words);
        }
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          const __m512i weights = broadcast_word(codes + r * key_tile + 4 * value_group_place(four));
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
    pace_ = pace;
    if (!last) make_tile_weights<R>(first + key_tile);
  }

  AttentionSegment before_;  // whose exponents have this segment's place
  std::size_t left_keys_ = 0;
  RequestPace pace_;
  CodeSums tile_sums_[panel_rows * 16];  // of values, between tiles; head size up to 256
};

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
