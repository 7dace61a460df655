// GgufWriter: makes GGUF files (version 3): metadata and tensors in the order in which they are added.
// Each tensor's data starts at a multiple of the alignment and is padded with zeros to one, the last as well.
// Format: the GGUF specification of the ggml project; the bytes equal those of its Python package.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/io/gguf.hpp>
#include <lazyllm/io/gguf_wire.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <ostream>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace lazyllm::inline v0 {

/// Collects metadata and tensors, then writes them as often as wanted. Moves, does not copy.
/// What it writes, parse_gguf accepts, but for a split.count above 1.
class GgufWriter {
 public:
  GgufWriter() = default;
  GgufWriter(GgufWriter&&) = default;
  GgufWriter& operator=(GgufWriter&&) = default;

  /// Throws Error (invalid_argument) for an empty or repeated key. The key general.alignment sets the alignment of the
  /// file, else 32; Error (malformed) unless it is a power of two of at least 8.
  GgufWriter& add(std::string key, GgufValue value);

  /// A tensor whose bytes are not copied: they must live until the file is written. Throws Error: as tensor_size_bytes
  /// for type and shape; invalid_argument for an empty or repeated name, or another number of bytes than they take.
  GgufWriter& add_tensor(std::string name, GgufType type, std::vector<std::uint64_t> shape,
                         std::span<const std::byte> bytes);
  /// The same for a temporary, which the writer then owns.
  GgufWriter& add_tensor(std::string name, GgufType type, std::vector<std::uint64_t> shape,
                         std::vector<std::byte>&& bytes);

  /// Throws Error (io) when the stream fails.
  void write(std::ostream& out) const;

  /// Writes a file beside `path` and renames it, so that nobody ever sees a part of it. Throws Error (io).
  void save(const std::filesystem::path& path) const;

  /// The file in memory.
  [[nodiscard]] std::vector<std::byte> bytes() const;

 private:
  struct Tensor {
    GgufTensor info;
    std::vector<std::byte> owned;
    std::span<const std::byte> bytes;  ///< of `owned` or of the caller; a moved vector keeps its storage
  };

  [[nodiscard]] std::string header() const;
  template <class Sink>
  void write_to(Sink sink) const;

  std::uint64_t alignment_ = detail::gguf_default_alignment;
  std::vector<GgufEntry> metadata_;
  std::vector<Tensor> tensors_;
};

namespace detail {

template <class T>
requires std::is_arithmetic_v<T>
void gguf_append(std::string& out, T value) {
  if constexpr (std::is_same_v<T, bool>) {
    out += value ? '\1' : '\0';
  } else {
    std::array<char, sizeof(T)> bytes;
    std::memcpy(bytes.data(), &value, sizeof(T));
    out.append(bytes.data(), bytes.size());
  }
}

inline void gguf_append(std::string& out, std::string_view text) {
  gguf_append(out, std::uint64_t{text.size()});
  out += text;
}

inline void gguf_append_value(std::string& out, const GgufValue& value) {
  std::visit(
      [&]<class T>(const T& scalar) {
        if constexpr (!std::is_same_v<T, GgufArray>) {
          gguf_append(out, gguf_number<T>);
          gguf_append(out, scalar);
        } else {
          std::visit(
              [&]<class Element>(const std::vector<Element>& elements) {
                gguf_append(out, gguf_array_number);
                gguf_append(out, gguf_number<Element>);
                gguf_append(out, std::uint64_t{elements.size()});
                for (const auto& element : elements) gguf_append(out, static_cast<const Element&>(element));
              },
              scalar);
        }
      },
      value);
}

/// A name beside `path` that no other writer uses.
inline std::filesystem::path temporary_beside(const std::filesystem::path& path) {
  std::random_device random;
  std::filesystem::path temporary = path;
  temporary += ".part-" + std::to_string(random()) + "-" + std::to_string(random());
  return temporary;
}

}  // namespace detail

inline GgufWriter& GgufWriter::add(std::string key, GgufValue value) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::invalid_argument, "GGUF key " + detail::gguf_quoted(key) + ": " + what);
  };
  if (key.empty()) fail("is empty");
  const auto same = [&](const GgufEntry& entry) { return entry.key == key; };
  if (std::any_of(metadata_.begin(), metadata_.end(), same)) fail("was added before");
  if (key == detail::gguf_alignment_key) {
    const std::uint64_t alignment = detail::gguf_unsigned(key, value);
    detail::gguf_check_alignment(alignment);
    alignment_ = alignment;
  }
  metadata_.push_back({std::move(key), std::move(value)});
  return *this;
}

