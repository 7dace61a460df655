// A GGUF file with its tensors in other formats, by way of floats.
#pragma once

#include <lazyllm/io/gguf.hpp>
#include <lazyllm/io/gguf_write.hpp>
#include <lazyllm/quant/any_matrix.hpp>

#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace lazyllm::test {

/// Stored blocks of one format as floats.
inline std::vector<float> stored_floats(std::string_view format, std::span<const std::byte> stored) {
  std::vector<float> values;
  AnyMatrix::with_format(format, [&]<class F>(F) {
    std::vector<typename F::Block> blocks(stored.size() / sizeof(typename F::Block));
    std::memcpy(blocks.data(), stored.data(), stored.size());
    values.resize(blocks.size() * F::block_size);
    F::dequantize(blocks, values);
  });
  return values;
}

/// The file `bytes`, each tensor in the type that `type_of(tensor)` gives. The writer refers to `bytes`.
template <class TypeOf>
GgufWriter requantized(std::span<const std::byte> bytes, const GgufFile& gguf, const TypeOf& type_of) {
  GgufWriter writer;
  for (const GgufEntry& entry : gguf.metadata()) writer.add(entry.key, entry.value);
  for (const GgufTensor& tensor : gguf.tensors()) {
    const std::span<const std::byte> stored = bytes.subspan(gguf.data_offset() + tensor.offset, tensor.size_bytes);
    const GgufType type = type_of(tensor);
    if (type == tensor.type) {
      writer.add_tensor(tensor.name, type, tensor.shape, stored);
      continue;
    }
    const std::vector<float> values = stored_floats(name(tensor.type), stored);
    AnyMatrix::with_format(name(type), [&]<class F>(F) {
      std::vector<typename F::Block> blocks(values.size() / F::block_size);
      F::quantize(values, blocks);
      const std::span<const std::byte> raw = std::as_bytes(std::span(blocks));
      writer.add_tensor(tensor.name, type, tensor.shape, std::vector<std::byte>(raw.begin(), raw.end()));
    });
  }
  return writer;
}

}  // namespace lazyllm::test
