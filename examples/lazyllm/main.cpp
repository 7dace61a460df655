// lazyllm: generates text from a GGUF model, dense or with LazyLLM, and measures how fast. `lazyllm --help` lists the
// commands.
#include "bench.hpp"
#include "bench_report.hpp"
#include "calibrate.hpp"
#include "eval.hpp"
#include "eval_report.hpp"
#include "generate.hpp"
#include "generate_report.hpp"
#include "options.hpp"
#include "perplexity.hpp"

#include <lazyllm/core/error.hpp>

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <type_traits>
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

void show_note(std::string_view note) {
  std::fprintf(stderr, "lazyllm: %.*s\n", static_cast<int>(note.size()), note.data());
}

void check_written(bool written) {
  if (!written) throw lazyllm::Error(lazyllm::ErrorCode::io, "cannot write to standard output");
}

void run(const program::GenerateCommand& command) {
  bool written = true;
  const auto on_text = [&](std::string_view text) { return command.json || (written = write_out(text)); };
  const program::GenerateReport report = program::run_generate(command, {on_text, show_note, show_progress});
  if (written) written = write_out(command.json ? program::json_report(report, command.trace) : "\n");
  check_written(written);
  if (!command.json) {
    if (command.trace) std::fputs(program::text_trace(report).c_str(), stderr);
    std::fputs(program::text_report(report).c_str(), stderr);
  }
}

void run(const program::BenchCommand& command) {
  check_written(
      write_out(program::bench_report(program::run_bench(command, show_progress, show_note), command.format)));
}

void run(const program::EvalCommand& command) {
  check_written(write_out(program::eval_markdown(program::run_eval(command, show_progress, show_note))));
}

void run(const program::PerplexityCommand& command) {
  const program::PerplexityReport report = program::run_perplexity(command, show_progress, show_note);
  check_written(write_out(program::perplexity_report(report, command.json)));
}

volatile std::sig_atomic_t was_interrupted = 0;

void run(const program::CalibrateCommand& command) {
  std::signal(SIGINT, [](int) {
    was_interrupted = 1;
    std::signal(SIGINT, SIG_DFL);  // the second one ends the program at once
  });
  const program::CalibrationReport report =
      program::run_calibrate(command, show_progress, show_note, [] { return was_interrupted != 0; });
  check_written(write_out(program::calibration_markdown(report)));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const auto command = program::parse_options(argc, argv);
    if (const int* status = std::get_if<int>(&command)) return *status;
    std::visit(
        [](const auto& parsed) {
          if constexpr (!std::is_same_v<decltype(parsed), const int&>) run(parsed);
        },
        command);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lazyllm: %s\n", error.what());
    return run_time_error;
  }
}
