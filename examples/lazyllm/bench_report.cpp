#include "bench_report.hpp"

#include "formatted.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

namespace program {
namespace {

const char* name(BenchKind kind) { return kind == BenchKind::prefill ? "prefill" : "decode"; }

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// Of the sample; 0 for one value.
double deviation(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double centre = mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - centre) * (value - centre);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

std::string isa_name(const BenchReport& report) { return std::string(lazyllm::name(report.isa)); }

std::string json(const BenchReport& report) {
  nlohmann::ordered_json array = nlohmann::ordered_json::array();
  for (const BenchRow& row : report.rows) {
    array.push_back({{"kind", name(row.kind)},
                     {"tokens", row.tokens},
                     {"depth", row.depth},
                     {"threads", report.threads},
                     {"isa", isa_name(report)},
                     {"prune", row.prune},
                     {"tokens_per_s", row.tokens_per_s},
                     {"median_tokens_per_s", median(row.tokens_per_s)},
                     {"rows_computed", row.rows_computed},
                     {"peak_rss_bytes", row.peak_rss_bytes}});
  }
  return array.dump(2) + "\n";
}

std::string csv(const BenchReport& report) {
  std::string text =
      "kind,tokens,depth,threads,isa,prune,median_tokens_per_s,mean_tokens_per_s,deviation_tokens_per_s,rows_computed,"
      "peak_rss_bytes\n";
  for (const BenchRow& row : report.rows) {
    text += formatted("%s,%zu,%zu,%zu,%s,\"%s\",%.3f,%.3f,%.3f,%zu,%llu\n", name(row.kind), row.tokens, row.depth,
                      report.threads, isa_name(report).c_str(), row.prune.c_str(), median(row.tokens_per_s),
                      mean(row.tokens_per_s), deviation(row.tokens_per_s), row.rows_computed,
                      static_cast<unsigned long long>(row.peak_rss_bytes));
  }
  return text;
}

std::string markdown(const BenchReport& report) {
  std::string text = report.model + ", " + isa_name(report) + ", " + std::to_string(report.threads) + " threads\n\n" +
                     "| test | prune | tokens/s | rows computed | peak RSS, MB |\n|---|---|---:|---:|---:|\n";
  for (const BenchRow& row : report.rows) {
    std::string test = name(row.kind) + formatted(" %zu", row.tokens);
    if (row.kind == BenchKind::decode) test += formatted(" after %zu", row.depth);
    text +=
        formatted("| %s | %s | %.2f ± %.2f | %zu | %.1f |\n", test.c_str(), row.prune.c_str(), mean(row.tokens_per_s),
                  deviation(row.tokens_per_s), row.rows_computed, megabytes(row.peak_rss_bytes));
  }
  return text;
}

}  // namespace

std::string bench_report(const BenchReport& report, BenchFormat format) {
  switch (format) {
    case BenchFormat::markdown: return markdown(report);
    case BenchFormat::csv: return csv(report);
    case BenchFormat::json: return json(report);
  }
  return {};
}

}  // namespace program
