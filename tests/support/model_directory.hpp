// A directory with the tiny model, for tests that run the program on it; gone with the object.
#pragma once

#include "support/run_program.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_model.hpp"

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace lazyllm::test {

struct ModelDirectory {
  ModelDirectory() { save_tiny_model(file("model.gguf")); }

  [[nodiscard]] std::string file(const std::string& name) const { return (directory.path() / name).string(); }
  /// The same, and its contents are now these.
  std::string file(const std::string& name, std::string_view contents) const {
    std::ofstream(file(name), std::ios::binary) << contents;
    return file(name);
  }
  /// `lazyllm COMMAND -m MODEL` with these arguments, then those.
  [[nodiscard]] ProgramResult run(const char* command, const std::vector<std::string>& arguments,
                                  const std::vector<std::string>& more = {}, std::string_view input = "") const {
    std::vector<std::string> all = {command, "-m", file("model.gguf")};
    all.insert(all.end(), arguments.begin(), arguments.end());
    all.insert(all.end(), more.begin(), more.end());
    return run_program("lazyllm", all, input);
  }

  TemporaryDirectory directory;
};

}  // namespace lazyllm::test
