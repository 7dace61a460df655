// The records of an evaluation as lines of JSON: one object that says what was run, then one for each record.
#pragma once

#include <lazyllm/eval/record.hpp>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace program {

/// One line, with its end.
std::string record_line(const lazyllm::Record& record);

/// A file that records are appended to as they are made. Without a path the records are only kept.
class RecordFile {
 public:
  RecordFile() = default;
  /// Opens the file, or begins one with `run`, one line of JSON. A last line that is damaged or not ended, as an
  /// interruption leaves it, is cut off. Throws lazyllm::Error where the file is of another run or damaged elsewhere.
  RecordFile(const std::filesystem::path& path, const std::string& run);

  void append(lazyllm::Record record);
  [[nodiscard]] const std::vector<lazyllm::Record>& records() const { return records_; }
  [[nodiscard]] const lazyllm::Record* find(const lazyllm::ItemKey& item, const std::string& policy) const;

 private:
  std::filesystem::path path_;
  std::ofstream file_;
  std::vector<lazyllm::Record> records_;
};

}  // namespace program
