// tests/data/quant_golden.bin (made by tests/golden/make_quant_golden.py): values quantised and dequantised by `gguf`.
#pragma once

#include <doctest/doctest.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

namespace lazyllm::test {

/// The sections of the file, by format.
class QuantGolden {
 public:
  template <class Block>
  struct Section {
    std::vector<float> values;         // input of quantize
    std::vector<Block> quantized;      // its blocks
    std::vector<float> dequantized;    // and what they stand for
    std::vector<Block> random;         // any codes and any finite scales
    std::vector<float> random_floats;  // what those stand for
  };

  QuantGolden() : file_(std::filesystem::path(LAZYLLM_TEST_DATA) / "quant_golden.bin", std::ios::binary) {
    REQUIRE(file_.is_open());
  }

  template <class F>
  Section<typename F::Block> section() {
    file_.seekg(0);
    for (std::string name; name != F::name;) {
      const std::vector<char> padded = read<char>(8);
      const std::uint32_t size = read<std::uint32_t>(1)[0];
      name = std::string(padded.data(), ::strnlen(padded.data(), padded.size()));
      if (name != F::name) file_.seekg(size, std::ios::cur);
    }
    Section<typename F::Block> section;
    const std::size_t count = read<std::uint32_t>(1)[0];
    section.values = read<float>(count);
    section.quantized = read<typename F::Block>(count / F::block_size);
    section.dequantized = read<float>(count);
    const std::size_t random = read<std::uint32_t>(1)[0];
    section.random = read<typename F::Block>(random / F::block_size);
    section.random_floats = read<float>(random);
    return section;
  }

 private:
  template <class T>
  std::vector<T> read(std::size_t count) {
    std::vector<T> data(count);
    file_.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(count * sizeof(T)));
    REQUIRE(file_.good());
    return data;
  }

  std::ifstream file_;
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// quantize and dequantize give the bits of the reference; a section without values says nothing about quantize.
template <class F>
void check_against_golden() {
  using Block = typename F::Block;
  const QuantGolden::Section<Block> golden = QuantGolden().section<F>();
  std::vector<Block> blocks(golden.quantized.size());
  F::quantize(golden.values, blocks);
  CHECK(same_bits(blocks, golden.quantized));
  std::vector<float> values(golden.dequantized.size());
  F::dequantize(golden.quantized, values);
  CHECK(same_bits(values, golden.dequantized));
  std::vector<float> random(golden.random_floats.size());
  F::dequantize(golden.random, random);
  CHECK(same_bits(random, golden.random_floats));
}

}  // namespace lazyllm::test
