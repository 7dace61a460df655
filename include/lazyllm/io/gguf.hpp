// What a GGUF model file says about itself: typed metadata under unique keys, and where each named tensor lies.
// A GgufFile owns all that it says (no view into the file's bytes) and is immutable; keys and names are unique.
// Format: the GGUF specification of the ggml project, versions 2 and 3.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/io/gguf_tensor.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lazyllm::inline v0 {

/// A metadata array; its alternatives are the scalar alternatives of GgufValue, in the same order.
using GgufArray = std::variant<std::vector<std::uint8_t>, std::vector<std::int8_t>, std::vector<std::uint16_t>,
                               std::vector<std::int16_t>, std::vector<std::uint32_t>, std::vector<std::int32_t>,
                               std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<float>,
                               std::vector<double>, std::vector<bool>, std::vector<std::string>>;

/// A metadata value. Arrays of arrays, which no known model uses, are not representable.
using GgufValue = std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t,
                               std::uint64_t, std::int64_t, float, double, bool, std::string, GgufArray>;

struct GgufEntry {
  std::string key;
  GgufValue value;
};

/// The name of a value's type in messages: "uint32", "array of string".
[[nodiscard]] std::string type_name(const GgufValue& value);

/// The contents of a GGUF file but for the tensors' bytes. Look-ups take O(log n).
/// The typed getters accept every stored type that holds the wanted value exactly (an unsigned number may be stored as
/// int32); a missing key or another type throws Error (malformed) that names the key and both types.
class GgufFile {
 public:
  GgufFile() = default;
  /// The data section starts at the first multiple of the alignment that is not below `header_bytes`; the alignment is
  /// the metadata's general.alignment, else 32. Throws Error (malformed) when two entries share a key or two tensors a
  /// name, or the alignment is not a power of two of at least 8.
  GgufFile(std::uint32_t version, std::uint64_t header_bytes, std::vector<GgufEntry> metadata,
           std::vector<GgufTensor> tensors);

  [[nodiscard]] std::uint32_t version() const { return version_; }
  [[nodiscard]] std::uint64_t alignment() const { return alignment_; }
  /// Where the data section starts, in bytes from the start of the file.
  [[nodiscard]] std::uint64_t data_offset() const { return data_offset_; }
  /// In the order of the file.
  [[nodiscard]] const std::vector<GgufEntry>& metadata() const { return metadata_; }
  [[nodiscard]] const std::vector<GgufTensor>& tensors() const { return tensors_; }

  /// nullptr when there is none.
  [[nodiscard]] const GgufValue* find(std::string_view key) const;
  [[nodiscard]] const GgufTensor* find_tensor(std::string_view name) const;
  [[nodiscard]] const GgufTensor& require_tensor(std::string_view name) const;

  [[nodiscard]] std::uint64_t require_unsigned(std::string_view key) const;
  [[nodiscard]] std::uint64_t unsigned_or(std::string_view key, std::uint64_t fallback) const;
  [[nodiscard]] double require_real(std::string_view key) const;
  [[nodiscard]] double real_or(std::string_view key, double fallback) const;
  [[nodiscard]] bool bool_or(std::string_view key, bool fallback) const;
  [[nodiscard]] const std::string& require_string(std::string_view key) const;
  [[nodiscard]] std::string string_or(std::string_view key, std::string_view fallback) const;
  /// Arrays: the key must be there (ask `find` first when it is optional).
  [[nodiscard]] const std::vector<std::string>& strings(std::string_view key) const;
  [[nodiscard]] std::vector<std::int64_t> integers(std::string_view key) const;
  [[nodiscard]] std::vector<float> reals(std::string_view key) const;

 private:
  [[nodiscard]] const GgufValue& require(std::string_view key, const char* wanted) const;

  std::uint32_t version_ = 3;
  std::uint64_t alignment_ = detail::gguf_default_alignment;
  std::uint64_t data_offset_ = 0;
  std::vector<GgufEntry> metadata_;
  std::vector<GgufTensor> tensors_;
  std::vector<std::size_t> metadata_by_key_;  // indices, sorted by key
  std::vector<std::size_t> tensors_by_name_;
};

