// Runs one of the built programs and collects what it said.
#pragma once

#include "support/temporary_directory.hpp"

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace lazyllm::test {

struct ProgramResult {
  int status;  // exit status; -1: ended by a signal
  std::string out;
  std::string err;
};

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::string shell_quoted(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

inline ProgramResult run_program(const std::string& name, const std::vector<std::string>& arguments,
                                 std::string_view input = "") {
  const TemporaryDirectory directory;
  const auto file = [&](const char* stream) { return (directory.path() / stream).string(); };
  std::ofstream(file("in"), std::ios::binary) << input;
  std::string command = shell_quoted(std::string(LAZYLLM_BIN_DIR "/") + name);
  for (const std::string& argument : arguments) command += " " + shell_quoted(argument);
  command += " <" + shell_quoted(file("in")) + " >" + shell_quoted(file("out")) + " 2>" + shell_quoted(file("err"));
  const int status = std::system(command.c_str());  // NOLINT(concurrency-mt-unsafe)
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_bytes(file("out")), read_bytes(file("err"))};
}

}  // namespace lazyllm::test
