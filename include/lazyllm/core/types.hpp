// Names of the quantities that every layer of the library shares.
// A token index is a position in the sequence (prompt and generated tokens, from 0); it never changes when tokens are
// pruned.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lazyllm::inline v0 {

using TokenId = std::int32_t;      ///< an entry of the vocabulary
using TokenIndex = std::uint32_t;  ///< a position in the sequence, from 0
using LayerIndex = std::size_t;    ///< a transformer layer, from 0

/// What stands for the place before layer 0 where a layer is named after which something happens; + 1 gives 0.
inline constexpr LayerIndex before_first_layer = static_cast<LayerIndex>(-1);

/// What a step is for: prefill brings a prompt (or an appended part of one), decode one generated token.
enum class Phase { prefill, decode };

}  // namespace lazyllm::inline v0
