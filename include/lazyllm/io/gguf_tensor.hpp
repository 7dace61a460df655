// One tensor of a GGUF file: name, element type, shape, and where its bytes lie in the data section.
// The shape is kept as stored: shape[0] is the contiguous dimension, so a weight [out, in] has shape {in, out}.
// Format: the GGUF specification of the ggml project.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/io/gguf_type.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lazyllm::inline v0 {

/// `size_bytes` bytes at `offset` from the start of the data section.
struct GgufTensor {
  std::string name;
  GgufType type = GgufType::f32;
  std::vector<std::uint64_t> shape;  ///< 1 to 4 dimensions, none of them 0; shape[0] is contiguous
  std::uint64_t offset = 0;
  std::uint64_t size_bytes = 0;
};

/// The bytes that a tensor of this type and shape takes. Throws Error that names the tensor: unsupported for a type
/// that is not known; malformed for a number of dimensions other than 1 to 4, a dimension of 0, rows that are not whole
/// blocks, or a size beyond 64 bits.
[[nodiscard]] std::uint64_t tensor_size_bytes(std::string_view name, GgufType type,
                                              std::span<const std::uint64_t> shape);

namespace detail {

inline constexpr std::size_t gguf_max_dimensions = 4;
inline constexpr std::uint64_t gguf_default_alignment = 32;
inline constexpr std::string_view gguf_alignment_key = "general.alignment";

/// A key or name from a file, fit for a message: printable and at most 64 characters.
inline std::string gguf_quoted(std::string_view name) {
  constexpr std::size_t longest = 64;
  std::string text(name.substr(0, longest));
  for (char& c : text) {
    if (c < ' ' || c > '~') c = '?';
  }
  if (name.size() > longest) text += "...";
  return text;
}

/// Throws Error (malformed) unless `alignment` is a power of two and a multiple of 8.
inline void gguf_check_alignment(std::uint64_t alignment) {
  if (alignment < 8 || (alignment & (alignment - 1)) != 0) {
    throw Error(ErrorCode::malformed, "GGUF key " + std::string(gguf_alignment_key) + ": " + std::to_string(alignment) +
                                          " is not a power of two of at least 8");
  }
}

/// Bytes of padding that follow `position` up to a multiple of `alignment`, a power of two.
constexpr std::uint64_t gguf_padding(std::uint64_t position, std::uint64_t alignment) {
  return (alignment - position % alignment) % alignment;
}

}  // namespace detail

inline std::uint64_t tensor_size_bytes(std::string_view name, GgufType type, std::span<const std::uint64_t> shape) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::malformed, "GGUF tensor " + detail::gguf_quoted(name) + ": " + what);
  };
  const auto layout = find_type_layout(type);
  if (!layout) {
    throw Error(ErrorCode::unsupported, "GGUF tensor " + detail::gguf_quoted(name) + ": type " +
                                            std::to_string(static_cast<std::uint32_t>(type)) +
                                            " is not known to this library");
  }
  if (shape.empty() || shape.size() > detail::gguf_max_dimensions) {
    fail(std::to_string(shape.size()) + " dimensions, wanted 1 to " + std::to_string(detail::gguf_max_dimensions));
  }
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0) fail("dimension " + std::to_string(i) + " is 0");
  }
  if (shape[0] % layout->elements != 0) {
    fail("rows of " + std::to_string(shape[0]) + " are not whole blocks of " + std::to_string(layout->elements) + " (" +
         std::string(layout->name) + ")");
  }
  std::uint64_t size = layout->size_bytes;
  const auto multiply = [&](std::uint64_t factor) {
    if (size > std::numeric_limits<std::uint64_t>::max() / factor) fail("its size does not fit into 64 bits");
    size *= factor;
  };
  multiply(shape[0] / layout->elements);
  for (const std::uint64_t dimension : shape.subspan(1)) multiply(dimension);
  return size;
}

}  // namespace lazyllm::inline v0