inline GgufWriter& GgufWriter::add_tensor(std::string name, GgufType type, std::vector<std::uint64_t> shape,
                                          std::span<const std::byte> bytes) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::invalid_argument, "GGUF tensor " + detail::gguf_quoted(name) + ": " + what);
  };
  if (name.empty()) fail("its name is empty");
  const auto same = [&](const Tensor& tensor) { return tensor.info.name == name; };
  if (std::any_of(tensors_.begin(), tensors_.end(), same)) fail("was added before");
  const std::uint64_t size = tensor_size_bytes(name, type, shape);
  if (size != bytes.size()) {
    fail("its shape takes " + std::to_string(size) + " bytes, got " + std::to_string(bytes.size()));
  }
  // The offset waits for the alignment, which may still be added.
  tensors_.push_back({{std::move(name), type, std::move(shape), 0, size}, {}, bytes});
  return *this;
}

inline GgufWriter& GgufWriter::add_tensor(std::string name, GgufType type, std::vector<std::uint64_t> shape,
                                          std::vector<std::byte>&& bytes) {
  add_tensor(std::move(name), type, std::move(shape), std::span<const std::byte>(bytes));
  tensors_.back().owned = std::move(bytes);
  return *this;
}

inline std::string GgufWriter::header() const {
  std::string out(detail::gguf_magic);
  detail::gguf_append(out, std::uint32_t{3});
  detail::gguf_append(out, std::uint64_t{tensors_.size()});
  detail::gguf_append(out, std::uint64_t{metadata_.size()});
  for (const GgufEntry& entry : metadata_) {
    detail::gguf_append(out, std::string_view(entry.key));
    detail::gguf_append_value(out, entry.value);
  }
  std::uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    detail::gguf_append(out, std::string_view(tensor.info.name));
    detail::gguf_append(out, static_cast<std::uint32_t>(tensor.info.shape.size()));
    for (const std::uint64_t dimension : tensor.info.shape) detail::gguf_append(out, dimension);
    detail::gguf_append(out, static_cast<std::uint32_t>(tensor.info.type));
    detail::gguf_append(out, offset);
    offset += tensor.info.size_bytes + detail::gguf_padding(tensor.info.size_bytes, alignment_);
  }
  out.resize(out.size() + static_cast<std::size_t>(detail::gguf_padding(out.size(), alignment_)));
  return out;
}

template <class Sink>
void GgufWriter::write_to(Sink sink) const {
  const std::string head = header();
  sink(std::as_bytes(std::span(head)));
  std::vector<std::byte> zeros;
  for (const Tensor& tensor : tensors_) {
    sink(tensor.bytes);
    zeros.resize(static_cast<std::size_t>(detail::gguf_padding(tensor.bytes.size(), alignment_)));
    sink(std::span<const std::byte>(zeros));
  }
}

inline void GgufWriter::write(std::ostream& out) const {
  write_to([&](std::span<const std::byte> part) {
    out.write(reinterpret_cast<const char*>(part.data()), static_cast<std::streamsize>(part.size()));
  });
  out.flush();
  if (!out) throw Error(ErrorCode::io, "GGUF: cannot write to the stream");
}

inline void GgufWriter::save(const std::filesystem::path& path) const {
  const std::filesystem::path temporary = detail::temporary_beside(path);
  std::error_code error;
  try {
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    if (!out) throw Error(ErrorCode::io, "file " + temporary.string() + ": cannot create");
    write(out);
    out.close();
    if (!out) throw Error(ErrorCode::io, "file " + temporary.string() + ": cannot write");
    std::filesystem::rename(temporary, path, error);
    if (error) throw Error(ErrorCode::io, "file " + path.string() + ": cannot rename to it: " + error.message());
  } catch (...) {
    std::filesystem::remove(temporary, error);
    throw;
  }
}

inline std::vector<std::byte> GgufWriter::bytes() const {
  std::vector<std::byte> out;
  write_to([&](std::span<const std::byte> part) { out.insert(out.end(), part.begin(), part.end()); });
  return out;
}

}  // namespace lazyllm::inline v0
