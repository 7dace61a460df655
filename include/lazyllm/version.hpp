// The version of the library, in one place: the build reads it from here.
// The inline namespace v0 changes when objects of two versions must not be linked together.
#pragma once

#include <string_view>

namespace lazyllm::inline v0 {

/// Semantic version "major.minor.patch".
inline constexpr std::string_view version = "0.1.0";

}  // namespace lazyllm::inline v0
