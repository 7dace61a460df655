// Rotary position embedding: pairs of a head's elements turn by an angle proportional to the token's position.
// Pair i of d / 2 has the angle position / (base^(2i / d) * factor[i]); which elements form a pair is the RopePairing.
// Source: Su et al., arXiv 2104.09864.
#pragma once

#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/nn/kernels/elementwise.hpp>
#include <lazyllm/parallel/executor.hpp>
#include <lazyllm/simd/dispatch.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace lazyllm::inline v0 {

enum class RopePairing {
  neighbours,  ///< (2i, 2i + 1): Llama in GGUF
  halves,      ///< (i, i + d / 2): NeoX, Qwen, Hugging Face
};

/// Cosines and sines of every pair's angle, computed in double. Positions below `capacity()` are stored (4 * rotary_dim
/// bytes each), others are computed per call: the same bits, slower. Const use is thread-safe.
class RopeTable {
 public:
  /// frequency_factors: one a pair (`rope_freqs.weight`), or empty for 1.
  RopeTable(std::size_t rotary_dim, float base, std::span<const float> frequency_factors = {})
      : frequencies_(rotary_dim / 2) {
    const std::size_t pairs = rotary_dim / 2;
    if (rotary_dim == 0 || rotary_dim % 2 != 0) {
      throw Error(ErrorCode::invalid_argument,
                  "RoPE dimension " + std::to_string(rotary_dim) + " is not a positive even number");
    }
    if (!(base > 0.0f) || !std::isfinite(base)) {
      throw Error(ErrorCode::invalid_argument, "RoPE base " + std::to_string(base) + " is not a positive number");
    }
    if (!frequency_factors.empty() && frequency_factors.size() != pairs) {
      throw Error(ErrorCode::invalid_argument, "RoPE frequency factors: " + std::to_string(frequency_factors.size()) +
                                                   " given, " + std::to_string(pairs) + " pairs");
    }
    for (std::size_t i = 0; i < pairs; ++i) {
      const double factor = frequency_factors.empty() ? 1.0 : static_cast<double>(frequency_factors[i]);
      if (!(factor > 0.0)) {
        throw Error(ErrorCode::invalid_argument,
                    "RoPE frequency factor " + std::to_string(i) + " is " + std::to_string(factor));
      }
      const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim);
      frequencies_[i] = 1.0 / (std::pow(static_cast<double>(base), exponent) * factor);
    }
  }

  [[nodiscard]] std::size_t rotary_dim() const { return 2 * frequencies_.size(); }
  [[nodiscard]] std::size_t capacity() const { return turns_.size() / rotary_dim(); }

  /// Stores positions below `capacity`. Not while another thread uses the table.
  void reserve(std::size_t capacity) {
    const std::size_t pairs = frequencies_.size();
    const std::size_t before = this->capacity();
    if (capacity <= before) return;
    turns_.resize(capacity * 2 * pairs);
    for (std::size_t position = before; position < capacity; ++position) {
      float* row = turns_.data() + position * 2 * pairs;
      compute(static_cast<TokenIndex>(position), 0, pairs, row, row + pairs);
    }
  }

  /// Cosines and sines of pairs first .. first + count - 1 at a position, into the caller's arrays.
  void turn(TokenIndex position, std::size_t first, std::size_t count, float* cosines, float* sines) const {
    if (position >= capacity()) return compute(position, first, count, cosines, sines);
    const float* row = turns_.data() + position * rotary_dim() + first;
    std::copy_n(row, count, cosines);
    std::copy_n(row + frequencies_.size(), count, sines);
  }

 private:
  void compute(TokenIndex position, std::size_t first, std::size_t count, float* cosines, float* sines) const {
    for (std::size_t i = 0; i < count; ++i) {
      const double angle = static_cast<double>(position) * frequencies_[first + i];
      cosines[i] = static_cast<float>(std::cos(angle));
      sines[i] = static_cast<float>(std::sin(angle));
    }
  }

  std::vector<double> frequencies_;  // radians a position, [pairs]
  std::vector<float> turns_;         // [position, cosines of all pairs then sines]
};

namespace detail {
template <class V>
void rope_row(V floats, const RopeTable& table, RopePairing pairing, TokenIndex position, std::size_t head_dim,
              std::span<float> row);
}  // namespace detail

/// x [rows, heads * head_dim]: rotates the first table.rotary_dim() elements of each head of row r by positions[r],
/// in place. No allocation.
template <Executor E>
void rope(const RopeTable& table, RopePairing pairing, std::span<const TokenIndex> positions, std::size_t head_dim,
          Rows x, E& executor, Isa isa = active_isa()) {
  LAZYLLM_EXPECTS(positions.size() == x.rows() && table.rotary_dim() <= head_dim && x.cols() % head_dim == 0);
  dispatch_float(isa, [&](auto tag) {
    detail::for_rows(x.rows(), x.cols(), executor, [&](std::size_t begin, std::size_t end) {
      for (std::size_t r = begin; r < end; ++r) {
        detail::rope_row(detail::Floats<decltype(tag)::value>{}, table, pairing, positions[r], head_dim, x.row(r));
      }
    });
  });
}

namespace detail {

template <class V>
void rope_row(V floats, const RopeTable& table, RopePairing pairing, TokenIndex position, std::size_t head_dim,
              std::span<float> row) {
  constexpr std::size_t chunk = 128;  // pairs at a time, so that any rotary_dim needs no allocation
  std::array<float, chunk> cosines;
  std::array<float, chunk> sines;
  std::array<float, 2 * chunk> wide_cosines;
  std::array<float, 2 * chunk> wide_sines;
  const std::size_t pairs = table.rotary_dim() / 2;
  for (std::size_t first = 0; first < pairs; first += chunk) {
    const std::size_t count = std::min(chunk, pairs - first);
    table.turn(position, first, count, cosines.data(), sines.data());
    if (pairing == RopePairing::neighbours) {
      for (std::size_t i = 0; i < count; ++i) {
        wide_cosines[2 * i] = wide_cosines[2 * i + 1] = cosines[i];
        wide_sines[2 * i] = -sines[i];
        wide_sines[2 * i + 1] = sines[i];
      }
    }
    for (std::size_t head = 0; head < row.size(); head += head_dim) {
      float* x = row.data() + head;
      if (pairing == RopePairing::neighbours) {
        rotate_neighbours(floats, wide_cosines.data(), wide_sines.data(), x + 2 * first, 2 * count);
      } else {
        rotate_halves(floats, cosines.data(), sines.data(), x + first, x + first + pairs, count);
      }
    }
  }
}

}  // namespace detail

}  // namespace lazyllm::inline v0
