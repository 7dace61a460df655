// The model that a command names: its file, opened and checked before the work, and its weights.
#pragma once

#include "options.hpp"

#include <lazyllm/io/gguf_parse.hpp>
#include <lazyllm/io/mapped_file.hpp>
#include <lazyllm/llama/config.hpp>
#include <lazyllm/llama/model.hpp>
#include <lazyllm/llama/weights.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/prune/schedule.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>

namespace program {

using Weights = lazyllm::LlamaWeights<lazyllm::AsStored>;

/// The model of every command. It is compiled once, in model_file.cpp: its kernels are most of the program.
using Model = lazyllm::Llama<lazyllm::AsStored>;

/// Shows how far a step of the work is.
using Progress = std::function<void(std::string_view what, std::uint64_t done, std::uint64_t total)>;

/// A model's file, parsed; the weights are not read yet. Throws lazyllm::Error.
struct ModelFile {
  explicit ModelFile(const std::filesystem::path& path)
      : file(path), gguf(lazyllm::parse_gguf(file.bytes())), config(lazyllm::LlamaConfig::from_gguf(gguf)) {}

  [[nodiscard]] std::shared_ptr<const Weights> load_weights(lazyllm::ThreadPool& pool, const Progress& progress) const;
  /// The schedule that the user named, checked against the model's layers. Throws lazyllm::Error.
  [[nodiscard]] lazyllm::StepSchedule schedule(const PruneSpec& spec) const;

  lazyllm::MappedFile file;
  lazyllm::GgufFile gguf;
  lazyllm::LlamaConfig config;
};

}  // namespace program

extern template class lazyllm::Llama<lazyllm::AsStored>;