namespace detail {

inline constexpr const char* gguf_scalar_names[] = {"uint8",  "int8",  "uint16",  "int16",   "uint32", "int32",
                                                    "uint64", "int64", "float32", "float64", "bool",   "string"};
static_assert(std::size(gguf_scalar_names) == std::variant_size_v<GgufArray>);
static_assert(std::size(gguf_scalar_names) + 1 == std::variant_size_v<GgufValue>);

[[noreturn]] inline void gguf_wrong_type(std::string_view key, const char* wanted, const GgufValue& value) {
  throw Error(ErrorCode::malformed,
              "GGUF key " + gguf_quoted(key) + ": wanted " + wanted + ", found " + type_name(value));
}

template <class T>
concept GgufInteger = std::integral<T> && !std::same_as<T, bool>;

inline std::uint64_t gguf_unsigned(std::string_view key, const GgufValue& value) {
  return std::visit(
      [&]<class T>(const T& number) -> std::uint64_t {
        if constexpr (GgufInteger<T>) {
          if (!std::in_range<std::uint64_t>(number)) {
            throw Error(ErrorCode::malformed, "GGUF key " + gguf_quoted(key) + ": wanted an unsigned integer, found " +
                                                  std::to_string(number));
          }
          return static_cast<std::uint64_t>(number);
        } else {
          gguf_wrong_type(key, "an unsigned integer", value);
        }
      },
      value);
}

inline double gguf_real(std::string_view key, const GgufValue& value) {
  return std::visit(
      [&]<class T>(const T& number) -> double {
        if constexpr (GgufInteger<T> || std::floating_point<T>) {
          return static_cast<double>(number);
        } else {
          gguf_wrong_type(key, "a number", value);
        }
      },
      value);
}

/// Indices of `items` in the order of their names; two equal names are an error.
template <class T, class NameOf>
std::vector<std::size_t> gguf_index(const std::vector<T>& items, NameOf name_of, const char* what) {
  std::vector<std::size_t> index(items.size());
  std::iota(index.begin(), index.end(), std::size_t{0});
  std::sort(index.begin(), index.end(),
            [&](std::size_t a, std::size_t b) { return name_of(items[a]) < name_of(items[b]); });
  const auto twin = std::adjacent_find(
      index.begin(), index.end(), [&](std::size_t a, std::size_t b) { return name_of(items[a]) == name_of(items[b]); });
  if (twin != index.end()) {
    throw Error(ErrorCode::malformed,
                std::string("GGUF ") + what + " " + gguf_quoted(name_of(items[*twin])) + " appears twice");
  }
  return index;
}

template <class T, class NameOf>
const T* gguf_find(const std::vector<T>& items, const std::vector<std::size_t>& index, NameOf name_of,
                   std::string_view name) {
  const auto place = std::lower_bound(index.begin(), index.end(), name,
                                      [&](std::size_t i, std::string_view n) { return name_of(items[i]) < n; });
  if (place == index.end() || name_of(items[*place]) != name) return nullptr;
  return &items[*place];
}

inline constexpr auto gguf_key_of = [](const GgufEntry& entry) -> std::string_view { return entry.key; };
inline constexpr auto gguf_name_of = [](const GgufTensor& tensor) -> std::string_view { return tensor.name; };

}  // namespace detail

inline std::string type_name(const GgufValue& value) {
  if (const auto* array = std::get_if<GgufArray>(&value)) {
    return std::string("array of ") + detail::gguf_scalar_names[array->index()];
  }
  return detail::gguf_scalar_names[value.index()];
}

inline GgufFile::GgufFile(std::uint32_t version, std::uint64_t header_bytes, std::vector<GgufEntry> metadata,
                          std::vector<GgufTensor> tensors)
    : version_(version),
      metadata_(std::move(metadata)),
      tensors_(std::move(tensors)),
      metadata_by_key_(detail::gguf_index(metadata_, detail::gguf_key_of, "key")),
      tensors_by_name_(detail::gguf_index(tensors_, detail::gguf_name_of, "tensor")) {
  alignment_ = unsigned_or(detail::gguf_alignment_key, detail::gguf_default_alignment);
  detail::gguf_check_alignment(alignment_);
  data_offset_ = header_bytes + detail::gguf_padding(header_bytes, alignment_);
}

