// Files and numbers from outside: prompt text and ids, the logits file, this process's memory.
#pragma once

#include <lazyllm/core/types.hpp>
#include <lazyllm/text/tokenizer.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace program {

// All throw lazyllm::Error that names the file.

/// All bytes of the file; "-" is standard input.
std::string read_text(const std::filesystem::path& path);

/// The file's contents become `text`.
void write_text(const std::filesystem::path& path, std::string_view text);

/// A file that holds a JSON array of token ids.
std::vector<lazyllm::TokenId> read_ids(const std::filesystem::path& path);

/// Says how many bytes of `what`, whose text this is, the model has no tokens for; nothing where it has all.
void note_missing_bytes(const lazyllm::Tokenizer& tokenizer, std::string_view text, std::string_view what,
                        const std::function<void(std::string_view)>& on_note);

/// There is a prompt, and its ids are in the vocabulary.
void check_prompt(std::span<const lazyllm::TokenId> prompt, std::size_t vocab_size);

/// A file of float32, little endian; opened at once, so that a wrong path shows before any work.
class FloatFile {
 public:
  explicit FloatFile(std::filesystem::path path);
  void write(std::span<const float> values);

 private:
  std::filesystem::path path_;
  std::ofstream file_;
};

/// Most memory that this process has had resident so far, or since forget_peak_rss.
std::uint64_t peak_rss_bytes();

/// The peak starts again from what is resident now. Does nothing where the system refuses.
void forget_peak_rss();

}  // namespace program
