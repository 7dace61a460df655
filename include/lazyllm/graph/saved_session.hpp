// A session as bytes: a header with sizes, checksum and the graph's fingerprint, then per token its depth and marks,
// what was evicted, the Aux Cache's rows, and by layer and token K, V and the column sums. Everything is checked before
// anything is changed. Source: this library's format, version 2, in the byte order of the machine that made it.
#pragma once

#include <lazyllm/core/checksum.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/graph/column_sums.hpp>
#include <lazyllm/graph/session_graph.hpp>
#include <lazyllm/graph/session_options.hpp>
#include <lazyllm/graph/token_states.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace lazyllm::inline v0::detail {

/// Calls f(layer, token) for all K and V of the sequence.
template <class F>
void for_each_key(const TokenStates& states, std::size_t layer_count, F f) {
  for (LayerIndex layer = 0; layer < layer_count; ++layer) {
    for (TokenIndex token = 0; token < states.size(); ++token) {
      if (states.has_key(layer, token)) f(layer, token);
    }
  }
}

inline void check_fingerprints(std::uint64_t from, std::uint64_t to) {
  if (from == to) return;
  throw Error(ErrorCode::unsupported,
              "a session goes on only with the same model, kernels and type of K and V: fingerprint " +
                  std::to_string(from) + ", this graph's is " + std::to_string(to));
}

/// Copies a sequence to a graph, states and sums that hold no tokens, under a copy of its policy. Throws Error when the
/// graphs compute different bits.
template <SessionGraph Graph>
void copy_session(const Graph& graph, const TokenStates& states, const ColumnSums& sums, Graph& to_graph,
                  TokenStates& to_states, ColumnSums& to_sums) {
  check_fingerprints(graph.fingerprint(), to_graph.fingerprint());
  for (TokenIndex token = 0; token < states.size(); ++token) {
    const bool parked = states.is_parked(token);
    to_states.restore(states.depth(token), states.is_unfinished(token),
                      parked ? states.aux().stored(token) : std::span<const std::byte>());
  }
  for (LayerIndex layer = 0; layer < graph.layer_count(); ++layer) {
    for (TokenIndex token = 0; token < states.size(); ++token) {
      if (states.is_evicted(layer, token)) to_states.evict(layer, {&token, 1});
    }
  }
  std::vector<std::byte> key(graph.token_bytes());
  std::vector<float> token_sums(sums.head_count());
  to_sums.start(0, states.size());
  for_each_key(states, graph.layer_count(), [&](LayerIndex layer, TokenIndex token) {
    graph.export_token(layer, token, key);
    to_graph.import_token(layer, token, key);
    sums.gather(layer, {&token, 1}, token_sums.data());
    to_sums.assign(layer, token, token_sums);
  });
}

/// Numbers of 8 bytes at the start, in this order; the checksum is of all that follows it.
struct SavedHeader {
  std::uint64_t magic;
  std::uint64_t checksum;
  std::uint64_t version;
  std::uint64_t size_bytes;
  std::uint64_t fingerprint;
  std::uint64_t layer_count;
  std::uint64_t hidden_dim;
  std::uint64_t token_bytes;
  std::uint64_t tokens;
  std::uint64_t prompt_size;
  std::uint64_t steps;
  std::uint64_t aux_rows;   // RowFormat
  std::uint64_t sum_heads;  // numbers of a token's column sums at a layer; 0: none were kept

  static constexpr std::uint64_t magic_number = 0x31736d6c6c797a6c;  // "lzyllms1"
  static constexpr std::uint64_t current_version = 2;
  static constexpr std::size_t checked_from = 2 * sizeof(std::uint64_t);
};

/// What follows the header for each token.
struct SavedToken {
  std::uint32_t depth;
  std::uint32_t unfinished;  // 0 or 1
};

