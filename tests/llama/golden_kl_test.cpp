// The real model against torch on the dequantised weights: KL(torch || ours) over the last 64 positions of 23 prompts.
// The goldens: tests/data/llama_golden, made by tests/golden/make_llama_golden.py.
#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/matrix_view.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/model_graph.hpp>
#include <lazyllm/io/gguf_parse.hpp>
#include <lazyllm/io/mapped_file.hpp>
#include <lazyllm/llama/model.hpp>
#include <lazyllm/llama/weights.hpp>
#include <lazyllm/parallel/cpu_count.hpp>
#include <lazyllm/parallel/thread_pool.hpp>
#include <lazyllm/simd/isa.hpp>

#include <doctest/doctest.h>

#include "support/build_kind.hpp"
#include "support/golden_kl.hpp"
#include "support/real_model.hpp"
#include "support/requantized.hpp"
#include "support/temporary_directory.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

namespace {

using namespace lazyllm;
using namespace lazyllm::test;

std::vector<GoldenPrompt> golden_prompts() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(LAZYLLM_TEST_DATA) + "/llama_golden")) {
    if (entry.path().extension() == ".bin") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<GoldenPrompt> prompts;
  for (const std::filesystem::path& path : paths) prompts.push_back(read_golden(path));
  return prompts;
}

/// Dense logits of the last `count` positions [count, vocab_size], by a plain loop over the layers.
template <LanguageGraph Graph>
AlignedBuffer<float> dense_logits(Graph& graph, const std::vector<TokenId>& ids, std::size_t count) {
  std::vector<TokenIndex> tokens(ids.size());
  std::iota(tokens.begin(), tokens.end(), TokenIndex{0});
  AlignedBuffer<float> hidden(ids.size() * graph.hidden_dim());
  const Rows rows(hidden.data(), ids.size(), graph.hidden_dim());
  graph.embed(ids, rows);
  for (LayerIndex layer = 0; layer < graph.layer_count(); ++layer) {
    const std::size_t outputs = layer + 1 == graph.layer_count() ? count : ids.size();
    graph.run_layer(LayerStep{
        .layer = layer, .rows = tokens, .keys = tokens, .outputs = outputs, .hidden = rows, .scores = ScoreView()});
  }
  AlignedBuffer<float> logits(count * graph.vocab_size());
  graph.project(rows.middle_rows(ids.size() - count, count), Rows(logits.data(), count, graph.vocab_size()));
  return logits;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

TEST_CASE("The golden prompts are at least 20, of 16 to 2,000 tokens, and their distributions sum to 1") {
  const std::vector<GoldenPrompt> prompts = golden_prompts();
  CHECK(prompts.size() >= 20);
  std::size_t shortest = 1 << 20;
  std::size_t longest = 0;
  for (const GoldenPrompt& prompt : prompts) {
    CAPTURE(prompt.name);
    shortest = std::min(shortest, prompt.ids.size());
    longest = std::max(longest, prompt.ids.size());
    CHECK(prompt.positions.size() == std::min<std::size_t>(64, prompt.ids.size()));
    for (const GoldenPosition& position : prompt.positions) {
      double sum = std::exp(position.tail_log_mass);
      for (const float log_p : position.top_log_p) sum += std::exp(double{log_p});
      // Each log-probability is rounded to float: half of 2^-24 of at most 16, relative to its term.
      CHECK(std::abs(sum - 1) <= 16 * 0x1p-25);
      CHECK(position.margin() >= 0);
    }
  }
  CHECK(shortest == 16);
  CHECK(longest == 2000);
}

TEST_CASE("The KL estimate is zero for torch's own logits and exact when only the top or a shift of all changes") {
  // Eight tokens, the top three listed; the tail's samples cover it evenly, so the estimate is exact up to rounding.
  const std::vector<double> p{0.4, 0.2, 0.15, 0.05, 0.05, 0.05, 0.05, 0.05};
  GoldenPosition position;
  for (std::size_t i = 0; i < 3; ++i) {
    position.top.push_back(static_cast<std::uint16_t>(i));
    position.top_log_p.push_back(static_cast<float>(std::log(p[i])));
  }
  for (std::size_t i = 3; i < 8; ++i) {
    position.samples.push_back(static_cast<std::uint16_t>(i));
    position.sample_log_p.push_back(static_cast<float>(std::log(p[i])));
  }
  position.tail_log_mass = std::log(0.25);

  for (const std::vector<double>& delta : {std::vector<double>(8, 0.0), std::vector<double>(8, 3.0),
                                           std::vector<double>{0.1, -0.2, 0.3, 0.5, -0.4, 0.2, 0.0, -0.1}}) {
    std::vector<float> logits;
    double sum = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      logits.push_back(static_cast<float>(std::log(p[i]) + delta[i]));
      sum += p[i] * std::exp(delta[i]);
    }
    double exact = std::log(sum);
    for (std::size_t i = 0; i < 8; ++i) exact -= p[i] * delta[i];
    CHECK(std::abs(golden_kl(position, logits) - exact) < 1e-6);  // floats of magnitude 3: 8 roundings of 2^-23
  }
}

