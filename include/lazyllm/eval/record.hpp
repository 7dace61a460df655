// One measured line of an evaluation: an item, a policy, the scores and the costs.
// What many of them say together: eval/summary.hpp.
// Source: this library's.
#pragma once

#include <lazyllm/eval/continuation.hpp>
#include <lazyllm/eval/item.hpp>
#include <lazyllm/eval/item_run.hpp>

#include <optional>
#include <string>

namespace lazyllm::inline v0 {

/// The name of the policy that all others are compared with.
inline constexpr const char* dense_policy = "none";

struct Record {
  ItemKey item;
  std::string policy;
  ItemResult result;
  std::optional<ContinuationScore> continuation = {};  ///< of a continuation under another policy than dense
};

}  // namespace lazyllm::inline v0
