// Generated tasks of one model: its tokenizer and chat template, and the text that the tasks are made of.
#pragma once

#include "model_file.hpp"

#include <lazyllm/eval/item.hpp>
#include <lazyllm/eval/source_text.hpp>
#include <lazyllm/eval/task.hpp>
#include <lazyllm/text/chat_template.hpp>
#include <lazyllm/text/tokenizer.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace program {

class TaskSource {
 public:
  /// The files' texts are joined. Throws lazyllm::Error.
  TaskSource(const ModelFile& model, const std::vector<std::filesystem::path>& files, lazyllm::ItemOptions options,
             const Note& on_note);
  TaskSource(const TaskSource&) = delete;  // the maker refers to the rest
  TaskSource& operator=(const TaskSource&) = delete;

  /// A number that tells this text from others.
  [[nodiscard]] std::uint64_t text_checksum() const { return text_checksum_; }
  [[nodiscard]] lazyllm::Item make(const lazyllm::ItemKey& key) const { return maker_.make(key); }

  /// Items of each task and length take turns at the depths, those of one index beside each other: an interrupted run
  /// has some of everything. Makes one of each kind and throws lazyllm::Error where one does not fit the model's
  /// context.
  [[nodiscard]] std::vector<lazyllm::ItemKey> keys(const std::vector<lazyllm::Task>& tasks,
                                                   const std::vector<std::size_t>& lengths,
                                                   const std::vector<double>& depths, std::size_t items) const;

 private:
  std::size_t context_length_;
  lazyllm::Tokenizer tokenizer_;
  std::string text_;
  std::uint64_t text_checksum_;
  lazyllm::SourceText source_;
  std::optional<lazyllm::ChatTemplate> chat_;
  lazyllm::ItemMaker maker_;
};

}  // namespace program
