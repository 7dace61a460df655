// The tokens of a vocabulary: the bytes and the kind of each.
// All bytes lie in one buffer, token t at offsets[t] to offsets[t + 1]: five bytes a token beside its own bytes.
// Source: `tokenizer.ggml.tokens` and `.token_type` of the GGUF specification.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lazyllm::inline v0 {

/// The kinds of token in a GGUF file, by their numbers there.
enum class TokenKind : std::uint8_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

class Vocabulary {
 public:
  /// Adds the token with the next id. Throws Error (limit) when all tokens together would take 4 GiB.
  void add(std::string_view bytes, TokenKind kind);
  void reserve(std::size_t tokens, std::size_t size_bytes);

  [[nodiscard]] std::size_t size() const { return kinds_.size(); }
  /// Throw Error (invalid_argument) for an id outside the vocabulary.
  [[nodiscard]] std::string_view bytes(TokenId id) const;
  [[nodiscard]] TokenKind kind(TokenId id) const;

 private:
  [[nodiscard]] std::size_t checked(TokenId id) const;

  std::string arena_;
  std::vector<std::uint32_t> offsets_ = {0};
  std::vector<TokenKind> kinds_;
};

/// Finds tokens by their bytes: an open hash table of ids, which refers to a vocabulary and must not outlive it.
class TokenIndexByBytes {
 public:
  TokenIndexByBytes() = default;
  /// Room for `capacity` tokens; 4 to 8 bytes each.
  explicit TokenIndexByBytes(std::size_t capacity) : slots_(std::bit_ceil(capacity + capacity / 2 + 1), -1) {}

  /// Adds a token of the vocabulary; returns the id that already has these bytes, if there is one, and keeps that.
  std::optional<TokenId> add(const Vocabulary& vocabulary, TokenId id);
  [[nodiscard]] std::optional<TokenId> find(const Vocabulary& vocabulary, std::string_view bytes) const;

 private:
  [[nodiscard]] std::size_t slot(const Vocabulary& vocabulary, std::string_view bytes) const;

  std::vector<TokenId> slots_;
};

inline void Vocabulary::add(std::string_view bytes, TokenKind kind) {
  if (bytes.size() > std::numeric_limits<std::uint32_t>::max() - arena_.size()) {
    throw Error(ErrorCode::limit, "tokenizer: the tokens' texts exceed 4 GiB at token " + std::to_string(size()));
  }
  arena_.append(bytes);
  offsets_.push_back(static_cast<std::uint32_t>(arena_.size()));
  kinds_.push_back(kind);
}

inline void Vocabulary::reserve(std::size_t tokens, std::size_t size_bytes) {
  arena_.reserve(size_bytes);
  offsets_.reserve(tokens + 1);
  kinds_.reserve(tokens);
}

inline std::size_t Vocabulary::checked(TokenId id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= size()) {
    throw Error(ErrorCode::invalid_argument, "token id " + std::to_string(id) + " is outside the vocabulary of " +
                                                 std::to_string(size()) + " tokens");
  }
  return static_cast<std::size_t>(id);
}

inline std::string_view Vocabulary::bytes(TokenId id) const {
  const std::size_t i = checked(id);
  return std::string_view(arena_).substr(offsets_[i], offsets_[i + 1] - offsets_[i]);
}

inline TokenKind Vocabulary::kind(TokenId id) const { return kinds_[checked(id)]; }

inline std::size_t TokenIndexByBytes::slot(const Vocabulary& vocabulary, std::string_view bytes) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t place = std::hash<std::string_view>{}(bytes)&mask;
  while (slots_[place] >= 0 && vocabulary.bytes(slots_[place]) != bytes) place = (place + 1) & mask;
  return place;
}

inline std::optional<TokenId> TokenIndexByBytes::add(const Vocabulary& vocabulary, TokenId id) {
  TokenId& place = slots_[slot(vocabulary, vocabulary.bytes(id))];
  if (place >= 0) return place;
  place = id;
  return std::nullopt;
}

inline std::optional<TokenId> TokenIndexByBytes::find(const Vocabulary& vocabulary, std::string_view bytes) const {
  if (slots_.empty()) return std::nullopt;
  const TokenId id = slots_[slot(vocabulary, bytes)];
  if (id < 0) return std::nullopt;
  return id;
}

}  // namespace lazyllm::inline v0
