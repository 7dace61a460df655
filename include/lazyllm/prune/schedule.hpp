// When to prune, how much to keep there and by which score: a list of entries, and its text form "7:512/max~15,20:p30".
// The scores of layer `layer` (from 0) decide who enters layer + 1.
// Source: progressive pruning, LazyLLM, arXiv 2407.14057, section 3.2; the text form is this library's.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/prune/keep_rule.hpp>
#include <lazyllm/prune/scorer.hpp>
#include <lazyllm/prune/selection.hpp>

#include <algorithm>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

/// After which layer to prune (before_first_layer only by a policy that needs no scores), what to keep there, and by
/// which score (none: the policy's).
struct ScheduleEntry {
  LayerIndex layer;
  SelectionRule rule;
  std::optional<ScoreRule> score = {};
  friend bool operator==(const ScheduleEntry&, const ScheduleEntry&) = default;
};

/// entry_after(layer): what is selected after this layer; null: everything goes on.
template <class S>
concept PruningSchedule = requires(const S& s, LayerIndex layer) {
  { s.entry_after(layer) } -> std::same_as<const ScheduleEntry*>;
};

/// A schedule given as entries, at most one a layer; without entries it keeps everything.
class StepSchedule {
 public:
  StepSchedule() = default;
  /// Entries in any order. Throws Error when two name the same layer.
  explicit StepSchedule(std::vector<ScheduleEntry> entries) : entries_(std::move(entries)) {
    std::sort(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) { return a.layer < b.layer; });
    for (std::size_t i = 1; i < entries_.size(); ++i) {
      if (entries_[i].layer == entries_[i - 1].layer) {
        throw Error(ErrorCode::invalid_argument,
                    "pruning schedule names layer " + std::to_string(entries_[i].layer) + " twice");
      }
    }
  }

  [[nodiscard]] const std::vector<ScheduleEntry>& entries() const { return entries_; }
  [[nodiscard]] const ScheduleEntry* entry_after(LayerIndex layer) const {
    for (const ScheduleEntry& entry : entries_) {
      if (entry.layer == layer) return &entry;
    }
    return nullptr;
  }
  /// Throws Error when an entry names a layer or a head that a model of these counts does not have, or a scorer cannot
  /// work.
  void check(std::size_t layer_count, std::size_t head_count) const {
    for (const ScheduleEntry& entry : entries_) {
      if (entry.layer != before_first_layer && entry.layer >= layer_count) {
        throw Error(ErrorCode::invalid_argument, "pruning schedule names layer " + std::to_string(entry.layer) +
                                                     ", but the model's layers are 0 to " +
                                                     std::to_string(layer_count - 1));
      }
      if (entry.rule.block_tokens == 0)
        throw Error(ErrorCode::invalid_argument, "pruning schedule: blocks of 0 tokens");
      if (entry.score) entry.score->check(head_count);
    }
  }
  friend bool operator==(const StepSchedule&, const StepSchedule&) = default;

 private:
  std::vector<ScheduleEntry> entries_;
};
static_assert(PruningSchedule<StepSchedule>);

/// The keep of one entry: 0.25 (a share of the context), 512 (tokens), p30 (the lowest 30 % of the entering go) or m0.9
/// (until nine tenths of the attention are covered), and maybe the fewest tokens: 0.25min256. Throws Error for anything
/// else.
[[nodiscard]] KeepRule parse_keep_rule(std::string_view text);

/// The score of one entry, as SCORE below. Throws Error for anything else.
[[nodiscard]] ScoreRule parse_score_rule(std::string_view text);

/// A schedule's text:
///   SCHEDULE  none, or items with commas between them, each an ENTRY or a PROTECT
///   ENTRY     LAYER:KEEP[bBLOCK][/SCORE]     7:512   14:0.25b16   7:512/max~15
///   KEEP      0.25 (of the context), 512 (tokens), p30 (the lowest 30 % go), m0.9 (until 90 % of the attention);
///             0.25min256: never fewer than 256
///   BLOCK     tokens that stay or go together
///   SCORE     mean or max over the heads, or meanv, maxv: of probabilities times the norm of the key's value; then,
///             each optional and in this order:
///               @3.5      of these heads only
///               ^48       the mean over the last 48 rows; ^48max: the maximum
///               ~15       the maximum over 15 neighbours; ~15mean: the mean
///   PROTECT   first4, last32 or tokens100-180: tokens that stay, at every entry
/// An entry without a SCORE takes the policy's scorer. Throws Error that names the part it cannot read.
[[nodiscard]] StepSchedule parse_schedule(std::string_view text);

