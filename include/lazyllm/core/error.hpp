// The exception for everything that depends on bytes or parameters from outside the program.
// The message names the thing and the numbers; the code says which kind of mistake it is.
#pragma once

#include <stdexcept>
#include <string>

namespace lazyllm::inline v0 {

enum class ErrorCode {
  io,                ///< a file cannot be opened, read or written
  malformed,         ///< bytes that contradict their format
  unsupported,       ///< a valid file that asks for something this library does not do
  invalid_argument,  ///< a parameter outside its range
  limit,             ///< a request beyond a stated limit (context length, memory budget)
};

/// Thrown for bad input, before any work or allocation that depends on it.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace lazyllm::inline v0
