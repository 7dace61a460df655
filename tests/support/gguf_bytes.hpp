// GGUF files written by hand, field by field, so that each field can be wrong: nothing here uses the library's writer.
// Layout: magic, version, tensor count, entry count, entries, tensor infos, padding, data.
// Remembers where each count, length, dimension and offset lies, for tests that overwrite them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace test_support {

class GgufBytes {
 public:
  struct Field {
    std::string what;
    std::size_t position;
    std::size_t size;
  };

  explicit GgufBytes(std::uint64_t tensors, std::uint64_t entries, std::uint32_t version = 3) {
    raw("GGUF").field("version", version).field("tensor count", tensors).field("entry count", entries);
  }

  template <class T>
  GgufBytes& number(T value) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + sizeof(T));
    std::memcpy(bytes_.data() + at, &value, sizeof(T));
    return *this;
  }
  template <class T>
  GgufBytes& field(const std::string& what, T value) {
    fields_.push_back({what, bytes_.size(), sizeof(T)});
    return number(value);
  }
  GgufBytes& raw(std::string_view text) {
    for (const char c : text) bytes_.push_back(static_cast<std::byte>(c));
    return *this;
  }
  GgufBytes& text(const std::string& what, std::string_view value) {
    return field(what, std::uint64_t{value.size()}).raw(value);
  }
  GgufBytes& key(std::string_view key, std::uint32_t type) {
    return text("length of key " + std::string(key), key).field("type of key " + std::string(key), type);
  }
  GgufBytes& array(std::uint32_t type, std::uint64_t count) {
    return field("array type", type).field("array count", count);
  }
  GgufBytes& tensor(std::string_view name, const std::vector<std::uint64_t>& shape, std::uint32_t type,
                    std::uint64_t offset) {
    text("length of tensor name", name).field("dimension count", static_cast<std::uint32_t>(shape.size()));
    for (const std::uint64_t dimension : shape) field("dimension", dimension);
    return field("tensor type", type).field("tensor offset", offset);
  }
  /// Zeros up to a multiple of `alignment`, then `size` bytes of data.
  GgufBytes& data(std::size_t size, std::size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment + size);
    return *this;
  }

  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }
  [[nodiscard]] const std::vector<Field>& fields() const { return fields_; }

 private:
  std::vector<std::byte> bytes_;
  std::vector<Field> fields_;
};

// Numbers of metadata types, from the specification.
inline constexpr std::uint32_t gguf_u8 = 0, gguf_u32 = 4, gguf_f32 = 6, gguf_bool = 7, gguf_string = 8, gguf_array = 9,
                               gguf_u64 = 10;

}  // namespace test_support
