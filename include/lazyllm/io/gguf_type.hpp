// Element types of the tensors in a GGUF file: number in the file, name, and block layout.
// A tensor's row (its contiguous dimension) is a whole number of blocks of `elements` values in `size_bytes` bytes.
// Format: the ggml project's type table, without deprecated numbers and Q8_1, which no file stores.
#pragma once

#include <lazyllm/core/error.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lazyllm::inline v0 {

enum class GgufType : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  q8_k = 15,
  iq2_xxs = 16,
  iq2_xs = 17,
  iq3_xxs = 18,
  iq1_s = 19,
  iq4_nl = 20,
  iq3_s = 21,
  iq2_s = 22,
  iq4_xs = 23,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  iq1_m = 29,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  mxfp4 = 39,
  nvfp4 = 40,
  q1_0 = 41,
};

struct GgufTypeLayout {
  std::string_view name;     ///< as the ggml project spells it: "Q4_1"
  std::uint64_t elements;    ///< values in a block
  std::uint64_t size_bytes;  ///< bytes of a block
};

/// Name and block layout; nothing for a number that is not in the list above.
[[nodiscard]] constexpr std::optional<GgufTypeLayout> find_type_layout(GgufType type) {
  switch (type) {
    case GgufType::f32: return GgufTypeLayout{"F32", 1, 4};
    case GgufType::f16: return GgufTypeLayout{"F16", 1, 2};
    case GgufType::q4_0: return GgufTypeLayout{"Q4_0", 32, 18};
    case GgufType::q4_1: return GgufTypeLayout{"Q4_1", 32, 20};
    case GgufType::q5_0: return GgufTypeLayout{"Q5_0", 32, 22};
    case GgufType::q5_1: return GgufTypeLayout{"Q5_1", 32, 24};
    case GgufType::q8_0: return GgufTypeLayout{"Q8_0", 32, 34};
    case GgufType::q2_k: return GgufTypeLayout{"Q2_K", 256, 84};
    case GgufType::q3_k: return GgufTypeLayout{"Q3_K", 256, 110};
    case GgufType::q4_k: return GgufTypeLayout{"Q4_K", 256, 144};
    case GgufType::q5_k: return GgufTypeLayout{"Q5_K", 256, 176};
    case GgufType::q6_k: return GgufTypeLayout{"Q6_K", 256, 210};
    case GgufType::q8_k: return GgufTypeLayout{"Q8_K", 256, 292};
    case GgufType::iq2_xxs: return GgufTypeLayout{"IQ2_XXS", 256, 66};
    case GgufType::iq2_xs: return GgufTypeLayout{"IQ2_XS", 256, 74};
    case GgufType::iq3_xxs: return GgufTypeLayout{"IQ3_XXS", 256, 98};
    case GgufType::iq1_s: return GgufTypeLayout{"IQ1_S", 256, 50};
    case GgufType::iq4_nl: return GgufTypeLayout{"IQ4_NL", 32, 18};
    case GgufType::iq3_s: return GgufTypeLayout{"IQ3_S", 256, 110};
    case GgufType::iq2_s: return GgufTypeLayout{"IQ2_S", 256, 82};
    case GgufType::iq4_xs: return GgufTypeLayout{"IQ4_XS", 256, 136};
    case GgufType::i8: return GgufTypeLayout{"I8", 1, 1};
    case GgufType::i16: return GgufTypeLayout{"I16", 1, 2};
    case GgufType::i32: return GgufTypeLayout{"I32", 1, 4};
    case GgufType::i64: return GgufTypeLayout{"I64", 1, 8};
    case GgufType::f64: return GgufTypeLayout{"F64", 1, 8};
    case GgufType::iq1_m: return GgufTypeLayout{"IQ1_M", 256, 56};
    case GgufType::bf16: return GgufTypeLayout{"BF16", 1, 2};
    case GgufType::tq1_0: return GgufTypeLayout{"TQ1_0", 256, 54};
    case GgufType::tq2_0: return GgufTypeLayout{"TQ2_0", 256, 66};
    case GgufType::mxfp4: return GgufTypeLayout{"MXFP4", 32, 17};
    case GgufType::nvfp4: return GgufTypeLayout{"NVFP4", 64, 36};
    case GgufType::q1_0: return GgufTypeLayout{"Q1_0", 128, 18};
  }
  return std::nullopt;
}

/// The same; throws Error (unsupported) that names the number when there is nothing.
[[nodiscard]] inline GgufTypeLayout type_layout(GgufType type) {
  if (const auto layout = find_type_layout(type)) return *layout;
  throw Error(ErrorCode::unsupported,
              "GGUF tensor type " + std::to_string(static_cast<std::uint32_t>(type)) + " is not known to this library");
}

/// "Q4_1"; throws as type_layout does.
[[nodiscard]] inline std::string_view name(GgufType type) { return type_layout(type).name; }

}  // namespace lazyllm::inline v0
