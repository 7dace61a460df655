// What a graph adds so that its sessions can be cut back, forked, saved and loaded: K and V of one token at one layer,
// as bytes. Fork, save and load are written once, over this concept (graph/saved_session.hpp, LazySession).
// Source: this library's.
#pragma once

#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/model_graph.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

namespace lazyllm::inline v0 {

/// truncate(tokens): forgets K and V of every token from index `tokens` on.
/// token_bytes(): bytes of one token's K and V at one layer.
/// export_token(layer, token, out [token_bytes]): copies them, as they are stored; the token is there.
/// import_token(layer, token, in [token_bytes]): stores what export_token gave; the token is not there yet.
/// fingerprint(): equal for graphs that compute the same bits from the same K and V (weights, kernels, what K and V
/// are stored as), different for others.
template <class G>
concept SessionGraph = ModelGraph<G> &&
    requires(G& g, const G& c, LayerIndex layer, TokenIndex token, std::size_t tokens, std::span<std::byte> out,
             std::span<const std::byte> in) {
  g.truncate(tokens);
  { c.token_bytes() } -> std::convertible_to<std::size_t>;
  c.export_token(layer, token, out);
  g.import_token(layer, token, in);
  { c.fingerprint() } -> std::convertible_to<std::uint64_t>;
};

}  // namespace lazyllm::inline v0
