// Tiled attention with values stored as Int8, on scores of keys of any element that attention_code_scores.hpp or
// attention_pairs.hpp give. Weights: a row's softmax of a segment times the scales of the values, as codes of which the
// largest lies in 251 .. 253; their products with the values' codes are dots as of scores (AVX-512-VNNI).
#pragma once

#include <lazyllm/core/row_element.hpp>
#include <lazyllm/nn/kernels/attention.hpp>
#include <lazyllm/nn/kernels/attention_code_operands.hpp>
#include <lazyllm/nn/kernels/attention_code_scores.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#if defined(__x86_64__)

namespace lazyllm::inline v0::detail {

/// What is added to a weight before it is cut to an integer: fractions that differ from key to key (multiples of the
/// golden ratio), so that many weights below 1, each rounded, add up to about their sum.
alignas(64) inline constexpr auto weight_fractions = [] {
  std::array<float, segment_keys> fractions{};
  std::uint32_t bits = 0;
  for (float& fraction : fractions) {
    fraction = static_cast<float>(bits >> 16) * 0x1p-16f;
    bits += 2654435769u;
  }
  return fractions;
}();

}  // namespace lazyllm::inline v0::detail

LAZYLLM_TARGET_AVX512VNNI_BEGIN
namespace lazyllm::inline v0::detail {

// A vector of floats that g++ keeps in a register (see CodeSums).
using CodeMaxima [[gnu::vector_size(64)]] = float;

/// 2^x for x <= 120; relative error 1.8e-3, less than half a step of the largest weight.
inline __m512 rough_exp2(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x)
  __m512 p = _mm512_fmadd_ps(f, _mm512_set1_ps(0.33718944f), _mm512_set1_ps(0.65763628f));
  p = _mm512_fmadd_ps(f, p, _mm512_set1_ps(1.00172472f));
  return _mm512_scalef_ps(p, x);
}

/// The softmax of a panel of rows over a segment, as codes of weights. A weight's exponent is score log2 e + log2 of
/// the value's scale. With m the largest of a row less log2 of 252, the codes are 2^(exponent - m), cut after adding a
/// fraction; m is the row's maximum, and the sum of 2^(score log2 e - m) its sum of weights. Weights of keys that a row
/// does not see are zeros.
/// Made in steps, which go between the dots of another panel: those take the CPU's ports of products, and most of a
/// step takes the others.
class WeightCodes {
 public:
  /// Begins a panel of `rows` rows from `row` on with the first `keys` keys, a multiple of key_tile.
  void begin(const AttentionSegment& segment, std::size_t row, std::size_t rows, std::size_t keys) {
    segment_ = &segment;
    row_ = row;
    rows_ = rows;
    keys_ = keys;
    next_row_ = next_key_ = 0;
    std::fill_n(maxima_, rows, (CodeMaxima)_mm512_set1_ps(-std::numeric_limits<float>::infinity()));
  }

  /// Exponents of R rows from `row` on with the first `keys` keys, a multiple of key_tile; reports their scores.
  template <std::size_t R, class V>
  void score(V tag, const AttentionSegment& segment, std::size_t row, std::size_t keys) {
    begin(segment, row, R, keys);
    for (std::size_t first = 0; first < keys; first += key_tile) {
      const bool plain = is_plain(first);
      if constexpr (std::same_as<V, VnniFloats>) {
        if (plain) {
          take_sums<R>(first);
          continue;
        }
      }
      score_tile<R>(tag, segment, row, first, exponents_);
      if (!plain) report_and_mask(first);
      take_products<R>(first);
    }
  }

  /// Whether all weights are made.
  [[nodiscard]] bool complete() const { return next_row_ == rows_; }

  /// Makes the next ones: of one row, for key_tile keys.
  void step() {
    if (next_key_ == 0) find_shift(next_row_);
    make_weights(next_row_, next_key_, segment_->scales, codes_ + next_row_ * segment_keys + next_key_);
    next_key_ += key_tile;
    if (next_key_ < keys_) return;
    next_key_ = 0;
    ++next_row_;
  }

  /// Adds the panel's maxima, sums and weighed values to the state. Takes steps of `next` meanwhile, and leaves it
  /// complete.
  void sum_values(WeightCodes& next) {
    if (rows_ != 0) {
      add_maxima();
      with_rows(rows_, [&](auto rows) { sum_values<rows()>(next); });
    }
    while (!next.complete()) next.step();
  }

 protected:
  static constexpr float log2_e = 0x1.715476p+0f;

  /// Whether all rows see all of a tile, and none is reported: later rows see more, and if not all rows are reported,
  /// then the last.
  [[nodiscard]] bool is_plain(std::size_t first) const {
    return segment_->counts[row_] >= first + key_tile && segment_->score_rows[row_ + rows_ - 1] == nullptr;
  }

