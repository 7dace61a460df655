// How metadata values are numbered in the bytes of a GGUF file, shared by the parser and the writer.
// A file is: magic, version (uint32), tensor count, entry count (uint64), entries, tensor infos, padding, data;
// a string is a uint64 length and its bytes; all numbers are little-endian. Format: the GGUF specification.
#pragma once

#include <lazyllm/io/gguf.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

namespace lazyllm::inline v0::detail {

static_assert(std::endian::native == std::endian::little, "GGUF files are read and written on little-endian machines");

inline constexpr std::string_view gguf_magic = "GGUF";
inline constexpr std::uint64_t gguf_fixed_header_bytes = 4 + 4 + 8 + 8;
inline constexpr std::uint32_t gguf_array_number = 9;

/// The number of a scalar metadata type in the file.
template <class T>
inline constexpr std::uint32_t gguf_number = std::uint32_t{0} - 1;
template <>
inline constexpr std::uint32_t gguf_number<std::uint8_t> = 0;
template <>
inline constexpr std::uint32_t gguf_number<std::int8_t> = 1;
template <>
inline constexpr std::uint32_t gguf_number<std::uint16_t> = 2;
template <>
inline constexpr std::uint32_t gguf_number<std::int16_t> = 3;
template <>
inline constexpr std::uint32_t gguf_number<std::uint32_t> = 4;
template <>
inline constexpr std::uint32_t gguf_number<std::int32_t> = 5;
template <>
inline constexpr std::uint32_t gguf_number<float> = 6;
template <>
inline constexpr std::uint32_t gguf_number<bool> = 7;
template <>
inline constexpr std::uint32_t gguf_number<std::string> = 8;
template <>
inline constexpr std::uint32_t gguf_number<std::uint64_t> = 10;
template <>
inline constexpr std::uint32_t gguf_number<std::int64_t> = 11;
template <>
inline constexpr std::uint32_t gguf_number<double> = 12;

/// Calls `visit(std::type_identity<T>{})` for the scalar type T that has this number; false when there is none.
template <class Visit>
bool gguf_visit_number(std::uint32_t number, Visit visit) {
  const auto try_all = [&]<class... T>(const std::variant<std::vector<T>...>*) {
    return ((number == gguf_number<T> && (visit(std::type_identity<T>{}), true)) || ...);
  };
  return try_all(static_cast<const GgufArray*>(nullptr));
}

/// The fewest bytes that a value of type T takes: strings their length, the others their size.
template <class T>
inline constexpr std::uint64_t gguf_least_bytes = sizeof(T);
template <>
inline constexpr std::uint64_t gguf_least_bytes<bool> = 1;
template <>
inline constexpr std::uint64_t gguf_least_bytes<std::string> = 8;

}  // namespace lazyllm::inline v0::detail
