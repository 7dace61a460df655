// parse_gguf: the bytes of a GGUF file to a GgufFile. Pure: no file access, no state, nothing kept of the bytes.
// Two passes: the first walks over all entries and tensor infos and allocates nothing, so that every count is known to
// be backed by bytes before the second reserves by it. Format: the GGUF specification, versions 2 and 3.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/io/gguf.hpp>
#include <lazyllm/io/gguf_wire.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// Reads all that comes before the tensors' data, and checks each tensor's place against the size of `bytes`, which is
/// the whole file. Throws Error: malformed for bytes that contradict the format (truncated, counts beyond the file,
/// repeated keys or names, bad alignment), unsupported for big-endian files, other versions, unknown types, arrays of
/// arrays and split files. Whatever the bytes, it allocates less than 8 times their size (and a short message).
[[nodiscard]] GgufFile parse_gguf(std::span<const std::byte> bytes);

namespace detail {

/// A cursor that never leaves the file; errors name the thing that is being read.
class GgufReader {
 public:
  explicit GgufReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  [[nodiscard]] std::uint64_t position() const { return position_; }
  [[nodiscard]] std::uint64_t remaining() const { return bytes_.size() - position_; }

  /// What the following reads are part of: "header", or "key" and a name that outlives them.
  void now_reading(const char* kind, std::string_view name = {}) {
    kind_ = kind;
    name_ = name;
  }

  [[noreturn]] void fail(ErrorCode code, const std::string& what) const {
    throw Error(code, "GGUF " + std::string(kind_) + (name_.empty() ? "" : " ") + gguf_quoted(name_) + ": " + what);
  }

  std::span<const std::byte> take(std::uint64_t size) {
    if (size > remaining()) {
      fail(ErrorCode::malformed, std::to_string(size) + " bytes at offset " + std::to_string(position_) +
                                     " exceed the file's " + std::to_string(bytes_.size()));
    }
    const auto taken = bytes_.subspan(static_cast<std::size_t>(position_), static_cast<std::size_t>(size));
    position_ += size;
    return taken;
  }

  /// A count of things that take at least `least_bytes` each: checked against the bytes that are left.
  std::uint64_t checked_count(std::uint64_t count, std::uint64_t least_bytes, const char* things) const {
    if (count > remaining() / least_bytes) {
      fail(ErrorCode::malformed, std::to_string(count) + " " + things + " of at least " + std::to_string(least_bytes) +
                                     " bytes exceed the " + std::to_string(remaining()) + " bytes left");
    }
    return count;
  }

  template <class T>
  T read() {
    if constexpr (std::is_same_v<T, bool>) {
      const auto byte = read<std::uint8_t>();
      if (byte > 1) fail(ErrorCode::malformed, "a bool of value " + std::to_string(byte));
      return byte == 1;
    } else if constexpr (std::is_same_v<T, std::string>) {
      return std::string(read_text());
    } else {
      T value;
      std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
      return value;
    }
  }

  /// A string as a view into the file.
  std::string_view read_text() {
    const auto taken = take(read<std::uint64_t>());
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }

  template <class T>
  std::vector<T> read_array(std::uint64_t count) {
    std::vector<T> values;
    if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
      const auto taken = take(checked_count(count, sizeof(T), "elements") * sizeof(T));
      values.resize(static_cast<std::size_t>(count));
      if (count > 0) std::memcpy(values.data(), taken.data(), taken.size());
    } else {
      values.reserve(static_cast<std::size_t>(checked_count(count, gguf_least_bytes<T>, "elements")));
      for (std::uint64_t i = 0; i < count; ++i) values.push_back(read<T>());
    }
    return values;
  }

  template <class T>
  void skip_array(std::uint64_t count) {
    checked_count(count, gguf_least_bytes<T>, "elements");
    if constexpr (std::is_same_v<T, std::string>) {
      for (std::uint64_t i = 0; i < count; ++i) read_text();
    } else {
      take(count * gguf_least_bytes<T>);
    }
  }

 private:
  std::span<const std::byte> bytes_;
  std::uint64_t position_ = 0;
  const char* kind_ = "header";
  std::string_view name_;
};