/// Then a bit for each layer and token, layer by layer: evicted there.
[[nodiscard]] inline std::size_t eviction_bytes(std::size_t layers, std::size_t tokens) {
  return (layers * tokens + 7) / 8;
}

template <SessionGraph Graph>
std::vector<std::byte> save_session(const Graph& graph, const TokenStates& states, const ColumnSums& sums,
                                    const SessionHistory& history) {
  const std::size_t layers = graph.layer_count(), token_bytes = graph.token_bytes();
  std::vector<float> token_sums(sums.head_count());
  std::vector<std::byte> bytes;
  std::size_t keys = 0;
  for_each_key(states, layers, [&keys](LayerIndex, TokenIndex) { ++keys; });
  bytes.reserve(sizeof(SavedHeader) + (4 * layers + 2) * sizeof(std::uint64_t) + states.size() * sizeof(SavedToken) +
                eviction_bytes(layers, states.size()) + states.aux_bytes() +
                keys * (token_bytes + token_sums.size() * sizeof(float)));
  bytes.resize(sizeof(SavedHeader));
  const auto append = [&bytes](const void* from, std::size_t size) {
    const std::size_t at = bytes.size();
    bytes.resize(at + size);
    std::memcpy(bytes.data() + at, from, size);
  };
  for (const Phase phase : {Phase::prefill, Phase::decode}) {
    const StepCounters& totals = history.totals(phase);
    for (const auto* rows : {&totals.rows_computed, &totals.rows_finished}) {
      for (const std::uint64_t count : *rows) append(&count, sizeof(count));
    }
    const std::uint64_t revived = totals.revived;
    append(&revived, sizeof(revived));
  }
  for (TokenIndex token = 0; token < states.size(); ++token) {
    const SavedToken saved{static_cast<std::uint32_t>(states.depth(token)), states.is_unfinished(token) ? 1u : 0u};
    append(&saved, sizeof(saved));
  }
  const std::size_t first_bit = 8 * bytes.size();
  bytes.resize(bytes.size() + eviction_bytes(layers, states.size()));
  for (LayerIndex layer = 0; layer < layers; ++layer) {
    for (TokenIndex token = 0; token < states.size(); ++token) {
      const std::size_t bit = first_bit + layer * states.size() + token;
      if (states.is_evicted(layer, token)) bytes[bit / 8] |= std::byte{1} << (bit % 8);
    }
  }
  for (TokenIndex token = 0; token < states.size(); ++token) {
    if (states.is_parked(token)) append(states.aux().stored(token).data(), states.aux().row_size_bytes());
  }
  for_each_key(states, layers, [&](LayerIndex layer, TokenIndex token) {
    const std::size_t at = bytes.size();
    bytes.resize(at + token_bytes);
    graph.export_token(layer, token, std::span(bytes).subspan(at));
    sums.gather(layer, {&token, 1}, token_sums.data());
    if (!token_sums.empty()) append(token_sums.data(), token_sums.size() * sizeof(float));
  });
  SavedHeader header{.magic = SavedHeader::magic_number,
                     .checksum = 0,
                     .version = SavedHeader::current_version,
                     .size_bytes = bytes.size(),
                     .fingerprint = graph.fingerprint(),
                     .layer_count = layers,
                     .hidden_dim = graph.hidden_dim(),
                     .token_bytes = token_bytes,
                     .tokens = states.size(),
                     .prompt_size = history.prompt_size,
                     .steps = history.steps,
                     .aux_rows = static_cast<std::uint64_t>(states.aux().format()),
                     .sum_heads = sums.head_count()};
  std::memcpy(bytes.data(), &header, sizeof(header));
  header.checksum = checksum(std::span(bytes).subspan(SavedHeader::checked_from));
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes;
}

