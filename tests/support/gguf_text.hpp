// A GgufFile as text, in the form of the golden files in tests/data/gguf (see tests/golden/make_gguf_golden.py).
// One line for every fact, in the order of the file; floats as their bits, strings as their bytes, tensors as a hash.
// Written for comparison with what the Python package `gguf` says about the same file.
#pragma once

#include <lazyllm/io/gguf.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

namespace test_support {

/// A file of tests/data, whole.
inline std::string read_test_data(const std::string& name) {
  std::ifstream in(std::filesystem::path(LAZYLLM_TEST_DATA) / name, std::ios::binary);
  if (!in) throw std::runtime_error("tests/data/" + name + " cannot be opened");
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::vector<std::byte> to_bytes(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

inline std::string hex(std::uint64_t value, std::size_t digits) {
  std::string text;
  for (std::size_t i = digits; i-- > 0;) text += "0123456789abcdef"[(value >> (4 * i)) & 15u];
  return text;
}

inline std::uint64_t fnv1a(std::span<const std::byte> bytes) {
  std::uint64_t value = 0xcbf29ce484222325u;
  for (const std::byte byte : bytes) value = (value ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3u;
  return value;
}

template <class T>
std::string gguf_scalar_text(const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    std::string text = "x";
    for (const char c : value) text += hex(static_cast<unsigned char>(c), 2);
    return text;
  } else if constexpr (std::is_same_v<T, float>) {
    return hex(std::bit_cast<std::uint32_t>(value), 8);
  } else if constexpr (std::is_same_v<T, double>) {
    return hex(std::bit_cast<std::uint64_t>(value), 16);
  } else {
    return std::to_string(value);
  }
}

inline std::string gguf_value_text(const lazyllm::GgufValue& value) {
  std::string text = lazyllm::type_name(value);
  std::visit(
      [&]<class T>(const T& scalar) {
        if constexpr (!std::is_same_v<T, lazyllm::GgufArray>) {
          text += " " + gguf_scalar_text(scalar);
        } else {
          std::visit(
              [&]<class Element>(const std::vector<Element>& elements) {
                for (const auto& element : elements) text += " " + gguf_scalar_text<Element>(element);
              },
              scalar);
        }
      },
      value);
  return text;
}

/// `bytes` is the whole file.
inline std::string gguf_text(const lazyllm::GgufFile& file, std::span<const std::byte> bytes) {
  std::string text = "version " + std::to_string(file.version()) + "\nalignment " + std::to_string(file.alignment()) +
                     "\ndata_offset " + std::to_string(file.data_offset()) + "\n";
  for (const auto& [key, value] : file.metadata()) text += "key " + key + " " + gguf_value_text(value) + "\n";
  for (const lazyllm::GgufTensor& tensor : file.tensors()) {
    text += "tensor " + tensor.name + " " + std::string(name(tensor.type));
    for (const std::uint64_t dimension : tensor.shape) text += " " + std::to_string(dimension);
    const auto data = bytes.subspan(static_cast<std::size_t>(file.data_offset() + tensor.offset),
                                    static_cast<std::size_t>(tensor.size_bytes));
    text += " offset " + std::to_string(tensor.offset) + " size " + std::to_string(tensor.size_bytes) + " fnv1a " +
            hex(fnv1a(data), 16) + "\n";
  }
  return text;
}

}  // namespace test_support