// The fewest bytes of an entry (a key of one character, a type, a byte) and of a tensor info (a name of one character,
// a dimension count, a dimension, a type, an offset). What the second pass allocates for each stays under 8 times that.
inline constexpr std::uint64_t gguf_least_entry_bytes = 8 + 1 + 4 + 1;
inline constexpr std::uint64_t gguf_least_tensor_bytes = 8 + 1 + 4 + 8 + 4 + 8;
static_assert(sizeof(GgufEntry) + sizeof(std::size_t) <= 7 * gguf_least_entry_bytes);
static_assert(sizeof(GgufTensor) + sizeof(std::size_t) <= 7 * gguf_least_tensor_bytes);
static_assert(sizeof(std::string) <= 7 * gguf_least_bytes<std::string>);

struct GgufHeader {
  std::uint32_t version = 0;
  std::uint64_t tensor_count = 0;
  std::uint64_t entry_count = 0;
};

inline GgufHeader gguf_read_header(GgufReader& reader) {
  reader.now_reading("header");
  const auto magic = reader.take(gguf_magic.size());
  if (std::memcmp(magic.data(), gguf_magic.data(), gguf_magic.size()) != 0) {
    reader.fail(ErrorCode::malformed, "not a GGUF file: it does not start with the letters GGUF");
  }
  GgufHeader header;
  header.version = reader.read<std::uint32_t>();
  if (header.version != 0 && (header.version & 0xffffu) == 0) {
    reader.fail(ErrorCode::unsupported, "a big-endian file; supported are little-endian files");
  }
  if (header.version != 2 && header.version != 3) {
    reader.fail(ErrorCode::unsupported, "version " + std::to_string(header.version) + "; supported are 2 and 3");
  }
  header.tensor_count = reader.read<std::uint64_t>();
  header.entry_count = reader.read<std::uint64_t>();
  reader.checked_count(header.entry_count, gguf_least_entry_bytes, "metadata entries");
  reader.checked_count(header.tensor_count, gguf_least_tensor_bytes, "tensors");
  return header;
}

/// Reads a key and the number of its value's type; errors then name the key.
inline std::pair<std::string_view, std::uint32_t> gguf_read_key(GgufReader& reader, std::uint64_t entry) {
  reader.now_reading("metadata");
  const std::string_view key = reader.read_text();
  if (key.empty()) reader.fail(ErrorCode::malformed, "entry " + std::to_string(entry) + " has an empty key");
  reader.now_reading("key", key);
  return {key, reader.read<std::uint32_t>()};
}

/// Reads the value of a key: `on_scalar(type)` or `on_array(type, count)` does it, type being std::type_identity<T>.
template <class OnScalar, class OnArray>
void gguf_visit_value(GgufReader& reader, std::uint32_t number, OnScalar on_scalar, OnArray on_array) {
  if (number == gguf_array_number) {
    const auto element = reader.read<std::uint32_t>();
    const auto count = reader.read<std::uint64_t>();
    if (gguf_visit_number(element, [&](auto type) { on_array(type, count); })) return;
    if (element == gguf_array_number) reader.fail(ErrorCode::unsupported, "an array of arrays");
    reader.fail(ErrorCode::unsupported, "array of unknown metadata type " + std::to_string(element));
  }
  if (gguf_visit_number(number, on_scalar)) return;
  reader.fail(ErrorCode::unsupported, "unknown metadata type " + std::to_string(number));
}

inline void gguf_skip_entry(GgufReader& reader, std::uint64_t entry) {
  const std::uint32_t number = gguf_read_key(reader, entry).second;
  gguf_visit_value(
      reader, number, [&]<class T>(std::type_identity<T>) { reader.skip_array<T>(1); },
      [&]<class T>(std::type_identity<T>, std::uint64_t count) { reader.skip_array<T>(count); });
}

inline GgufEntry gguf_read_entry(GgufReader& reader, std::uint64_t entry) {
  const auto [key, number] = gguf_read_key(reader, entry);
  GgufEntry result{std::string(key), {}};
  gguf_visit_value(
      reader, number, [&]<class T>(std::type_identity<T>) { result.value = reader.read<T>(); },
      [&]<class T>(std::type_identity<T>, std::uint64_t count) {
        result.value.emplace<GgufArray>(reader.read_array<T>(count));
      });
  return result;
}