/// Bytes that are a session of this graph: checked when made, read afterwards.
class SavedSession {
 public:
  /// Throws Error for anything that save_session does not make for such a graph and Aux Cache, or without the column
  /// sums that are kept here, or of more tokens than `capacity`.
  template <SessionGraph Graph>
  SavedSession(std::span<const std::byte> bytes, const Graph& graph, const AuxCache& aux, const ColumnSums& sums,
               std::size_t capacity)
      : bytes_(bytes), row_bytes_(aux.row_size_bytes()) {
    check(bytes.size() >= sizeof(SavedHeader), "are too few for a header");
    header_ = number<SavedHeader>(0);
    check(header_.magic == SavedHeader::magic_number, "do not start like a saved session");
    if (header_.version != SavedHeader::current_version) {
      throw Error(ErrorCode::unsupported, "saved session: version " + std::to_string(header_.version) +
                                              ", this library reads version " +
                                              std::to_string(SavedHeader::current_version));
    }
    if (header_.size_bytes != bytes.size()) {
      fail(std::to_string(bytes.size()) + " bytes, its header says " + std::to_string(header_.size_bytes));
    }
    check(header_.checksum == checksum(bytes.subspan(SavedHeader::checked_from)), "differ from their checksum");
    require_same("layers", header_.layer_count, graph.layer_count());
    require_same("hidden size", header_.hidden_dim, graph.hidden_dim());
    require_same("bytes of a token's K and V", header_.token_bytes, graph.token_bytes());
    if (header_.aux_rows != static_cast<std::uint64_t>(aux.format())) {
      throw Error(ErrorCode::unsupported, "saved session: Aux Cache rows of format " +
                                              std::to_string(header_.aux_rows) + ", this session's are of format " +
                                              std::to_string(static_cast<std::uint64_t>(aux.format())));
    }
    if (header_.sum_heads != 0 || sums.head_count() != 0) {
      require_same("heads with column sums", header_.sum_heads, graph.head_count());
    }
    check_fingerprints(header_.fingerprint, graph.fingerprint());
    if (header_.tokens > capacity) {
      throw Error(ErrorCode::limit, "saved session: " + std::to_string(header_.tokens) +
                                        " tokens exceed the session's context of " + std::to_string(capacity));
    }
    check(header_.prompt_size <= header_.tokens, "name a prompt longer than the sequence");
    check_tokens();
  }

  [[nodiscard]] SessionHistory history() const {
    SessionHistory history(layers());
    history.steps = static_cast<std::size_t>(header_.steps);
    history.prompt_size = static_cast<std::size_t>(header_.prompt_size);
    std::size_t at = sizeof(SavedHeader);
    const auto next = [&] {
      const auto value = static_cast<std::size_t>(number<std::uint64_t>(at));
      at += sizeof(std::uint64_t);
      return value;
    };
    for (const Phase phase : {Phase::prefill, Phase::decode}) {
      StepCounters& totals = history.totals(phase);
      for (auto* rows : {&totals.rows_computed, &totals.rows_finished}) {
        for (std::size_t& count : *rows) count = next();
      }
      totals.revived = next();
    }
    return history;
  }

  /// Fills a graph, states and sums that hold no tokens.
  template <SessionGraph Graph>
  void restore(Graph& graph, TokenStates& states, ColumnSums& sums) const {
    std::size_t at = rows_at();
    for (std::size_t token = 0; token < tokens(); ++token) {
      const SavedToken saved = token_at(token);
      std::span<const std::byte> parked;
      if (saved.depth < header_.layer_count) {
        parked = bytes_.subspan(at, row_bytes_);
        at += row_bytes_;
      }
      states.restore(saved.depth, saved.unfinished != 0, parked);
    }
    for (LayerIndex layer = 0; layer < layers(); ++layer) {
      for (TokenIndex token = 0; token < states.size(); ++token) {
        if (is_evicted(layer, token)) states.evict(layer, {&token, 1});
      }
    }
    std::vector<float> token_sums(static_cast<std::size_t>(header_.sum_heads));
    sums.start(0, tokens());
    for_each_key(states, layers(), [&](LayerIndex layer, TokenIndex token) {
      const auto token_bytes = static_cast<std::size_t>(header_.token_bytes);
      graph.import_token(layer, token, bytes_.subspan(at, token_bytes));
      if (!token_sums.empty()) std::memcpy(token_sums.data(), bytes_.data() + at + token_bytes, sums_bytes());
      sums.assign(layer, token, token_sums);
      at += token_bytes + sums_bytes();
    });
  }

