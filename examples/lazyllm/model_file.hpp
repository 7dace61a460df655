// The model that a command names: its file, opened and checked before the work, and its weights.
#pragma once

#include "options.hpp"

#include <lazyllm/io/gguf_fingerprint.hpp>
#include <lazyllm/io/gguf_parse.hpp>
#include <lazyllm/io/mapped_file.hpp>
#include <lazyllm/llama/config.hpp>
#include <lazyllm/llama/model.hpp>
#include <lazyllm/llama/recommended.hpp>
#include <lazyllm/llama/weights.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/prune/schedule.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace program {

using Weights = lazyllm::LlamaWeights<lazyllm::AsStored>;

/// The model of every command. It is compiled once, in model_file.cpp: its kernels are most of the program.
using Model = lazyllm::Llama<lazyllm::AsStored>;

/// Shows how far a step of the work is.
using Progress = std::function<void(std::string_view what, std::uint64_t done, std::uint64_t total)>;

/// Shows a line for people.
using Note = std::function<void(std::string_view)>;

/// The schedules that `safe`, `auto` and `fast` stand for, and where they come from, in words.
struct ModelPresets {
  lazyllm::PresetSchedules schedules;
  std::string source;
};

/// Makes fresh graphs over the same weights.
struct ModelMaker {
  std::shared_ptr<const Weights> weights;
  lazyllm::ThreadPool& pool;
  Model operator()(std::size_t tokens) const { return Model(weights, pool, tokens); }
};

/// A model's file, parsed; the weights are not read yet. Throws lazyllm::Error.
struct ModelFile {
  explicit ModelFile(std::filesystem::path model_path)
      : path(std::move(model_path)),
        file(path),
        gguf(lazyllm::parse_gguf(file.bytes())),
        config(lazyllm::LlamaConfig::from_gguf(gguf)) {}

  [[nodiscard]] std::shared_ptr<const Weights> load_weights(lazyllm::ThreadPool& pool, const Progress& progress) const;
  [[nodiscard]] std::uint64_t fingerprint() const { return lazyllm::fingerprint(file.bytes(), gguf); }
  /// From the file beside the model (presets_file.hpp), else those measured on it, else the safe rule. Throws
  /// lazyllm::Error where that file cannot be used.
  [[nodiscard]] ModelPresets presets() const;
  /// The schedule that the user named, checked against the model's layers; says which one a preset is. Throws
  /// lazyllm::Error.
  [[nodiscard]] lazyllm::StepSchedule schedule(const PruneSpec& spec, const Note& on_note) const;

  std::filesystem::path path;
  lazyllm::MappedFile file;
  lazyllm::GgufFile gguf;
  lazyllm::LlamaConfig config;
};

}  // namespace program

extern template class lazyllm::Llama<lazyllm::AsStored>;
