// When to prune and how much to keep: a list of (layer, keep) entries, and its text form "7:512,14:0.25,20:p30".
// The scores of layer `layer` (from 0) decide who enters layer + 1.
// Source: progressive pruning, LazyLLM, arXiv 2407.14057, section 3.2; the text form is this library's.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lazyllm::inline v0 {

/// prunes_after(layer): whether anything is selected after this layer.
/// keep_count(layer, entering, context): how many of `entering` tokens go on, in [1, entering]; 1 <= entering <=
/// context.
template <class S>
concept PruningSchedule = requires(const S& s, LayerIndex layer, std::size_t entering, std::size_t context) {
  { s.prunes_after(layer) } -> std::same_as<bool>;
  { s.keep_count(layer, entering, context) } -> std::same_as<std::size_t>;
};

/// How many tokens one entry keeps.
class KeepRule {
 public:
  /// A share of the context (all tokens so far), in [0, 1], rounded up. Exact for up to 9 decimals. Throws Error
  /// outside.
  static KeepRule fraction(double share) {
    if (!(share >= 0.0 && share <= 1.0)) {
      throw Error(ErrorCode::invalid_argument, "keep fraction " + std::to_string(share) + " is outside [0, 1]");
    }
    return {Kind::fraction, static_cast<std::uint64_t>(std::llround(share * fraction_unit))};
  }
  /// A number of tokens; 0 means the last token alone, as 1 does.
  static KeepRule count(std::uint64_t tokens) { return {Kind::count, tokens}; }
  /// The paper's rule: the lowest `percent` of the entering tokens go, in [0, 99]. Throws Error outside.
  static KeepRule percentile(std::uint64_t percent) {
    if (percent > 99) {
      throw Error(ErrorCode::invalid_argument, "keep percentile p" + std::to_string(percent) + " is outside p0 to p99");
    }
    return {Kind::percentile, percent};
  }

  /// Tokens kept of `entering` >= 1, in [1, entering].
  [[nodiscard]] std::size_t keep_count(std::size_t entering, std::size_t context) const {
    std::uint64_t keep = value_;
    if (kind_ == Kind::fraction) {
      // ceil(value * context / unit) without a product that could overflow.
      const std::uint64_t unit = fraction_unit;
      keep = context / unit * value_ + (context % unit * value_ + unit - 1) / unit;
    } else if (kind_ == Kind::percentile) {
      keep = entering - (entering / 100 * value_ + entering % 100 * value_ / 100);
    }
    return static_cast<std::size_t>(std::clamp<std::uint64_t>(keep, 1, entering));
  }

  friend bool operator==(const KeepRule&, const KeepRule&) = default;

 private:
  enum class Kind { fraction, count, percentile };
  static constexpr std::uint64_t fraction_unit = 1'000'000'000;
  KeepRule(Kind kind, std::uint64_t value) : kind_(kind), value_(value) {}

  Kind kind_;
  std::uint64_t value_;
};

/// After which layer to prune, and how much to keep there.
struct ScheduleEntry {
  LayerIndex layer;
  KeepRule keep;
  friend bool operator==(const ScheduleEntry&, const ScheduleEntry&) = default;
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
  [[nodiscard]] bool prunes_after(LayerIndex layer) const { return find(layer) != nullptr; }
  /// Precondition: prunes_after(layer).
  [[nodiscard]] std::size_t keep_count(LayerIndex layer, std::size_t entering, std::size_t context) const {
    const ScheduleEntry* entry = find(layer);
    return entry != nullptr ? entry->keep.keep_count(entering, context) : entering;
  }
  /// Throws Error when an entry names a layer that a model of `layer_count` layers does not have.
  void check(std::size_t layer_count) const {
    if (!entries_.empty() && entries_.back().layer >= layer_count) {
      throw Error(ErrorCode::invalid_argument, "pruning schedule names layer " + std::to_string(entries_.back().layer) +
                                                   ", but the model's layers are 0 to " +
                                                   std::to_string(layer_count - 1));
    }
  }
  friend bool operator==(const StepSchedule&, const StepSchedule&) = default;

 private:
  [[nodiscard]] const ScheduleEntry* find(LayerIndex layer) const {
    for (const ScheduleEntry& entry : entries_) {
      if (entry.layer == layer) return &entry;
    }
    return nullptr;
  }

  std::vector<ScheduleEntry> entries_;
};
static_assert(PruningSchedule<StepSchedule>);

/// The keep of one entry: 0.25 (a share of the context), 512 (tokens) or p30 (the lowest 30 % of the entering go).
/// Throws Error for anything else.
[[nodiscard]] KeepRule parse_keep_rule(std::string_view text);

/// "none", or LAYER:KEEP[,LAYER:KEEP...]. Throws Error that names the part it cannot read.
[[nodiscard]] StepSchedule parse_schedule(std::string_view text);

namespace detail {

/// The whole of `text` as an unsigned decimal number; false for anything else.
inline bool parse_whole_number(std::string_view text, std::uint64_t& value) {
  const char* const end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return !text.empty() && result.ec == std::errc() && result.ptr == end;
}

}  // namespace detail

inline KeepRule parse_keep_rule(std::string_view text) {
  std::uint64_t number = 0;
  if (text.starts_with('p') && detail::parse_whole_number(text.substr(1), number)) return KeepRule::percentile(number);
  if (detail::parse_whole_number(text, number)) return KeepRule::count(number);
  if (text.find_first_not_of("0123456789.") == std::string_view::npos && text.find('.') != std::string_view::npos) {
    double share = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), share, std::chars_format::fixed);
    if (result.ec == std::errc() && result.ptr == text.data() + text.size()) return KeepRule::fraction(share);
  }
  throw Error(ErrorCode::invalid_argument, "pruning schedule: '" + std::string(text) +
                                               "' is no keep: write 0.25 (of the context), 512 (tokens) or p30 (the "
                                               "lowest 30 % of the entering tokens go)");
}

inline StepSchedule parse_schedule(std::string_view text) {
  if (text == "none") return {};
  std::vector<ScheduleEntry> entries;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view item = text.substr(begin, end - begin);
    const std::size_t colon = item.find(':');
    std::uint64_t layer = 0;
    if (colon == std::string_view::npos || !detail::parse_whole_number(item.substr(0, colon), layer)) {
      throw Error(ErrorCode::invalid_argument,
                  "pruning schedule: '" + std::string(item) + "' is not LAYER:KEEP, as in 7:512,14:0.25,20:p30");
    }
    entries.push_back({static_cast<LayerIndex>(layer), parse_keep_rule(item.substr(colon + 1))});
    begin = end + 1;
  }
  return StepSchedule(std::move(entries));
}

}  // namespace lazyllm::inline v0
