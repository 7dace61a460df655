// What a weight format is: how a block of weights is stored in a file, and how it becomes part of a panel.
// A tensor [out_features, in_features] is row-major rows of in_features / block_size blocks, as in GGUF.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <string_view>
#include <type_traits>

namespace lazyllm::inline v0 {

/// Block: the stored bytes of block_size weights. quantize and dequantize convert whole blocks; the float span holds
/// block_size values per block. Formats of GGUF give the bits of the reference implementation (`gguf` package).
template <class F>
concept QuantFormat = std::is_trivially_copyable_v<typename F::Block> && alignof(typename F::Block) <= 4 &&
                      requires(std::span<const float> values, std::span<typename F::Block> blocks,
                               std::span<const typename F::Block> stored, std::span<float> out) {
  { F::name } -> std::convertible_to<std::string_view>;
  { F::block_size } -> std::convertible_to<std::size_t>;
  F::quantize(values, blocks);
  F::dequantize(stored, out);
};

/// A format that matmul has kernels for: its blocks convert to and from the entries of a panel without loss.
/// Formats of the same shape name the same Panel and share its kernels.
template <class F>
concept PackableFormat = QuantFormat<F> &&
    requires(const typename F::Block& block, const typename F::Panel::Entry& entry) {
  { F::to_panel(block) } -> std::same_as<typename F::Panel::Entry>;
  { F::from_panel(entry) } -> std::same_as<typename F::Block>;
  requires F::block_size == F::Panel::entry_size;
};

}  // namespace lazyllm::inline v0