TEST_CASE("The real model stays within 0.005 mean KL of torch and agrees with its clear top tokens") {
  const auto path = real_model_path();
  if (!path) {
    MESSAGE("skipped: LAZYLLM_MODEL is not set");
    return;
  }
  ThreadPool executor(cpu_count());
  const MappedFile file(*path);
  const auto weights = LlamaWeights<>::load(file, parse_gguf(file.bytes()), executor);

  std::vector<double> all;
  std::size_t clear = 0;
  std::size_t prompt_count = 0;
  std::ostringstream by_prompt;
  for (const GoldenPrompt& prompt : golden_prompts()) {
    if (sanitized_build && prompt.ids.size() > 24) continue;
    CAPTURE(prompt.name);
    REQUIRE(weights->config().vocab_size == prompt.vocab_size);
    ++prompt_count;
    Llama graph(weights, executor, prompt.ids.size());
    const std::size_t count = prompt.positions.size();
    const AlignedBuffer<float> logits = dense_logits(graph, prompt.ids, count);
    std::vector<double> kls;
    for (std::size_t i = 0; i < count; ++i) {
      CAPTURE(i);
      const std::span<const float> row = logits.span().subspan(i * prompt.vocab_size, prompt.vocab_size);
      kls.push_back(golden_kl(prompt.positions[i], row));
      if (prompt.positions[i].margin() <= 0.5) continue;
      ++clear;
      CHECK(std::max_element(row.begin(), row.end()) - row.begin() == prompt.positions[i].top[0]);
    }
    by_prompt << "\n  " << prompt.name << ": mean " << mean(kls) << ", max "
              << *std::max_element(kls.begin(), kls.end());
    all.insert(all.end(), kls.begin(), kls.end());
  }
  std::sort(all.begin(), all.end());
  std::ostringstream summary;
  summary << "KL(torch || ours) over " << all.size() << " positions of " << prompt_count << " prompts"
          << (sanitized_build ? " (sanitized build: the prompts of at most 24 tokens only, their mean is not judged)"
                              : "")
          << ": mean " << mean(all) << ", median " << all[all.size() / 2] << ", p99 " << all[all.size() * 99 / 100]
          << ", max " << all.back() << "; " << clear << " positions with a margin over 0.5" << by_prompt.str();
  MESSAGE(summary.str());
  if (!sanitized_build) CHECK(mean(all) <= 0.005);
}

TEST_CASE("Keys and values as kept by default cost at most 0.002 mean KL against float ones") {
  const auto path = real_model_path();
  if (!path) {
    MESSAGE("skipped: LAZYLLM_MODEL is not set");
    return;
  }
  ThreadPool executor(cpu_count());
  const MappedFile file(*path);
  const auto weights = LlamaWeights<>::load(file, parse_gguf(file.bytes()), executor);
  std::vector<double> between, float_to_torch, default_to_torch;
  for (const GoldenPrompt& prompt : golden_prompts()) {
    if (sanitized_build && prompt.ids.size() > 24) continue;
    Llama<AsStored, ThreadPool, KvCache<TokenMajor, float>> with_float(weights, executor, prompt.ids.size());
    Llama with_default(weights, executor, prompt.ids.size());
    const std::size_t count = prompt.positions.size();
    const AlignedBuffer<float> expected = dense_logits(with_float, prompt.ids, count);
    const AlignedBuffer<float> logits = dense_logits(with_default, prompt.ids, count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto row = [&](const AlignedBuffer<float>& rows) {
        return std::span<const float>(rows.span().subspan(i * prompt.vocab_size, prompt.vocab_size));
      };
      between.push_back(kl_divergence(row(expected), row(logits)));
      float_to_torch.push_back(golden_kl(prompt.positions[i], row(expected)));
      default_to_torch.push_back(golden_kl(prompt.positions[i], row(logits)));
    }
  }
  MESSAGE(name(active_isa()) << ": mean KL over " << between.size() << " positions: float KV to 8-bit KV "
                             << mean(between) << ", torch to float KV " << mean(float_to_torch)
                             << ", torch to 8-bit KV " << mean(default_to_torch));
  CHECK(mean(default_to_torch) - mean(float_to_torch) <= 0.002);
  // Elsewhere activations are rounded to 8 bits per block: any difference, however small, moves some of them by a step,
  // so that the two models differ by as much as either does from torch.
  if (active_isa() == Isa::amx) CHECK(mean(between) <= 0.002);
}

