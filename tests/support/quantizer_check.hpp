// Checks of quantisers that have no reference: errors against bounds that follow from a format's steps.
#pragma once

#include <doctest/doctest.h>

#include <lazyllm/core/float16.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <span>
#include <vector>

namespace lazyllm::test {

/// Super blocks of 256 values: ordinary ones of several magnitudes, of one sign, zeros, an outlier, constants, and
/// sub-blocks of very different magnitudes.
inline std::vector<std::vector<float>> super_blocks() {
  std::mt19937 engine(17);
  std::normal_distribution<float> normal;
  const auto make = [](auto&& value) {
    std::vector<float> values(256);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = value(i);
    return values;
  };
  std::vector<std::vector<float>> blocks;
  for (const float size : {1e-3f, 0.02f, 1.0f, 100.0f}) {
    for (int i = 0; i < 5; ++i) blocks.push_back(make([&](std::size_t) { return size * normal(engine); }));
  }
  blocks.push_back(make([&](std::size_t) { return std::abs(normal(engine)) + 1.0f; }));
  blocks.push_back(make([&](std::size_t) { return -std::abs(normal(engine)) - 1.0f; }));
  blocks.push_back(make([](std::size_t) { return 0.0f; }));
  blocks.push_back(make([](std::size_t) { return 0.75f; }));
  blocks.push_back(make([](std::size_t) { return -3.0f; }));
  blocks.push_back(make([&](std::size_t i) { return i == 77 ? 500.0f : normal(engine); }));
  blocks.push_back(make([&](std::size_t i) { return normal(engine) * std::ldexp(1.0f, -static_cast<int>(i / 32)); }));
  blocks.push_back(make([&](std::size_t) { return 1e-9f * normal(engine); }));  // too small for a half
  return blocks;
}

template <class F>
std::vector<float> errors_of(std::span<const float> values) {
  std::vector<typename F::Block> blocks(values.size() / F::block_size);
  std::vector<float> errors(values.size());
  F::quantize(values, blocks);
  F::dequantize(blocks, errors);
  for (std::size_t i = 0; i < values.size(); ++i) errors[i] -= values[i];
  return errors;
}

/// Of 100,000 normally distributed values.
template <class F>
double root_mean_square_error() {
  std::mt19937 engine(23);
  std::normal_distribution<float> normal;
  std::vector<float> values(256 * 400);
  for (float& v : values) v = normal(engine);
  double sum = 0;
  for (const float error : errors_of<F>(values)) sum += double{error} * double{error};
  return std::sqrt(sum / static_cast<double>(values.size()));
}

/// An upper bound of `value` rounded up to half precision.
inline double rounded_up_to_half(double value) { return value * (1 + 0x1p-10) + 0x1p-24; }

/// Super blocks whose weights are d * scale * code - d_min * minimum. d_min is the largest depth below zero / 63, d the
/// largest width / levels / 63, both rounded up to halves. A sub-block's grid that reaches its lowest value (or zero)
/// and its highest has the width high + minimum, minimum <= depth + d_min, a step <= width / levels + d, and errors of
/// at most half a step; the one that was chosen has a sum of squares that is not larger.
template <class F>
void check_affine_errors(std::span<const float> values, int levels) {
  const std::vector<float> errors = errors_of<F>(values);
  std::vector<double> depth(8), high(8);
  for (std::size_t s = 0; s < 8; ++s) {
    const auto [low, top] = std::minmax_element(values.begin() + static_cast<std::ptrdiff_t>(s * 32),
                                                values.begin() + static_cast<std::ptrdiff_t>((s + 1) * 32));
    depth[s] = std::max(-double{*low}, 0.0);
    high[s] = double{*top};
  }
  const double d_min = rounded_up_to_half(*std::max_element(depth.begin(), depth.end()) / 63);
  double widest = 0;
  for (std::size_t s = 0; s < 8; ++s) widest = std::max(widest, high[s] + depth[s] + d_min);
  const double d = rounded_up_to_half(widest / levels / 63);
  for (std::size_t s = 0; s < 8; ++s) {
    double sum = 0;
    for (std::size_t i = s * 32; i < (s + 1) * 32; ++i) sum += double{errors[i]} * double{errors[i]};
    const double step = (high[s] + depth[s] + d_min) / levels + d;
    CHECK(sum <= 32 * step * step / 4 * (1 + 1e-4));
  }
}

}  // namespace lazyllm::test
