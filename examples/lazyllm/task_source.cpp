#include "task_source.hpp"

#include "input.hpp"

#include <lazyllm/core/checksum.hpp>
#include <lazyllm/core/error.hpp>

#include <algorithm>

namespace program {
namespace {

using namespace lazyllm;

constexpr std::size_t answer_slack = 32;  // items of one kind differ by the tokens of their answers

std::string all_text(const std::vector<std::filesystem::path>& files) {
  std::string text;
  for (const std::filesystem::path& file : files) text += read_text(file) + "\n";
  return text;
}

std::optional<ChatTemplate> chat_template(const GgufFile& gguf) {
  if (gguf.find("tokenizer.chat_template") == nullptr) return std::nullopt;
  return ChatTemplate::from_gguf(gguf);
}

}  // namespace

TaskSource::TaskSource(const ModelFile& model, const std::vector<std::filesystem::path>& files, ItemOptions options,
                       const Note& on_note)
    : context_length_(model.config.context_length),
      tokenizer_(Tokenizer::from_gguf(model.gguf)),
      text_(all_text(files)),
      text_checksum_(checksum(std::as_bytes(std::span(text_)))),
      source_(text_, tokenizer_),
      chat_(chat_template(model.gguf)),
      maker_(source_, tokenizer_, chat_ ? &*chat_ : nullptr, options) {
  note_missing_bytes(tokenizer_, text_, "text", on_note);
}

std::vector<ItemKey> TaskSource::keys(const std::vector<Task>& tasks, const std::vector<std::size_t>& lengths,
                                      const std::vector<double>& depths, std::size_t items) const {
  std::vector<ItemKey> keys;
  for (std::size_t index = 0; index < items; ++index) {
    for (const std::size_t length : lengths) {
      for (const Task task : tasks) keys.push_back({task, length, depths[index % depths.size()], index});
    }
  }
  for (const ItemKey& key : std::span(keys).first(std::min(keys.size(), lengths.size() * tasks.size()))) {
    const std::size_t slack = key.task == Task::continuation ? 0 : answer_slack;
    const std::size_t tokens = make(key).context_size() + slack;
    if (tokens > context_length_) {
      throw Error(ErrorCode::limit, "task " + std::string(name(key.task)) + " with prompts of " +
                                        std::to_string(key.length) + " tokens needs a context of " +
                                        std::to_string(tokens) + ", the model has " + std::to_string(context_length_));
    }
  }
  return keys;
}

}  // namespace program