TEST_CASE("Each format, made from the real model's own weights, stays close to the model as stored") {
  const auto path = real_model_path();
  const bool slow = sanitized_build || active_isa() == Isa::portable || active_isa() == Isa::neon;
  if (!path || slow) {  // 17 models; NEON's tests run emulated
    MESSAGE("skipped: " << (path ? "a slow build or ISA" : "LAZYLLM_MODEL is not set"));
    return;
  }
  ThreadPool executor(cpu_count());
  const TemporaryDirectory directory;
  const MappedFile original(*path);
  const GgufFile gguf = parse_gguf(original.bytes());
  std::vector<GoldenPrompt> prompts = golden_prompts();
  std::erase_if(prompts, [](const GoldenPrompt& p) { return p.ids.size() < 80 || p.ids.size() > 128; });
  const auto logits_of = [&](const std::filesystem::path& model) {
    const MappedFile file(model);
    const auto weights = LlamaWeights<>::load(file, parse_gguf(file.bytes()), executor);
    std::vector<AlignedBuffer<float>> logits;
    for (const GoldenPrompt& prompt : prompts) {
      Llama graph(weights, executor, prompt.ids.size());
      logits.push_back(dense_logits(graph, prompt.ids, prompt.positions.size()));
    }
    return logits;
  };
  const std::vector<AlignedBuffer<float>> stored = logits_of(*path);

  // The layers' matrices whose rows are whole blocks of `type`, only those of ffn_down, or none.
  const auto mean_kl = [&](GgufType type, bool down_only) {
    const std::filesystem::path model = directory.path() / "requantized.gguf";
    requantized(original.bytes(), gguf, [&](const GgufTensor& tensor) {
      const bool matrix = tensor.name.starts_with("blk.") && tensor.shape.size() == 2;
      const bool wanted = matrix && (!down_only || tensor.name.ends_with("ffn_down.weight"));
      return wanted && tensor.shape[0] % type_layout(type).elements == 0 ? type : tensor.type;
    }).save(model);
    const std::vector<AlignedBuffer<float>> logits = logits_of(model);
    std::vector<double> kls;
    for (std::size_t p = 0; p < prompts.size(); ++p) {
      const std::size_t vocab = prompts[p].vocab_size;
      for (std::size_t i = 0; i < prompts[p].positions.size(); ++i) {
        kls.push_back(
            kl_divergence(stored[p].span().subspan(i * vocab, vocab), logits[p].span().subspan(i * vocab, vocab)));
      }
    }
    return mean(kls);
  };
  std::ostringstream table;
  std::map<GgufType, double> all, down;
  for (const GgufType type : {GgufType::q4_0, GgufType::q4_1, GgufType::q4_k, GgufType::q5_0, GgufType::q5_k,
                              GgufType::q6_k, GgufType::q8_0, GgufType::f16, GgufType::bf16, GgufType::f32}) {
    const bool k_quant = type_layout(type).elements == 256;  // only ffn_down has rows of whole blocks
    down[type] = mean_kl(type, true);
    table << "\n  " << name(type) << ": ffn_down " << down[type];
    if (k_quant) continue;
    all[type] = mean_kl(type, false);
    table << ", all matrices of the layers " << all[type];
  }
  MESSAGE(name(active_isa()) << ": mean KL(as stored || requantised) of " << prompts.size() << " prompts"
                             << table.str());
  // Weights that are off by more: more than any change makes by moving activations to other 8-bit codes.
  CHECK(all[GgufType::q4_0] > 2 * all[GgufType::q8_0]);
  CHECK(down[GgufType::q4_0] > down[GgufType::q4_k]);
  CHECK(all[GgufType::q4_0] > all[GgufType::q5_0]);
}