 private:
  template <class T>
  [[nodiscard]] T number(std::size_t at) const {
    T value;
    std::memcpy(&value, bytes_.data() + at, sizeof(T));
    return value;
  }
  [[nodiscard]] std::size_t layers() const { return static_cast<std::size_t>(header_.layer_count); }
  [[nodiscard]] std::size_t tokens_at() const {
    return sizeof(SavedHeader) + (4 * layers() + 2) * sizeof(std::uint64_t);
  }
  [[nodiscard]] std::size_t sums_bytes() const { return static_cast<std::size_t>(header_.sum_heads) * sizeof(float); }
  [[nodiscard]] std::size_t tokens() const { return static_cast<std::size_t>(header_.tokens); }
  [[nodiscard]] std::size_t evictions_at() const { return tokens_at() + tokens() * sizeof(SavedToken); }
  [[nodiscard]] std::size_t rows_at() const { return evictions_at() + eviction_bytes(layers(), tokens()); }
  [[nodiscard]] bool eviction_bit(std::size_t bit) const {
    return (bytes_[evictions_at() + bit / 8] >> (bit % 8) & std::byte{1}) != std::byte{0};
  }
  [[nodiscard]] bool is_evicted(LayerIndex layer, std::size_t token) const {
    return eviction_bit(layer * tokens() + token);
  }
  [[nodiscard]] SavedToken token_at(std::size_t token) const {
    return number<SavedToken>(tokens_at() + token * sizeof(SavedToken));
  }

  /// What each token may be, and that the rest of the bytes is as long as the tokens say.
  void check_tokens() const {
    check(bytes_.size() >= rows_at(), "end within the tokens");
    std::uint64_t left = bytes_.size() - rows_at();
    for (std::size_t bit = layers() * tokens(); bit < 8 * eviction_bytes(layers(), tokens()); ++bit) {
      check(!eviction_bit(bit), "hold an eviction that cannot be");
    }
    for (std::size_t token = 0; token < tokens(); ++token) {
      const auto [depth, unfinished] = token_at(token);
      const bool parked = depth < header_.layer_count;
      check(depth <= header_.layer_count && unfinished <= (depth != 0 && parked ? 1u : 0u),
            "hold a token that cannot be");
      std::uint64_t keys = depth;
      for (LayerIndex layer = 0; layer < layers(); ++layer) {
        if (!is_evicted(layer, token)) continue;
        check(layer + unfinished < depth, "hold an eviction that cannot be");
        --keys;
      }
      const std::uint64_t wanted = (parked ? row_bytes_ : 0) + keys * (header_.token_bytes + sums_bytes());
      check(left >= wanted, "end within the rows");
      left -= wanted;
    }
    check(left == 0, "go on after the last row");
  }

  static void require_same(const char* what, std::uint64_t saved, std::uint64_t own) {
    if (saved == own) return;
    throw Error(ErrorCode::unsupported,
                "saved session: " + std::to_string(saved) + " " + what + ", this graph's are " + std::to_string(own));
  }
  [[noreturn]] static void fail(const std::string& what) {
    throw Error(ErrorCode::malformed, "saved session: " + what);
  }
  static void check(bool good, const char* what) {
    if (!good) fail(std::string("its bytes ") + what);
  }

  std::span<const std::byte> bytes_;
  std::size_t row_bytes_;  // of the Aux Cache
  SavedHeader header_{};
};

}  // namespace lazyllm::inline v0::detail
