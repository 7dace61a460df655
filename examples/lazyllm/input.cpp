#include "input.hpp"

#include <lazyllm/core/error.hpp>

#include <sys/resource.h>

#include <bit>
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

namespace program {

using lazyllm::Error;
using lazyllm::ErrorCode;
using lazyllm::TokenId;
using lazyllm::Tokenizer;

std::string read_text(const std::filesystem::path& path) {
  const bool standard_input = path == "-";
  std::ifstream file;
  if (!standard_input) {
    file.open(path, std::ios::binary);
    if (!file || std::filesystem::is_directory(path)) {
      throw Error(ErrorCode::io, "cannot open " + path.string());
    }
  }
  std::istream& input = standard_input ? std::cin : file;
  std::string text(std::istreambuf_iterator<char>(input), {});
  if (input.bad()) throw Error(ErrorCode::io, "cannot read " + path.string());
  return text;
}

void write_text(const std::filesystem::path& path, std::string_view text) {
  if (!(std::ofstream(path, std::ios::binary) << text << std::flush)) {
    throw Error(ErrorCode::io, "cannot write " + path.string());
  }
}

std::vector<TokenId> read_ids(const std::filesystem::path& path) {
  const auto wrong = [&](const std::string& what) {
    return Error(ErrorCode::malformed, path.string() + ": " + what + "; wanted is a JSON array of token ids");
  };
  const nlohmann::json values = nlohmann::json::parse(read_text(path), nullptr, false);
  if (values.is_discarded()) throw wrong("not valid JSON");
  if (!values.is_array()) throw wrong(std::string("a JSON ") + values.type_name());
  std::vector<TokenId> ids;
  ids.reserve(values.size());
  for (const nlohmann::json& value : values) {
    constexpr std::int64_t most = std::numeric_limits<TokenId>::max();
    if (!value.is_number_integer() || value.get<std::int64_t>() < 0 || value.get<std::int64_t>() > most) {
      throw wrong("element " + std::to_string(ids.size()) + " is no token id");
    }
    ids.push_back(static_cast<TokenId>(value.get<std::int64_t>()));
  }
  return ids;
}

void note_missing_bytes(const Tokenizer& tokenizer, std::string_view text, std::string_view what,
                        const std::function<void(std::string_view)>& on_note) {
  const std::size_t missing = tokenizer.missing_bytes(text);
  if (missing == 0) return;
  on_note(std::to_string(missing) + " bytes of the " + std::string(what) +
          " have no token in this model and are left out");
}

void check_prompt(std::span<const TokenId> prompt, std::size_t vocab_size) {
  if (prompt.empty()) throw Error(ErrorCode::invalid_argument, "the prompt is empty");
  for (const TokenId id : prompt) {
    if (id < 0 || static_cast<std::size_t>(id) >= vocab_size) {
      throw Error(ErrorCode::invalid_argument, "token id " + std::to_string(id) + " is outside the vocabulary of " +
                                                   std::to_string(vocab_size) + " tokens");
    }
  }
}

FloatFile::FloatFile(std::filesystem::path path) : path_(std::move(path)), file_(path_, std::ios::binary) {
  if (!file_) throw Error(ErrorCode::io, "cannot write " + path_.string());
}

void FloatFile::write(std::span<const float> values) {
  static_assert(std::endian::native == std::endian::little);
  const auto bytes = std::as_bytes(values);
  file_.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file_.flush()) throw Error(ErrorCode::io, "cannot write " + path_.string());
}

std::uint64_t peak_rss_bytes() {
  // The kernel's own number of this program; getrusage's may be that of the process that started it.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  rusage usage{};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<std::uint64_t>(usage.ru_maxrss) * 1024 : 0;
}

void forget_peak_rss() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace program
