// Reads what torch says about the next token (tests/golden/make_llama_golden.py, which describes the file format) and
// estimates KL(torch || ours) from it: exact over the top tokens, unbiased over the tail.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace lazyllm::test {

/// One position: torch's distribution over the next token.
struct GoldenPosition {
  std::vector<float> top_log_p;  // descending
  std::vector<std::uint16_t> top;
  double tail_log_mass = 0;  // log of the probability of all other tokens
  std::vector<float> sample_log_p;
  std::vector<std::uint16_t> samples;  // drawn from the tail, in proportion to p

  [[nodiscard]] double margin() const { return double{top_log_p[0]} - double{top_log_p[1]}; }
};

struct GoldenPrompt {
  std::string name;
  std::size_t vocab_size = 0;
  std::vector<std::int32_t> ids;
  std::vector<GoldenPosition> positions;  // the last ones of the prompt
};

inline GoldenPrompt read_golden(const std::filesystem::path& path) {
  static_assert(std::endian::native == std::endian::little);
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  std::size_t offset = 0;
  const auto read = [&]<class T>(T, std::size_t count) {
    std::vector<T> values(count);
    if (count * sizeof(T) > bytes.size() - offset) throw std::runtime_error(path.string() + " is truncated");
    std::memcpy(values.data(), bytes.data() + offset, count * sizeof(T));
    offset += count * sizeof(T);
    return values;
  };
  const std::vector<char> magic = read(char{}, 8);
  if (std::string(magic.begin(), magic.end()) != "LLGOLD01") throw std::runtime_error(path.string() + ": wrong magic");
  const std::vector<std::uint32_t> sizes = read(std::uint32_t{}, 5);

  GoldenPrompt prompt{.name = path.stem().string(), .vocab_size = sizes[0], .ids = {}, .positions = {}};
  for (const std::uint16_t id : read(std::uint16_t{}, sizes[1])) prompt.ids.push_back(id);
  for (std::uint32_t n = 0; n < sizes[2]; ++n) {
    GoldenPosition position;
    position.top_log_p = read(float{}, sizes[3]);
    position.top = read(std::uint16_t{}, sizes[3]);
    position.tail_log_mass = double{read(float{}, 1)[0]};
    position.sample_log_p = read(float{}, sizes[4]);
    position.samples = read(std::uint16_t{}, sizes[4]);
    prompt.positions.push_back(std::move(position));
  }
  if (offset != bytes.size()) throw std::runtime_error(path.string() + " is longer than its header says");
  return prompt;
}

/// log of the sum of exp(logit).
inline double log_sum_exp(std::span<const float> logits) {
  const double largest = double{*std::max_element(logits.begin(), logits.end())};
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - largest);
  return largest + std::log(sum);
}

/// KL(softmax(p) || softmax(q)) of two rows of logits.
inline double kl_divergence(std::span<const float> p, std::span<const float> q) {
  const double p_sum = log_sum_exp(p), q_sum = log_sum_exp(q);
  double kl = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double log_p = double{p[i]} - p_sum;
    kl += std::exp(log_p) * (log_p - (double{q[i]} - q_sum));
  }
  return kl;
}

/// KL(torch || ours) at one position; logits [vocab_size]. With r = q / p:
/// sum_top p (log p - log q) + P * mean over the samples of (r - 1 - log r) + P - Q, P and Q the tails' masses.
inline double golden_kl(const GoldenPosition& position, std::span<const float> logits) {
  const double log_sum = log_sum_exp(logits);

  double kl = 0;
  double tail_q = 1;
  for (std::size_t i = 0; i < position.top.size(); ++i) {
    const double log_p = double{position.top_log_p[i]};
    const double log_q = double{logits[position.top[i]]} - log_sum;
    kl += std::exp(log_p) * (log_p - log_q);
    tail_q -= std::exp(log_q);
  }
  double tail = 0;
  for (std::size_t i = 0; i < position.samples.size(); ++i) {
    const double log_r = double{logits[position.samples[i]]} - log_sum - double{position.sample_log_p[i]};
    tail += std::expm1(log_r) - log_r;
  }
  const double tail_p = std::exp(position.tail_log_mass);
  return kl + tail_p * tail / static_cast<double>(position.samples.size()) + tail_p - tail_q;
}

}  // namespace lazyllm::test