  /// Makes exponents of a tile of the panel's R rows, keeps them, and takes their maxima.
  template <std::size_t R>
  void take_sums(std::size_t first) {
    const CodeScales scales = segment_->scales;  // compilers would read it again after each store
    multiply_codes<R>(*segment_, row_, first, [&](std::size_t r, const CodeSums(&sums)[key_tile / 16]) {
      take_exponents(scales, r, first,
                     [&](std::size_t k) { return scaled_sums(sums[k / 16], scales.keys + first + k); });
    });
  }
  /// The same of a tile's products, in place.
  template <std::size_t R>
  void take_products(std::size_t first) {
    const CodeScales scales = segment_->scales;
    for (std::size_t r = 0; r < R; ++r) {
      take_exponents(scales, r, first,
                     [&](std::size_t k) { return _mm512_load_ps(exponents_ + r * segment_keys + first + k); });
    }
  }
  /// Of one row's products(k), of sixteen keys from first + k on.
  template <class Products>
  [[gnu::always_inline]] inline void take_exponents(const CodeScales& scales, std::size_t r, std::size_t first,
                                                    const Products& products) {
    __m512 maxima = (__m512)maxima_[r];
    LAZYLLM_UNROLL
    for (std::size_t k = 0; k < key_tile; k += 16) {
      const __m512 exponents = exponents_of(scales, r, first + k, products(k));
      _mm512_store_ps(exponents_ + r * segment_keys + first + k, exponents);
      maxima = _mm512_max_ps(maxima, exponents);
    }
    maxima_[r] = (CodeMaxima)maxima;
  }

  /// Of one row's products of sixteen keys from `key` on.
  [[gnu::always_inline]] inline __m512 exponents_of(const CodeScales& scales, std::size_t r, std::size_t key,
                                                    __m512 products) const {
    const __m512 factor = _mm512_set1_ps(scales.queries[row_ + r] * log2_e);
    return _mm512_fmadd_ps(products, factor, _mm512_loadu_ps(scales.value_logs + key));
  }

  /// Reports the rows' products of a tile, and masks what a row does not see.
  void report_and_mask(std::size_t first) {
    for (std::size_t r = 0; r < rows_; ++r) {
      float* const own = exponents_ + r * segment_keys + first;
      const std::size_t limit = segment_->counts[row_ + r];
      const std::size_t count = limit <= first ? 0 : std::min(key_tile, limit - first);
      if (float* const to = segment_->score_rows[row_ + r]; to != nullptr) {
        for (std::size_t k = 0; k < count; ++k) to[first + k] = own[k] * segment_->scales.queries[row_ + r];
      }
      std::fill(own + count, own + key_tile, -std::numeric_limits<float>::infinity());
    }
  }

  /// Once a row's exponents are made: m, and no weight summed yet.
  void find_shift(std::size_t row) {
    constexpr float log2_252 = 7.97728f;
    const float max = _mm512_reduce_max_ps((__m512)maxima_[row]) - log2_252;
    max_[row] = max * (1.0f / log2_e);
    shifts_[row] = std::max(max, std::numeric_limits<float>::lowest());  // a row that sees no key has weights of 0
    _mm512_store_ps(sums_ + row * sum_lanes, _mm512_setzero_ps());
  }

  /// A row's weights for key_tile keys from `key` on.
  [[gnu::always_inline]] inline void make_weights(std::size_t row, std::size_t key, const CodeScales& scales,
                                                  std::uint8_t* codes) {
    const float* const exponents = exponents_ + row * segment_keys + key;
    const float* const value_inverses = scales.value_inverses + key;
    const float* const fractions = weight_fractions.data() + key;
    float* const lanes = sums_ + row * sum_lanes;
    const __m512 shift = _mm512_set1_ps(shifts_[row]);
    __m512 sum = _mm512_load_ps(lanes);
    __m512i weights[4];
    LAZYLLM_UNROLL
    for (std::size_t c = 0; c < 4; ++c) {
      const __m512 weight = rough_exp2(_mm512_sub_ps(_mm512_load_ps(exponents + 16 * c), shift));
      sum = _mm512_fmadd_ps(weight, _mm512_loadu_ps(value_inverses + 16 * c), sum);
      weights[c] = _mm512_cvttps_epi32(_mm512_add_ps(weight, _mm512_load_ps(fractions + 16 * c)));
    }
    _mm512_store_ps(lanes, sum);
    // Four neighbours stay together, in the order of value_group_place.
    _mm512_storeu_si512(codes, _mm512_packus_epi16(_mm512_packus_epi32(weights[0], weights[1]),
                                                   _mm512_packus_epi32(weights[2], weights[3])));
  }

  void add_maxima() {
    if (segment_->first) {
      std::copy_n(max_, rows_, segment_->state.max + row_);
    } else {
      rescale(Avx512Floats{}, rows_, max_, segment_->state.max + row_, scale_before_, scale_added_);
    }
  }

