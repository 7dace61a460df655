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

/// About 100,000 normally distributed values.
inline std::vector<float> normal_values() {
  std::mt19937 engine(23);
  std::normal_distribution<float> normal;
  std::vector<float> values(256 * 400);
  for (float& v : values) v = normal(engine);
  return values;
}

template <class F>
double root_mean_square_error() {
  const std::vector<float> values = normal_values();
  double sum = 0;
  for (const float error : errors_of<F>(values)) sum += double{error} * double{error};
  return std::sqrt(sum / static_cast<double>(values.size()));
}

/// `steps(super_block)`: upper bounds of the steps of each sub-block's grid. Errors spread evenly over a step have the
/// mean square step^2 / 12; that of 100,000 of them deviates by 0.3 %, so 1 % is out of reach.
template <class F, class Steps>
void check_mean_square_error(const Steps& steps) {
  const std::vector<float> values = normal_values(), errors = errors_of<F>(values);
  double sum = 0, expected = 0;
  for (const float error : errors) sum += double{error} * double{error};
  for (std::size_t first = 0; first < values.size(); first += 256) {
    const std::vector<double> of_block = steps(std::span(values).subspan(first, 256));
    for (const double step : of_block) expected += step * step / 12 * 256 / static_cast<double>(of_block.size());
  }
  CHECK(sum <= 1.01 * expected);
}

/// An upper bound of `value` rounded up to half precision.
inline double rounded_up_to_half(double value) { return value * (1 + 0x1p-10) + 0x1p-24; }

/// Steps of super blocks whose weights are d * scale * code - d_min * minimum. d_min is the largest depth below zero
/// / 63, d the largest width / levels / 63, both rounded up to halves. A sub-block's grid that reaches its lowest value
/// (or zero) and its highest has the width high + minimum, minimum <= depth + d_min, and a step <= width / levels + d.
inline std::vector<double> affine_steps(std::span<const float> values, int levels) {
  std::vector<double> depth(8), high(8), steps(8);
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
  for (std::size_t s = 0; s < 8; ++s) steps[s] = (high[s] + depth[s] + d_min) / levels + d;
  return steps;
}

/// Errors of that grid are at most half a step; the one that was chosen has a sum of squares that is not larger.
template <class F>
void check_affine_errors(std::span<const float> values, int levels) {
  const std::vector<float> errors = errors_of<F>(values);
  const std::vector<double> steps = affine_steps(values, levels);
  for (std::size_t s = 0; s < 8; ++s) {
    double sum = 0;
    for (std::size_t i = s * 32; i < (s + 1) * 32; ++i) sum += double{errors[i]} * double{errors[i]};
    CHECK(sum <= 32 * steps[s] * steps[s] / 4 * (1 + 1e-4));
  }
}

}  // namespace lazyllm::test
