#include "eval_report.hpp"

#include "formatted.hpp"

#include <lazyllm/eval/interval.hpp>
#include <lazyllm/eval/task.hpp>

#include <optional>
#include <string>
#include <vector>

namespace program {
namespace {

using namespace lazyllm;

std::string task_name(const SummaryRow& row) { return row.task ? std::string(name(*row.task)) : "all"; }

bool has_answers(const SummaryRow& row) { return row.task != Task::continuation; }

/// "93 % (81 to 98)"
std::string percent(double share, Interval interval) {
  return formatted("%.0f %% (%.0f to %.0f)", 100 * share, 100 * interval.low, 100 * interval.high);
}

std::string share_of(std::size_t part, std::size_t whole) {
  if (whole == 0) return "";
  return percent(static_cast<double>(part) / static_cast<double>(whole), wilson_interval(part, whole));
}

std::string net_change(const PairedCounts& counts) {
  const Interval interval = paired_interval(counts);
  return formatted("%+.1f (%+.1f to %+.1f)", 100 * counts.difference(), 100 * interval.low, 100 * interval.high);
}

std::string answer_table(const std::vector<SummaryRow>& rows) {
  std::string text;
  for (const SummaryRow& row : rows) {
    if (!has_answers(row)) continue;
    if (text.empty()) {
      text =
          "\n| policy | task | n | right | retained | net, points | log p | TTFT ms | speed-up | rows | decode rows |\n"
          "|---|---|---|---|---|---|---|---|---|---|---|\n";
    }
    const bool dense = row.policy == dense_policy;
    text += "| " + row.policy + " | " + task_name(row) + " | " + std::to_string(row.items()) + " | " +
            share_of(row.right(), row.items()) + " | " + (dense ? "" : share_of(row.counts.both, row.dense_right())) +
            " | " + (dense ? "" : net_change(row.counts)) + " | " +
            (dense ? "" : formatted("%+.2f", row.log_probability_change)) +
            formatted(" | %.0f | %.2f | %.1f %% | %.0f %% |\n", row.ttft_ms, row.speed_up, 100 * row.rows_share,
                      100 * row.decode_rows_share);
  }
  return text;
}

std::string continuation_table(const std::vector<SummaryRow>& rows) {
  std::string text;
  for (const SummaryRow& row : rows) {
    if (!row.continuation) continue;
    if (text.empty()) {
      text =
          "\n| policy | n | KL mean | KL median | KL p99 | same top token | perplexity | first difference | TTFT ms | "
          "speed-up | rows |\n|---|---|---|---|---|---|---|---|---|---|---|\n";
    }
    const ContinuationScore& score = *row.continuation;
    text += "| " + row.policy + " | " + std::to_string(row.items()) +
            formatted(" | %.4f | %.4f | %.3f | %.1f %% | x %.4f | ", score.kl_mean, score.kl_median, score.kl_p99,
                      100 * score.top1_agreement, score.perplexity_ratio) +
            (score.first_difference ? std::to_string(*score.first_difference) : "") +
            formatted(" | %.0f | %.2f | %.1f %% |\n", row.ttft_ms, row.speed_up, 100 * row.rows_share);
  }
  return text;
}

std::string time_table(const std::vector<SummaryRow>& rows) {
  std::string text;
  for (const SummaryRow& row : rows) {
    if (row.task) continue;
    if (text.empty()) {
      text =
          "\n| policy | tokens | n | right | net, points | TTFT ms | speed-up | rows "
          "|\n|---|---|---|---|---|---|---|---|\n";
    }
    text += "| " + row.policy + " | " + std::to_string(*row.length) + " | " + std::to_string(row.items()) + " | " +
            share_of(row.right(), row.items()) + " | " + (row.policy == dense_policy ? "" : net_change(row.counts)) +
            formatted(" | %.0f | %.2f | %.1f %% |\n", row.ttft_ms, row.speed_up, 100 * row.rows_share);
  }
  return text;
}

std::string csv_line(const SummaryRow& row) {
  const Interval right = wilson_interval(row.right(), row.items());
  const Interval retained = wilson_interval(row.counts.both, row.dense_right());
  const Interval net = paired_interval(row.counts);
  const ContinuationScore none;
  const ContinuationScore& score = row.continuation ? *row.continuation : none;
  return "\"" + row.policy + "\"," + task_name(row) + "," + (row.length ? std::to_string(*row.length) : "all") +
         formatted(",%zu,%zu,%.6f,%.6f,%zu,%zu,%.6f,%.6f,%.6f,%.6f,%.6f", row.items(), row.right(), right.low,
                   right.high, row.dense_right(), row.counts.both, retained.low, retained.high, row.counts.difference(),
                   net.low, net.high) +
         formatted(",%.6f,%.3f,%.4f,%.6f,%.6f", row.log_probability_change, row.ttft_ms, row.speed_up, row.rows_share,
                   row.decode_rows_share) +
         formatted(",%.6f,%.6f,%.6f,%.6f,%.6f\n", score.kl_mean, score.kl_median, score.kl_p99, score.top1_agreement,
                   score.perplexity_ratio);
}

}  // namespace

std::string eval_markdown(const EvalReport& report) {
  return report.model + ", " + std::string(name(report.isa)) + ", " + std::to_string(report.threads) + " threads\n" +
         answer_table(report.rows) + continuation_table(report.rows) + time_table(report.by_length);
}

std::string eval_csv(const EvalReport& report) {
  std::string text =
      "policy,task,length,n,right,right_low,right_high,dense_right,retained,retained_low,retained_high,net,net_low,"
      "net_high,log_probability_change,ttft_ms,speed_up,rows_share,decode_rows_share,kl_mean,kl_median,kl_p99,"
      "top1_agreement,perplexity_ratio\n";
  for (const auto* rows : {&report.rows, &report.by_length}) {
    for (const SummaryRow& row : *rows) text += csv_line(row);
  }
  return text;
}

}  // namespace program
