// Slow, obvious double-precision matmul oracles and random weights for the tests of quant.
#pragma once

#include <lazyllm/core/float16.hpp>
#include <lazyllm/core/matrix_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

namespace lazyllm::test {

inline std::vector<float> random_floats(std::size_t count, float limit, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-limit, limit);
  std::vector<float> values(count);
  for (float& v : values) v = uniform(engine);
  return values;
}

/// Blocks of F holding `values`, as the bytes of a file.
template <class F>
std::vector<std::byte> store(std::span<const float> values) {
  std::vector<typename F::Block> blocks(values.size() / F::block_size);
  F::quantize(values, blocks);
  std::vector<std::byte> bytes(blocks.size() * sizeof(typename F::Block));
  if (!bytes.empty()) std::memcpy(bytes.data(), blocks.data(), bytes.size());
  return bytes;
}

/// The weights that the stored blocks stand for.
template <class F>
std::vector<float> weights_of(std::span<const std::byte> stored) {
  std::vector<typename F::Block> blocks(stored.size() / sizeof(typename F::Block));
  if (!blocks.empty()) std::memcpy(blocks.data(), stored.data(), stored.size());
  std::vector<float> values(blocks.size() * F::block_size);
  F::dequantize(blocks, values);
  return values;
}

/// One row as scale * code per block of 32, in double: scale = m / 127 with m the largest magnitude, code = the nearest
/// integer (to even).
inline std::vector<double> quantized_row(std::span<const float> x) {
  std::vector<double> values(x.size());
  for (std::size_t first = 0; first < x.size(); first += 32) {
    double largest = 0;
    for (std::size_t i = first; i < first + 32; ++i) largest = std::max(largest, std::abs(static_cast<double>(x[i])));
    const double scale = largest / 127;
    for (std::size_t i = first; i < first + 32; ++i) {
      values[i] = scale == 0 ? 0 : scale * std::nearbyint(static_cast<double>(x[i]) / scale);
    }
  }
  return values;
}

struct Product {
  double value = 0;
  double magnitude = 0;  // sum of the terms' magnitudes
};

template <class X>
Product dot(std::span<const X> x, std::span<const float> w) {
  Product product;
  for (std::size_t k = 0; k < x.size(); ++k) {
    const double term = static_cast<double>(x[k]) * static_cast<double>(w[k]);
    product.value += term;
    product.magnitude += std::abs(term);
  }
  return product;
}

}  // namespace lazyllm::test
