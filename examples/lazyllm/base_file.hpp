// A file with the logits of a whole perplexity run: the base that another model, format or schedule is compared with.
// Each scored position's log-probabilities lie in [largest - 24, largest] as 16-bit steps, rounded: an error of at most
// 0.0002; what is less likely than that is stored as the least.
#pragma once

#include <lazyllm/core/types.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <vector>

namespace program {

/// What was scored: files are compared only where all of it is the same.
struct BaseScope {
  std::uint64_t vocab_size = 0;
  std::uint64_t chunk_tokens = 0;
  std::uint64_t positions = 0;      // scored, of all chunks
  std::uint64_t text_checksum = 0;  // of the chunks' token ids
  friend bool operator==(const BaseScope&, const BaseScope&) = default;
};

/// The scope of a run over these chunks, which are of one size.
BaseScope base_scope(std::span<const std::vector<lazyllm::TokenId>> chunks, std::size_t vocab_size);

/// Opened at once, so that a wrong path shows before any work. All throw lazyllm::Error that names the file.
class BaseWriter {
 public:
  BaseWriter(std::filesystem::path path, const BaseScope& scope);
  /// The next position's logits [vocab_size].
  void write(std::span<const float> logits);

 private:
  std::filesystem::path path_;
  std::ofstream file_;
  std::vector<std::uint16_t> codes_;
};

class BaseReader {
 public:
  /// Throws lazyllm::Error for a file that is none, is not whole, or is of another scope.
  BaseReader(std::filesystem::path path, const BaseScope& scope);
  /// The next position's log-probabilities, valid until the next call.
  std::span<const float> read();

 private:
  std::filesystem::path path_;
  std::ifstream file_;
  std::vector<std::uint16_t> codes_;
  std::vector<float> row_;
};

}  // namespace program