/// Reads a tensor's name and number of dimensions; errors then name the tensor.
inline std::pair<std::string_view, std::uint32_t> gguf_read_name(GgufReader& reader, std::uint64_t tensor) {
  reader.now_reading("tensor infos");
  const std::string_view name = reader.read_text();
  if (name.empty()) reader.fail(ErrorCode::malformed, "tensor " + std::to_string(tensor) + " has an empty name");
  reader.now_reading("tensor", name);
  const auto dimensions = reader.read<std::uint32_t>();
  if (dimensions < 1 || dimensions > gguf_max_dimensions) {
    reader.fail(ErrorCode::malformed,
                std::to_string(dimensions) + " dimensions, wanted 1 to " + std::to_string(gguf_max_dimensions));
  }
  return {name, dimensions};
}

inline void gguf_skip_tensor(GgufReader& reader, std::uint64_t tensor) {
  const std::uint32_t dimensions = gguf_read_name(reader, tensor).second;
  reader.skip_array<std::uint64_t>(dimensions);
  reader.skip_array<std::uint32_t>(1);
  reader.skip_array<std::uint64_t>(1);
}

inline GgufTensor gguf_read_tensor(GgufReader& reader, std::uint64_t tensor) {
  const auto [name, dimensions] = gguf_read_name(reader, tensor);
  GgufTensor result;
  result.name = name;
  result.shape = reader.read_array<std::uint64_t>(dimensions);
  result.type = static_cast<GgufType>(reader.read<std::uint32_t>());
  result.offset = reader.read<std::uint64_t>();
  result.size_bytes = tensor_size_bytes(name, result.type, result.shape);
  return result;
}

/// Throws unless the tensor is aligned and lies in a data section of `data_bytes` bytes.
inline void gguf_check_place(const GgufTensor& tensor, std::uint64_t alignment, std::uint64_t data_bytes) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::malformed, "GGUF tensor " + gguf_quoted(tensor.name) + ": " + what);
  };
  if (tensor.offset % alignment != 0) {
    fail("offset " + std::to_string(tensor.offset) + " is not a multiple of the alignment " +
         std::to_string(alignment));
  }
  if (tensor.offset > data_bytes || tensor.size_bytes > data_bytes - tensor.offset) {
    fail(std::to_string(tensor.size_bytes) + " bytes at offset " + std::to_string(tensor.offset) +
         " exceed the data section's " + std::to_string(data_bytes));
  }
}

}  // namespace detail

inline GgufFile parse_gguf(std::span<const std::byte> bytes) {
  {
    detail::GgufReader reader(bytes);
    const detail::GgufHeader header = detail::gguf_read_header(reader);
    for (std::uint64_t i = 0; i < header.entry_count; ++i) detail::gguf_skip_entry(reader, i);
    for (std::uint64_t i = 0; i < header.tensor_count; ++i) detail::gguf_skip_tensor(reader, i);
  }
  detail::GgufReader reader(bytes);
  const detail::GgufHeader header = detail::gguf_read_header(reader);
  std::vector<GgufEntry> metadata;
  metadata.reserve(static_cast<std::size_t>(header.entry_count));
  for (std::uint64_t i = 0; i < header.entry_count; ++i) metadata.push_back(detail::gguf_read_entry(reader, i));
  std::vector<GgufTensor> tensors;
  tensors.reserve(static_cast<std::size_t>(header.tensor_count));
  for (std::uint64_t i = 0; i < header.tensor_count; ++i) tensors.push_back(detail::gguf_read_tensor(reader, i));

  GgufFile file(header.version, reader.position(), std::move(metadata), std::move(tensors));
  if (const std::uint64_t parts = file.unsigned_or("split.count", 1); parts > 1) {
    throw Error(ErrorCode::unsupported, "GGUF key split.count: the model is split into " + std::to_string(parts) +
                                            " files; merge them into one first");
  }
  const std::uint64_t data_bytes = bytes.size() - std::min<std::uint64_t>(file.data_offset(), bytes.size());
  for (const GgufTensor& tensor : file.tensors()) detail::gguf_check_place(tensor, file.alignment(), data_bytes);
  return file;
}

}  // namespace lazyllm::inline v0
