// Which model a GGUF file is: one number from its header (metadata and tensor table) and from samples of every tensor.
// Fast enough for each load: it reads the header and a few cache lines a tensor.
// Source: this library's.
#pragma once

#include <lazyllm/core/checksum.hpp>
#include <lazyllm/io/gguf.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace lazyllm::inline v0 {

/// `bytes` are the whole file's, `gguf` what was parsed from them. Files that differ only in weights that are not
/// sampled have the same fingerprint.
[[nodiscard]] inline std::uint64_t fingerprint(std::span<const std::byte> bytes, const GgufFile& gguf) {
  constexpr std::size_t samples = 4, sample_bytes = 256;
  const auto header = std::min<std::size_t>(bytes.size(), static_cast<std::size_t>(gguf.data_offset()));
  std::uint64_t sum = checksum(bytes.first(header));
  for (const GgufTensor& tensor : gguf.tensors()) {
    const std::uint64_t begin = gguf.data_offset() + tensor.offset;
    if (begin > bytes.size() || tensor.size_bytes > bytes.size() - begin) continue;  // loading refuses it
    const auto data = bytes.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(tensor.size_bytes));
    const std::size_t size = std::min(sample_bytes, data.size());
    const std::size_t stride = (data.size() - size) / (samples - 1);  // the first and the last bytes are among them
    for (std::size_t i = 0; i + 1 < samples; ++i) sum = checksum(data.subspan(i * stride, size), sum);
    sum = checksum(data.last(size), sum);
  }
  return sum;
}

}  // namespace lazyllm::inline v0