  /// to, of row r of the panel in the state of `segment`, becomes v, or is rescaled and v added.
  void add_to(const AttentionSegment& segment, __m512 v, std::size_t r, float* to) const {
    if (!segment.first) {
      const __m512 before = _mm512_mul_ps(_mm512_loadu_ps(to), _mm512_set1_ps(scale_before_[r]));
      v = _mm512_fmadd_ps(v, _mm512_set1_ps(scale_added_[r]), before);
    }
    _mm512_storeu_ps(to, v);
  }

  template <std::size_t R>
  void add_weights(const AttentionSegment& segment) const {
    float* const lanes = segment.state.sums + row_ * sum_lanes;
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      add_to(segment, _mm512_load_ps(sums_ + r * sum_lanes), r, lanes + r * sum_lanes);
    }
  }

  /// Adds the R rows' sums of weighed values, C vectors from `column` on.
  template <std::size_t R, std::size_t C>
  [[gnu::always_inline]] inline void add_columns(const AttentionSegment& segment, const CodeSums (&sums)[R][C],
                                                 std::size_t column) const {
    const std::size_t dim = segment.padded_dim;
    float* const out = segment.state.out + row_ * dim + column;
    LAZYLLM_UNROLL
    for (std::size_t r = 0; r < R; ++r) {
      LAZYLLM_UNROLL
      for (std::size_t c = 0; c < C; ++c) {
        add_to(segment, _mm512_cvtepi32_ps((__m512i)sums[r][c]), r, out + r * dim + 16 * c);
      }
    }
  }

  template <std::size_t R>
  void sum_values(WeightCodes& next) const {
    const std::size_t dim = segment_->padded_dim;
    add_weights<R>(*segment_);
    std::size_t column = 0;
    constexpr std::size_t C = R <= 3 ? 4 : 2;  // enough sums at once, and registers left for steps
    for (; column + 16 * C <= dim; column += 16 * C) sum_value_columns<R, C>(column, next);
    for (; column < dim; column += 16) sum_value_columns<R, 1>(column, next);
  }

  /// C vectors from `column` on of the R rows' weighed values.
  template <std::size_t R, std::size_t C>
  void sum_value_columns(std::size_t column, WeightCodes& next) const {
    const std::size_t dim = segment_->padded_dim;
    const auto* values = reinterpret_cast<const std::byte*>(segment_->values) + column * 4;
    CodeSums sums[R][C] = {};
    for (std::size_t k = 0; k < keys_; k += 16) {
      LAZYLLM_UNROLL
      for (std::size_t word = 0; word < 4; ++word) {
        __m512i columns[C];
        LAZYLLM_UNROLL
        for (std::size_t c = 0; c < C; ++c) columns[c] = _mm512_loadu_si512(values + 64 * c);
        values += dim * 4;
        LAZYLLM_UNROLL
        for (std::size_t r = 0; r < R; ++r) {
          __m512i weights = broadcast_word(codes_ + r * segment_keys + k + 4 * word);
          keep_in_order(weights);
          LAZYLLM_UNROLL
          for (std::size_t c = 0; c < C; ++c) {
            sums[r][c] = (CodeSums)_mm512_dpbusd_epi32((__m512i)sums[r][c], weights, columns[c]);
            keep_in_order(sums[r][c]);
          }
        }
      }
      if (!next.complete()) next.step();
    }
    add_columns(*segment_, sums, column);
  }

  alignas(64) float exponents_[panel_rows * segment_keys];  // or products, before that
  alignas(64) std::uint8_t codes_[panel_rows * segment_keys];
  alignas(64) float sums_[panel_rows * sum_lanes];  // lanes of each row's sum of weights
  alignas(64) float scale_before_[16], scale_added_[16];
  CodeMaxima maxima_[panel_rows];
  float max_[panel_rows];     // less log2 of 252, in units of scores
  float shifts_[panel_rows];  // m of each row
  const AttentionSegment* segment_ = nullptr;
  std::size_t row_ = 0, rows_ = 0, keys_ = 0;  // the panel
  std::size_t next_row_ = 0, next_key_ = 0;    // of the next step
};

/// All rows against one segment, for values of codes: a panel's weights are made while the panel before sums its
/// values.
template <class V>
void attend_with_codes(V tag, const AttentionSegment& segment) {
  WeightCodes panels[2];
  WeightCodes *before = &panels[0], *next = &panels[1];
  for_panels(segment, [&](auto rows, std::size_t row) {
    next->template score<rows()>(tag, segment, row, whole_tiles(segment.counts[row + rows() - 1]));
    before->sum_values(*next);
    std::swap(before, next);
  });
  before->sum_values(*next);
}

inline void attend(VnniFloats tag, const AttentionSegment& segment) { attend_with_codes(tag, segment); }

}  // namespace lazyllm::inline v0::detail
LAZYLLM_TARGET_END

#endif
