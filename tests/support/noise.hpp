// Normally distributed numbers, the same for a seed.
#pragma once

#include <cstddef>
#include <random>
#include <vector>

namespace lazyllm::test {

inline std::vector<float> noise(std::size_t count, unsigned seed, float deviation = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random) * deviation;
  return values;
}

}  // namespace lazyllm::test
