// lazyllm: generates text from a GGUF model, dense or with LazyLLM. `lazyllm generate --help` lists the options.
#include "options.hpp"
#include "report.hpp"
#include "run.hpp"

#include <lazyllm/core/error.hpp>

#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>
#include <variant>

namespace {

constexpr int run_time_error = 1;

/// Writes all of it now; false when standard output is gone.
bool write_out(std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
}

/// One line that is rewritten, and only where someone watches; gone when the step is done.
void show_progress(std::string_view what, std::uint64_t done, std::uint64_t total) {
  static const bool watched = isatty(STDERR_FILENO) != 0;
  if (!watched || total == 0) return;
  if (done >= total) {
    std::fputs("\r\033[K", stderr);
  } else {
    const auto percent = static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total));
    std::fprintf(stderr, "\r%.*s %d %%\033[K", static_cast<int>(what.size()), what.data(), percent);
  }
  std::fflush(stderr);
}

int generate(const program::Options& options) {
  bool written = true;
  const auto on_text = [&](std::string_view text) { return options.json || (written = write_out(text)); };
  const auto on_note = [](std::string_view note) {
    std::fprintf(stderr, "lazyllm: %.*s\n", static_cast<int>(note.size()), note.data());
  };
  const program::Report report = program::run(options, {on_text, on_note, show_progress});
  if (written) written = write_out(options.json ? program::json_report(report, options.trace) : "\n");
  if (!written) throw lazyllm::Error(lazyllm::ErrorCode::io, "cannot write to standard output");
  if (!options.json) {
    if (options.trace) std::fputs(program::text_trace(report).c_str(), stderr);
    std::fputs(program::text_report(report).c_str(), stderr);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const auto options = program::parse_options(argc, argv);
    if (const int* status = std::get_if<int>(&options)) return *status;
    return generate(std::get<program::Options>(options));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lazyllm: %s\n", error.what());
    return run_time_error;
  }
}