/// The text that parse_schedule reads as this schedule. Protected tokens must be the same for all entries, as parsing
/// makes them; those of the first entry are written.
[[nodiscard]] std::string schedule_text(const StepSchedule& schedule);

namespace detail {

/// The whole of `text` as an unsigned decimal number; false for anything else.
inline bool parse_whole_number(std::string_view text, std::uint64_t& value) {
  const char* const end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return !text.empty() && result.ec == std::errc() && result.ptr == end;
}

/// The same for a number that the library counts tokens, heads or rows by.
template <class T>
bool parse_number(std::string_view text, T& value) {
  std::uint64_t number = 0;
  if (!parse_whole_number(text, number) || number > std::numeric_limits<std::uint32_t>::max()) return false;
  value = static_cast<T>(number);
  return true;
}

/// A decimal with a point, without exponent or sign.
inline bool parse_decimal(std::string_view text, double& value) {
  if (text.find_first_not_of("0123456789.") != std::string_view::npos) return false;
  if (text.find('.') == std::string_view::npos) return false;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

/// Splits `text` at the first `mark`; the second part is empty, and false returned, where there is none.
inline bool split_at(char mark, std::string_view& text, std::string_view& after) {
  const std::size_t place = text.find(mark);
  if (place == std::string_view::npos) return false;
  after = text.substr(place + 1);
  text = text.substr(0, place);
  return true;
}

/// A number that a reduction's name may follow: "15", "15mean", "48max".
inline bool parse_reduced(std::string_view text, std::size_t& number, Reduction& reduction) {
  if (text.ends_with("mean")) {
    reduction = Reduction::mean;
    text.remove_suffix(4);
  } else if (text.ends_with("max")) {
    reduction = Reduction::maximum;
    text.remove_suffix(3);
  }
  return parse_number(text, number);
}

[[noreturn]] inline void not_in_schedule(std::string_view text, const char* what) {
  throw Error(ErrorCode::invalid_argument, "pruning schedule: '" + std::string(text) + "' is " + what);
}

/// first4, last32, tokens100-180 (both included); false for anything else.
inline bool parse_protected(std::string_view text, ProtectedTokens& protect) {
  if (text.starts_with("first")) return parse_number(text.substr(5), protect.first);
  if (text.starts_with("last")) return parse_number(text.substr(4), protect.last);
  std::string_view begin, end;
  IndexRange range;
  if (!text.starts_with("tokens")) return false;
  begin = text.substr(6);
  if (!split_at('-', begin, end) || !parse_number(begin, range.begin) || !parse_number(end, range.end)) return false;
  if (range.end < range.begin || range.end == std::numeric_limits<TokenIndex>::max()) return false;
  ++range.end;
  protect.ranges.push_back(range);
  return true;
}

inline ScheduleEntry parse_entry(std::string_view item) {
  std::string_view layer = item, keep, block, score;
  std::uint64_t number = 0;
  if (!split_at(':', layer, keep) || !parse_whole_number(layer, number)) {
    not_in_schedule(item, "not LAYER:KEEP, as in 7:512,14:0.25,20:p30, nor first4, last32 or tokens100-180");
  }
  const bool has_score = split_at('/', keep, score);
  const bool has_block = split_at('b', keep, block);
  ScheduleEntry entry{static_cast<LayerIndex>(number), parse_keep_rule(keep)};
  if (has_block && (!parse_number(block, entry.rule.block_tokens) || entry.rule.block_tokens == 0)) {
    not_in_schedule(block, "no block size, as 16 in 14:0.25b16");
  }
  if (has_score) entry.score = parse_score_rule(score);
  return entry;
}

}  // namespace detail

inline KeepRule parse_keep_rule(std::string_view text) {
  std::uint64_t number = 0;
  double share = 0;
  if (const std::size_t floor = text.find("min"); floor != std::string_view::npos) {
    if (!detail::parse_whole_number(text.substr(floor + 3), number) || number == 0) {
      detail::not_in_schedule(text, "no keep with its fewest tokens: write 0.25min256");
    }
    return parse_keep_rule(text.substr(0, floor)).at_least(number);
  }
  if (text.starts_with('p') && detail::parse_whole_number(text.substr(1), number)) return KeepRule::percentile(number);
  if (text.starts_with('m') && detail::parse_decimal(text.substr(1), share)) return KeepRule::mass(share);
  if (detail::parse_whole_number(text, number)) return KeepRule::count(number);
  if (detail::parse_decimal(text, share)) return KeepRule::fraction(share);
  detail::not_in_schedule(
      text,
      "no keep: write 0.25 (of the context), 512 (tokens), p30 (the lowest 30 % of the entering "
      "tokens go) or m0.9 (until 90 % of the attention is covered), then maybe min256 (never fewer)");
}

inline ScoreRule parse_score_rule(std::string_view text) {
  ScoreRule rule;
  std::string_view reduction = text, width, rows, heads;
  bool good = !detail::split_at('~', reduction, width) || detail::parse_reduced(width, rule.pool_width, rule.pooling);
  good = good && (!detail::split_at('^', reduction, rows) || detail::parse_reduced(rows, rule.rows, rule.over_rows));
  bool more = detail::split_at('@', reduction, heads);
  while (good && more) {
    std::string_view head = heads;
    more = detail::split_at('.', head, heads);
    good = detail::parse_number(head, rule.heads.emplace_back());
  }
  if (reduction.ends_with('v')) {
    rule.by_value = true;
    reduction.remove_suffix(1);
  }
  if (reduction == "max") rule.over_heads = Reduction::maximum;
  if (!good || (reduction != "max" && reduction != "mean")) {
    detail::not_in_schedule(
        text, "no score: write mean or max, or meanv or maxv, then @3.5 (heads), ^48 (rows), ~15 (neighbours)");
  }
  rule.check(std::numeric_limits<std::size_t>::max());
  return rule;
}

inline StepSchedule parse_schedule(std::string_view text) {
  if (text == "none") return {};
  std::vector<ScheduleEntry> entries;
  ProtectedTokens protect;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view item = text.substr(begin, end - begin);
    if (!detail::parse_protected(item, protect)) entries.push_back(detail::parse_entry(item));
    begin = end + 1;
  }
  if (entries.empty()) detail::not_in_schedule(text, "a schedule without an entry LAYER:KEEP");
  for (ScheduleEntry& entry : entries) entry.rule.protect = protect;
  return StepSchedule(std::move(entries));
}