inline const GgufValue* GgufFile::find(std::string_view key) const {
  const GgufEntry* entry = detail::gguf_find(metadata_, metadata_by_key_, detail::gguf_key_of, key);
  return entry ? &entry->value : nullptr;
}

inline const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  return detail::gguf_find(tensors_, tensors_by_name_, detail::gguf_name_of, name);
}

inline const GgufTensor& GgufFile::require_tensor(std::string_view name) const {
  const GgufTensor* tensor = find_tensor(name);
  if (!tensor) throw Error(ErrorCode::malformed, "GGUF tensor " + detail::gguf_quoted(name) + " is missing");
  return *tensor;
}

inline const GgufValue& GgufFile::require(std::string_view key, const char* wanted) const {
  const GgufValue* value = find(key);
  if (!value) {
    throw Error(ErrorCode::malformed, "GGUF key " + detail::gguf_quoted(key) + " is missing, wanted " + wanted);
  }
  return *value;
}

inline std::uint64_t GgufFile::require_unsigned(std::string_view key) const {
  return detail::gguf_unsigned(key, require(key, "an unsigned integer"));
}

inline std::uint64_t GgufFile::unsigned_or(std::string_view key, std::uint64_t fallback) const {
  const GgufValue* value = find(key);
  return value ? detail::gguf_unsigned(key, *value) : fallback;
}

inline double GgufFile::require_real(std::string_view key) const {
  return detail::gguf_real(key, require(key, "a number"));
}

inline double GgufFile::real_or(std::string_view key, double fallback) const {
  const GgufValue* value = find(key);
  return value ? detail::gguf_real(key, *value) : fallback;
}

inline bool GgufFile::bool_or(std::string_view key, bool fallback) const {
  const GgufValue* value = find(key);
  if (!value) return fallback;
  if (const bool* flag = std::get_if<bool>(value)) return *flag;
  detail::gguf_wrong_type(key, "bool", *value);
}

inline const std::string& GgufFile::require_string(std::string_view key) const {
  const GgufValue& value = require(key, "string");
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  detail::gguf_wrong_type(key, "string", value);
}

inline std::string GgufFile::string_or(std::string_view key, std::string_view fallback) const {
  return find(key) ? require_string(key) : std::string(fallback);
}

inline const std::vector<std::string>& GgufFile::strings(std::string_view key) const {
  const GgufValue& value = require(key, "array of string");
  if (const auto* array = std::get_if<GgufArray>(&value)) {
    if (const auto* texts = std::get_if<std::vector<std::string>>(array)) return *texts;
  }
  detail::gguf_wrong_type(key, "array of string", value);
}

inline std::vector<std::int64_t> GgufFile::integers(std::string_view key) const {
  const GgufValue& value = require(key, "array of integers");
  const auto* array = std::get_if<GgufArray>(&value);
  if (!array) detail::gguf_wrong_type(key, "array of integers", value);
  return std::visit(
      [&]<class T>(const std::vector<T>& numbers) -> std::vector<std::int64_t> {
        if constexpr (detail::GgufInteger<T>) {
          for (const T number : numbers) {
            if (!std::in_range<std::int64_t>(number)) {
              throw Error(ErrorCode::malformed, "GGUF key " + detail::gguf_quoted(key) + ": " + std::to_string(number) +
                                                    " does not fit into int64");
            }
          }
          return {numbers.begin(), numbers.end()};
        } else {
          detail::gguf_wrong_type(key, "array of integers", value);
        }
      },
      *array);
}

inline std::vector<float> GgufFile::reals(std::string_view key) const {
  const GgufValue& value = require(key, "array of float32");
  if (const auto* array = std::get_if<GgufArray>(&value)) {
    if (const auto* numbers = std::get_if<std::vector<float>>(array)) return *numbers;
  }
  detail::gguf_wrong_type(key, "array of float32", value);
}

}  // namespace lazyllm::inline v0
