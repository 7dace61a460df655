// What one policy does on one task, over many items: accuracy and costs beside those of the dense model.
// Everything relative is relative to the dense model on the same items; shares have 95 % intervals (eval/interval.hpp).
// Source: this library's.
#pragma once

#include <lazyllm/eval/any_policy.hpp>
#include <lazyllm/eval/continuation.hpp>
#include <lazyllm/eval/interval.hpp>
#include <lazyllm/eval/record.hpp>
#include <lazyllm/eval/task.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// What one policy does on one task.
struct SummaryRow {
  std::string policy;
  std::optional<Task> task;           ///< none: all tasks with an answer
  std::optional<std::size_t> length;  ///< none: all lengths
  PairedCounts counts = {};           ///< first: the dense model, second: the policy
  double log_probability_change = 0;  ///< of the answer, mean over items, in nats
  double ttft_ms = 0;                 ///< median
  double speed_up = 1;                ///< median over items of dense TTFT / TTFT
  double rows_share = 1;              ///< mean over items: rows computed of dense rows, in prefills
  double decode_rows_share = 1;       ///< the same in decode steps
  std::optional<ContinuationScore> continuation =
      {};  ///< means over items; first_difference: the median of those that differ

  [[nodiscard]] std::size_t items() const { return counts.count(); }
  [[nodiscard]] std::size_t right() const { return counts.both + counts.gained; }
  [[nodiscard]] std::size_t dense_right() const { return counts.both + counts.lost; }
};

/// The row of the records of `policy` that match; nothing where none does. Records without a dense one of the same item
/// are left out.
[[nodiscard]] std::optional<SummaryRow> summarise(std::span<const Record> records, const std::string& policy,
                                                  std::optional<Task> task = {},
                                                  std::optional<std::size_t> length = {});

/// Rows by task, then all tasks together, each in the order of the policies; as far as there are records.
[[nodiscard]] std::vector<SummaryRow> summary_rows(std::span<const Record> records,
                                                   std::span<const PolicySpec> policies, std::span<const Task> tasks,
                                                   std::optional<std::size_t> length = {});

namespace detail {

inline double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

/// a / b; 1 where there is nothing to compare.
inline double share(double a, double b) { return b > 0 ? a / b : 1; }
inline double share(std::size_t a, std::size_t b) { return share(static_cast<double>(a), static_cast<double>(b)); }

/// Of several items' scores, at least one.
inline ContinuationScore mean_continuation(const std::vector<ContinuationScore>& scores) {
  const auto over = [&](auto member) {
    double sum = 0;
    for (const ContinuationScore& score : scores) sum += score.*member;
    return sum / static_cast<double>(scores.size());
  };
  ContinuationScore result{.kl_mean = over(&ContinuationScore::kl_mean),
                           .kl_median = over(&ContinuationScore::kl_median),
                           .kl_p99 = over(&ContinuationScore::kl_p99),
                           .top1_agreement = over(&ContinuationScore::top1_agreement),
                           .perplexity_ratio = over(&ContinuationScore::perplexity_ratio)};
  std::vector<double> firsts;
  for (const ContinuationScore& score : scores) {
    result.positions += score.positions;
    if (score.first_difference) firsts.push_back(static_cast<double>(*score.first_difference));
  }
  if (!firsts.empty()) result.first_difference = static_cast<std::size_t>(quantile(firsts, 0.5));
  return result;
}

}  // namespace detail

inline std::optional<SummaryRow> summarise(std::span<const Record> records, const std::string& policy,
                                           std::optional<Task> task, std::optional<std::size_t> length) {
  SummaryRow row{.policy = policy, .task = task, .length = length};
  std::vector<double> changes, times, speed_ups, shares, decode_shares;
  std::vector<ContinuationScore> continuations;
  const auto matches = [&](const Record& record) {
    if (record.policy != policy || (length && record.item.length != *length)) return false;
    return task ? record.item.task == *task : record.item.task != Task::continuation;
  };
  for (const Record& record : records) {
    if (!matches(record)) continue;
    const auto dense = std::ranges::find_if(
        records, [&](const Record& r) { return r.policy == dense_policy && r.item == record.item; });
    if (dense == records.end()) continue;
    const bool dense_right = dense->result.score.right();
    const bool right = record.result.score.right();
    ++(right ? (dense_right ? row.counts.both : row.counts.gained)
             : (dense_right ? row.counts.lost : row.counts.neither));
    const ItemCosts& costs = record.result.costs;
    changes.push_back(record.result.score.log_probability - dense->result.score.log_probability);
    times.push_back(costs.ttft_ms);
    speed_ups.push_back(detail::share(dense->result.costs.ttft_ms, costs.ttft_ms));
    shares.push_back(detail::share(costs.rows_computed, costs.rows_dense));
    decode_shares.push_back(detail::share(costs.decode_rows_computed, dense->result.costs.decode_rows_computed));
    if (record.continuation) continuations.push_back(*record.continuation);
  }
  if (times.empty()) return std::nullopt;
  row.log_probability_change = detail::mean(changes);
  row.ttft_ms = quantile(times, 0.5);
  row.speed_up = quantile(speed_ups, 0.5);
  row.rows_share = detail::mean(shares);
  row.decode_rows_share = detail::mean(decode_shares);
  if (!continuations.empty()) row.continuation = detail::mean_continuation(continuations);
  return row;
}

inline std::vector<SummaryRow> summary_rows(std::span<const Record> records, std::span<const PolicySpec> policies,
                                            std::span<const Task> tasks, std::optional<std::size_t> length) {
  std::vector<std::optional<Task>> groups(tasks.begin(), tasks.end());
  groups.emplace_back();
  std::vector<SummaryRow> rows;
  for (const std::optional<Task>& group : groups) {
    for (const PolicySpec& policy : policies) {
      if (auto row = summarise(records, policy.text, group, length)) rows.push_back(std::move(*row));
    }
  }
  return rows;
}

}  // namespace lazyllm::inline v0