inline std::string schedule_text(const StepSchedule& schedule) {
  if (schedule.entries().empty()) return "none";
  std::string text;
  for (const auto& [layer, rule, score] : schedule.entries()) {
    text += (text.empty() ? "" : ",") + std::to_string(layer) + ":" + rule.keep.text();
    if (rule.block_tokens != 1) text += "b" + std::to_string(rule.block_tokens);
    if (!score) continue;
    text += score->over_heads == Reduction::mean ? "/mean" : "/max";
    if (score->by_value) text += "v";
    for (std::size_t i = 0; i < score->heads.size(); ++i) {
      text += (i == 0 ? "@" : ".") + std::to_string(score->heads[i]);
    }
    if (score->rows != 1) {
      text += "^" + std::to_string(score->rows) + (score->over_rows == Reduction::maximum ? "max" : "");
    }
    if (score->pool_width != 1) {
      text += "~" + std::to_string(score->pool_width) + (score->pooling == Reduction::mean ? "mean" : "");
    }
  }
  const ProtectedTokens& protect = schedule.entries().front().rule.protect;
  if (protect.first != 0) text += ",first" + std::to_string(protect.first);
  if (protect.last != 0) text += ",last" + std::to_string(protect.last);
  for (const IndexRange& range : protect.ranges) {
    text += ",tokens" + std::to_string(range.begin) + "-" + std::to_string(range.end - 1);
  }
  return text;
}

}  // namespace lazyllm::inline v0
