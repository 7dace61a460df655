#include "eval_file.hpp"

#include "input.hpp"

#include <lazyllm/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

namespace program {
namespace {

using namespace lazyllm;
using Json = nlohmann::ordered_json;

Json json_of(const ContinuationScore& score) {
  Json object = {{"positions", score.positions},
                 {"kl_mean", score.kl_mean},
                 {"kl_median", score.kl_median},
                 {"kl_p99", score.kl_p99},
                 {"top1_agreement", score.top1_agreement},
                 {"perplexity_ratio", score.perplexity_ratio},
                 {"first_difference", nullptr}};
  if (score.first_difference) object["first_difference"] = *score.first_difference;
  return object;
}

ContinuationScore continuation_of(const Json& object) {
  ContinuationScore score{.positions = object.at("positions"),
                          .kl_mean = object.at("kl_mean"),
                          .kl_median = object.at("kl_median"),
                          .kl_p99 = object.at("kl_p99"),
                          .top1_agreement = object.at("top1_agreement"),
                          .perplexity_ratio = object.at("perplexity_ratio")};
  if (!object.at("first_difference").is_null()) score.first_difference = object["first_difference"].get<std::size_t>();
  return score;
}

Record record_of(const Json& object) {
  Record record;
  record.item = {.task = task_named(object.at("task").get<std::string>()),
                 .length = object.at("length"),
                 .depth = object.at("depth"),
                 .index = object.at("item")};
  record.policy = object.at("policy");
  record.result.score = {.tokens = object.at("answer_tokens"),
                         .log_probability = object.at("log_probability"),
                         .worst_rank = object.at("worst_rank")};
  record.result.costs = {.ttft_ms = object.at("ttft_ms"),
                         .total_ms = object.at("total_ms"),
                         .prompt_tokens = object.at("prompt_tokens"),
                         .rows_computed = object.at("rows_computed"),
                         .rows_dense = object.at("rows_dense"),
                         .decode_rows_computed = object.at("decode_rows_computed"),
                         .cache_bytes = object.at("cache_bytes")};
  if (object.contains("continuation")) record.continuation = continuation_of(object["continuation"]);
  return record;
}

/// Nothing for a line that is no record.
std::optional<Record> parse_record(std::string_view line) {
  try {
    return record_of(Json::parse(line));
  } catch (const Json::exception&) {
  } catch (const Error&) {  // a task of another version
  }
  return std::nullopt;
}

}  // namespace

std::string record_line(const Record& record) {
  const ItemCosts& costs = record.result.costs;
  Json object = {{"task", name(record.item.task)},
                 {"length", record.item.length},
                 {"depth", record.item.depth},
                 {"item", record.item.index},
                 {"policy", record.policy},
                 {"right", record.result.score.right()},
                 {"answer_tokens", record.result.score.tokens},
                 {"log_probability", record.result.score.log_probability},
                 {"worst_rank", record.result.score.worst_rank},
                 {"ttft_ms", costs.ttft_ms},
                 {"total_ms", costs.total_ms},
                 {"prompt_tokens", costs.prompt_tokens},
                 {"rows_computed", costs.rows_computed},
                 {"rows_dense", costs.rows_dense},
                 {"decode_rows_computed", costs.decode_rows_computed},
                 {"cache_bytes", costs.cache_bytes}};
  if (record.continuation) object["continuation"] = json_of(*record.continuation);
  return object.dump() + "\n";
}

RecordFile::RecordFile(const std::filesystem::path& path, const std::string& run) : path_(path) {
  std::string text = std::filesystem::exists(path) ? read_text(path) : "";
  std::size_t good = 0;  // bytes of whole lines
  for (std::size_t line_end = 0; (line_end = text.find('\n', good)) != std::string::npos; good = line_end + 1) {
    const std::string_view line = std::string_view(text).substr(good, line_end - good);
    if (good == 0) {
      if (line != run) {
        throw Error(ErrorCode::invalid_argument, path.string() + " is of another run: it begins " +
                                                     std::string(line.substr(0, 400)) + ", this one " + run);
      }
      continue;
    }
    std::optional<Record> record = parse_record(line);
    if (!record) {
      if (line_end + 1 == text.size()) break;
      throw Error(ErrorCode::malformed, path.string() + ": the line at byte " + std::to_string(good) + " is no record");
    }
    records_.push_back(std::move(*record));
  }
  if (good < text.size()) std::filesystem::resize_file(path, good);
  file_.open(path, std::ios::binary | std::ios::app);
  if (good == 0) file_ << run << "\n";
  if (!file_.flush()) throw Error(ErrorCode::io, "cannot write " + path.string());
}

void RecordFile::append(Record record) {
  if (!path_.empty()) {
    file_ << record_line(record);
    if (!file_.flush()) throw Error(ErrorCode::io, "cannot write " + path_.string());
  }
  records_.push_back(std::move(record));
}

const Record* RecordFile::find(const ItemKey& item, const std::string& policy) const {
  const auto found =
      std::ranges::find_if(records_, [&](const Record& r) { return r.item == item && r.policy == policy; });
  return found == records_.end() ? nullptr : &*found;
}

}  // namespace program
