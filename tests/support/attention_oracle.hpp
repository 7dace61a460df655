// Attention in double precision, one row and head at a time, with a bound for what float arithmetic may differ by.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/nn/attention.hpp>
#include <lazyllm/simd/isa.hpp>
#include <random>
#include <span>
#include <vector>

namespace lazyllm::test {

/// K and V in two plain arrays [kv_head, token, head_dim].
template <RowElement Element = float>
struct ArrayKv {
  ArrayKv(std::size_t heads, std::size_t tokens, std::size_t dim)
      : heads_(heads), tokens_(tokens), dim_(dim), keys(heads * tokens * dim), values(keys.size()) {}

  [[nodiscard]] std::size_t at(std::size_t kv_head, TokenIndex token) const {
    return (kv_head * tokens_ + token) * dim_;
  }
  [[nodiscard]] const Element* key(std::size_t kv_head, TokenIndex token) const { return &keys[at(kv_head, token)]; }
  [[nodiscard]] const Element* value(std::size_t kv_head, TokenIndex token) const {
    return &values[at(kv_head, token)];
  }
  [[nodiscard]] std::size_t kv_head_count() const { return heads_; }
  [[nodiscard]] std::size_t head_dim() const { return dim_; }

  std::size_t heads_, tokens_, dim_;
  std::vector<Element> keys, values;
};
static_assert(KeyValueReader<ArrayKv<>> && KeyValueReader<ArrayKv<BFloat16>>);

inline void put(float& to, float value) { to = value; }
inline void put(BFloat16& to, float value) { to = to_bfloat16(value); }

/// The numbers of a stored row.
template <RowElement Element>
std::vector<double> exact_row(const Element* stored, std::size_t dim) {
  std::vector<float> row(dim);
  decode_row(stored, std::span(row));
  return {row.begin(), row.end()};
}

/// Numbers of rows that share a call: each up to two panels and two splits, then around whole panels and blocks.
inline constexpr std::size_t few_and_many_rows[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13,
                                                    16, 17, 18, 24, 25, 32, 33, 48, 49, 64, 65, 70};

/// Relative error of the exponential where weights are codes.
inline constexpr double code_weight_error = 1.8e-3;

/// What attention rounds its operands to.
struct OperandRounding {
  double score = 0.0;         // relative error of a product of query and key
  double weighed = 0.0;       // of a product of weight and value
  bool query_codes = false;   // queries to 8 bits
  bool weight_codes = false;  // weights to 8 bits
};

/// Of keys and values that are bfloat16 or codes: to bfloat16, codes too, unless both are codes, or values on
/// AVX-512-BF16.
template <RowElement Key, RowElement Value>
OperandRounding operand_rounding(Isa isa, std::size_t head_dim) {
  constexpr bool code_keys = std::same_as<Key, Int8>, code_values = std::same_as<Value, Int8>;
  const bool vnni = isa == Isa::avx512vnni || isa == Isa::avx512bf16;
  if (code_keys && code_values && vnni) return {.query_codes = true, .weight_codes = true};
  const bool in_pairs = detail::in_bfloat16_pairs<Key> && detail::in_bfloat16_pairs<Value> && head_dim % 32 == 0;
  if (!in_pairs || (isa != Isa::avx512bf16 && isa != Isa::amx)) return {.query_codes = code_keys && vnni};
  const double both = 2 * 0x1p-8 + 0x1p-16, one = 0x1p-8;
  OperandRounding rounding{.score = code_keys ? both : one, .weighed = code_values ? both : one};
  if (code_values && isa == Isa::avx512bf16) {
    rounding.weighed = 0.0;
    rounding.weight_codes = true;
  }
  return rounding;
}

/// The scale of a value of 8 bits.
template <KeyValueReader KV>
double value_scale(const KV& kv, std::size_t kv_head, TokenIndex token) {
  if constexpr (std::same_as<ValueElementOf<KV>, Int8>) return double{detail::row_scale(kv.value(kv_head, token))};
  return 0.0;
}

struct AttentionAnswer {
  std::vector<double> out;            // [head_dim]
  std::vector<double> out_bound;      // [head_dim] largest difference that float arithmetic explains
  std::vector<double> probabilities;  // [keys]
  double probability_bound = 0.0;     // relative
};

/// One query (of one head) against the keys <= position. `exact_scores`: inputs whose products and sums are exact.
template <KeyValueReader KV>
AttentionAnswer attention_oracle(std::span<const float> query, double scale, TokenIndex position,
                                 std::span<const TokenIndex> keys, const KV& kv, std::size_t kv_head,
                                 OperandRounding rounding, bool exact_scores = false) {
  constexpr double unit = 0x1p-24;  // relative error of one float operation
  const std::size_t dim = query.size();
  AttentionAnswer answer;
  answer.out.assign(dim, 0.0);
  answer.out_bound.assign(dim, 0.0);
  answer.probabilities.assign(keys.size(), 0.0);
  std::vector<double> scores(keys.size(), -HUGE_VAL);
  double max = -HUGE_VAL;
  double score_error = 0.0;
  double largest_query = 0.0;
  for (const float q : query) largest_query = std::fmax(largest_query, std::fabs(scale * static_cast<double>(q)));
  std::vector<double> query_error(dim, 0.0);
  for (std::size_t i = 0; i < dim && rounding.query_codes && largest_query > 0.0; ++i) {
    const double steps = scale * static_cast<double>(query[i]) * 127.0 / largest_query;
    query_error[i] = (std::fabs(steps - std::nearbyint(steps)) + 127 * 4 * unit) * largest_query / 127.0;
  }
  for (std::size_t k = 0; k < keys.size() && keys[k] <= position; ++k) {
    double dot = 0.0;
    double magnitude = 0.0;
    double code_error = 0.0;
    const std::vector<double> key = exact_row(kv.key(kv_head, keys[k]), dim);
    for (std::size_t i = 0; i < dim; ++i) {
      const double product = scale * static_cast<double>(query[i]) * key[i];
      dot += product;
      magnitude += std::fabs(product);
      code_error += query_error[i] * std::fabs(key[i]);
    }
    scores[k] = dot;
    max = std::fmax(max, dot);
    // One rounding of query * scale, two a dimension (one with fma), one of score - max.
    score_error = std::fmax(score_error,
                            ((2.0 * static_cast<double>(dim) + 2.0) * unit + rounding.score) * magnitude + code_error);
  }
  if (exact_scores) score_error = 0.0;
  double sum = 0.0;
  for (std::size_t k = 0; k < keys.size(); ++k) sum += answer.probabilities[k] = std::exp(scores[k] - max);
  for (double& p : answer.probabilities) p /= sum;
  // Numerator and denominator: a score's error each, the exponential's 3e-7 each, rescaling by a rising maximum (at
  // most one exponential and one product a tile of 64 keys and a merge a segment), summing n terms. With codes the
  // exponential of a weight is off by more.
  const double exponential = rounding.weight_codes ? code_weight_error : 0.0;
  const double tiles = static_cast<double>(keys.size()) / 64.0 + 1.0;
  answer.probability_bound = 2.0 * (std::expm1(2.0 * score_error) + 3e-7 * (1.0 + 2.0 * tiles) + exponential) +
                             (static_cast<double>(keys.size()) + 8.0) * unit;
  std::vector<double> magnitude(dim, 0.0);
  std::vector<double> underflow(dim, 0.0);
  std::vector<double> code_error(dim, 0.0);
  double code_step = 0.0;  // of a segment: 1 / 251 of its largest probability times its value's scale
  for (std::size_t k = 0; k < keys.size() && keys[k] <= position; ++k) {
    if (rounding.weight_codes && k % detail::segment_keys == 0) {
      code_step = 0.0;
      for (std::size_t j = k; j < std::min(k + detail::segment_keys, keys.size()) && keys[j] <= position; ++j) {
        code_step = std::fmax(code_step, answer.probabilities[j] * value_scale(kv, kv_head, keys[j]) / 251.0);
      }
      code_step *= 1.0 + answer.probability_bound;
    }
    const std::vector<double> value = exact_row(kv.value(kv_head, keys[k]), dim);
    for (std::size_t i = 0; i < dim; ++i) {
      const double term = answer.probabilities[k] * value[i];
      answer.out[i] += term;
      magnitude[i] += std::fabs(term);
      underflow[i] += 0x1p-126 * std::fabs(value[i]);  // where a weight is under the smallest normal number, it is 0
      // A weight is off by less than a step, and times the value's code.
      if (rounding.weight_codes && value[i] != 0.0)
        code_error[i] += code_step * std::fabs(value[i]) / value_scale(kv, kv_head, keys[k]);
    }
  }
  for (std::size_t i = 0; i < dim; ++i) {
    answer.out_bound[i] = magnitude[i] * (answer.probability_bound + rounding.weighed +
                                          2.0 * (static_cast<double>(keys.size()) + 8.0) * unit) +
                          code_error[i] + underflow[i] + 1e-37;
  }
  return answer;
}

template <RowElement Element>
void fill_normal(std::vector<Element>& values, std::mt19937& random) {
  std::normal_distribution<float> normal;
  for (Element& value : values) put(value, normal(random));
}

}  // namespace lazyllm::test
