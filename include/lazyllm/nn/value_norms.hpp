// How large the values of some tokens are: the sum of the magnitudes of each value row, as it is stored.
// norms [heads, tokens]: of the KV head that each query head reads.
// Source: VATP, arXiv 2406.12335, section 3 (the L1 norm).
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/kv_store.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/row_element.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/parallel/executor.hpp>

#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <span>

namespace lazyllm::inline v0 {

namespace detail {

/// Sum of the magnitudes of a stored row of n numbers; its bits depend on the row alone.
template <RowElement Element>
float row_magnitude(const Element* row, std::size_t n) {
  if constexpr (std::same_as<Element, Int8>) {
    const std::int8_t* const codes = row_codes(row);
    std::int32_t sum = 0;  // at most 127 n
    for (std::size_t i = 0; i < n; ++i) sum += std::abs(std::int32_t{codes[i]});
    return row_scale(row) * static_cast<float>(sum);
  } else {
    std::array<float, 16> lanes{};  // make vectors
    const auto add = [&](std::size_t lane, Element x) {
      if constexpr (std::same_as<Element, float>) {
        lanes[lane] += std::abs(x);
      } else {
        lanes[lane] += std::abs(to_float(x));
      }
    };
    const std::size_t whole = n - n % lanes.size();
    for (std::size_t i = 0; i < whole; i += lanes.size()) {
      for (std::size_t lane = 0; lane < lanes.size(); ++lane) add(lane, row[i + lane]);
    }
    for (std::size_t i = whole; i < n; ++i) add(i - whole, row[i]);
    return std::accumulate(lanes.begin(), lanes.end(), 0.0f);
  }
}

}  // namespace detail

/// norms [heads, tokens], heads a multiple of the reader's KV heads; the tokens are stored in kv.
/// O(kv_heads * tokens * head_dim), no allocation.
template <KeyValueReader KV, Executor E>
void value_norms(const KV& kv, std::span<const TokenIndex> tokens, Rows norms, E& executor) {
  const std::size_t kv_heads = kv.kv_head_count(), group = norms.rows() / kv_heads;
  LAZYLLM_EXPECTS(norms.rows() == kv_heads * group && norms.cols() == tokens.size());
  executor.parallel_for(kv_heads, [&](std::size_t begin, std::size_t end) {
    for (std::size_t kv_head = begin; kv_head < end; ++kv_head) {
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        const float norm = detail::row_magnitude(kv.value(kv_head, tokens[i]), kv.head_dim());
        for (std::size_t g = 0; g < group; ++g) norms.row(kv_head * group + g)[i] = norm;
      }
    }
  });
}

}  // namespace lazyllm::inline v0
