#include "formatted.hpp"

#include <cstdarg>
#include <cstdio>

namespace program {

std::string formatted(const char* format, ...) {
  char line[512];
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  return line;
}

}  // namespace program
