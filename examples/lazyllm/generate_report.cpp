#include "generate_report.hpp"

#include "formatted.hpp"

#include <nlohmann/json.hpp>

namespace program {
namespace {

double per_second(std::size_t count, std::chrono::duration<double> time) {
  return time.count() > 0 ? static_cast<double>(count) / time.count() : 0.0;
}

/// The first token comes with the prefill; the others take decode_time.
double decode_tokens_per_second(const lazyllm::Generation& generation) {
  return generation.ids.size() < 2 ? 0.0 : per_second(generation.ids.size() - 1, generation.decode_time);
}

const char* name(lazyllm::FinishReason reason) {
  switch (reason) {
    case lazyllm::FinishReason::stop: return "stop";
    case lazyllm::FinishReason::length: return "length";
    case lazyllm::FinishReason::cancelled: return "cancelled";
  }
  return "?";
}

double milliseconds(std::chrono::duration<double> time) { return time.count() * 1e3; }

}  // namespace

std::string json_report(const GenerateReport& report, bool with_indices) {
  using Json = nlohmann::ordered_json;
  const lazyllm::Generation& generation = report.generation;
  Json kept = Json::array();
  for (const Kept& selection : report.kept) {
    Json entry = {{"step", selection.step}, {"layer", selection.layer}, {"count", selection.count}};
    if (with_indices) entry["indices"] = selection.indices;
    kept.push_back(std::move(entry));
  }
  const Json object = {
      {"prompt_tokens", report.prompt_tokens},
      {"ids", generation.ids},
      {"text", generation.text},
      {"finish", name(generation.finish)},
      {"ttft_ms", milliseconds(generation.time_to_first_logits)},
      {"prefill_tokens_per_s", per_second(report.prompt_tokens, generation.time_to_first_logits)},
      {"decode_tokens_per_s", decode_tokens_per_second(generation)},
      {"rows_computed", report.rows_computed},
      {"rows_dense", report.rows_dense},
      {"decode_rows_computed", report.decode_rows_computed},
      {"revived", generation.revived},
      {"kept", std::move(kept)},
      {"aux_bytes", report.aux_bytes},
      {"kv_bytes", report.kv_bytes},
      {"peak_rss_bytes", report.peak_rss_bytes},
      {"isa", lazyllm::name(report.isa)},
      {"threads", report.threads},
  };
  // A model may generate bytes that are no UTF-8; JSON cannot hold them.
  return object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string text_report(const GenerateReport& report) {
  const lazyllm::Generation& generation = report.generation;
  std::size_t revived = 0;
  for (const std::size_t count : generation.revived) revived += count;
  const double share = 100.0 * static_cast<double>(report.rows_computed) / static_cast<double>(report.rows_dense);
  return formatted(
             "prefill: %zu tokens, first logits after %.1f ms (%.1f tokens/s), %zu of %zu rows computed (%.1f %%)\n",
             report.prompt_tokens, milliseconds(generation.time_to_first_logits),
             per_second(report.prompt_tokens, generation.time_to_first_logits), report.rows_computed, report.rows_dense,
             share) +
         formatted("decode: %zu tokens (%.1f tokens/s), %zu rows computed, %zu revived, finish: %s\n",
                   generation.ids.size(), decode_tokens_per_second(generation), report.decode_rows_computed, revived,
                   name(generation.finish)) +
         formatted("memory: KV %.1f MB, Aux Cache %.1f MB, peak RSS %.1f MB; %s, %zu threads\n",
                   megabytes(report.kv_bytes), megabytes(report.aux_bytes), megabytes(report.peak_rss_bytes),
                   std::string(lazyllm::name(report.isa)).c_str(), report.threads);
}

std::string text_trace(const GenerateReport& report) {
  std::string text;
  for (const Kept& selection : report.kept) {
    text += formatted("step %zu, after layer %zu: %zu kept:", selection.step, selection.layer, selection.count);
    const std::vector<lazyllm::TokenIndex>& kept = selection.indices;
    for (std::size_t begin = 0, end = 0; begin < kept.size(); begin = end) {
      end = begin + 1;
      while (end < kept.size() && kept[end] == kept[end - 1] + 1) ++end;
      text += " " + std::to_string(kept[begin]);
      if (end - begin > 1) text += "-" + std::to_string(kept[end - 1]);
    }
    text += "\n";
  }
  return text;
}

}  // namespace program
