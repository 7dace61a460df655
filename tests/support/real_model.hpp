// The path of the real model for tests that need one: the environment variable LAZYLLM_MODEL.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>

/// The file that LAZYLLM_MODEL names; nothing when it is not set. The caller then says
/// MESSAGE("skipped: LAZYLLM_MODEL is not set").
[[nodiscard]] inline std::optional<std::filesystem::path> real_model_path() {
  const char* path = std::getenv("LAZYLLM_MODEL");
  if (path == nullptr || *path == '\0') return std::nullopt;
  return std::filesystem::path(path);
}
