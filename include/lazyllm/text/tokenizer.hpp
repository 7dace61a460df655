// Text to token ids and back: byte-level byte pair encoding as a GGUF file describes it.
// Control tokens are cut out of the text first, then pre-tokens, then each pre-token's bytes are merged.
// Source: `tokenizer.ggml.*` of the GGUF specification; ids equal those of the `tokenizers` package.
#pragma once

#include <lazyllm/core/error.hpp>
#include <lazyllm/core/types.hpp>
#include <lazyllm/io/gguf.hpp>
#include <lazyllm/text/byte_alphabet.hpp>
#include <lazyllm/text/byte_pair_merger.hpp>
#include <lazyllm/text/pre_tokenizer.hpp>
#include <lazyllm/text/vocabulary.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lazyllm::inline v0 {

struct EncodeOptions {
  bool add_special = true;    ///< put the begin and end tokens where the file asks for them
  bool parse_special = true;  ///< control tokens spelled out in the text become their ids; false for text from users
};

/// A vocabulary and its rules. Immutable after loading: any number of threads may use one tokenizer.
class Tokenizer {
 public:
  /// Reads `tokenizer.ggml.*`. Error (unsupported) names a tokenizer model, pre-tokenizer or option that is not
  /// supported; Error (malformed) names a missing or contradictory entry.
  /// `add_bos_token` defaults to true for llama-bpe and false for the others, `add_eos_token` to false.
  [[nodiscard]] static Tokenizer from_gguf(const GgufFile& file);

  /// The ids of a text, which may hold any bytes. User-defined tokens are always recognised. O(n log n).
  /// A byte that the vocabulary lacks (SmolLM2 has no token for 21 of the 256) is left out, as by the `tokenizers`
  /// package; `missing_bytes` tells. The text is taken as it is, without Unicode normalisation (Qwen2's own tokenizer
  /// applies NFC first).
  [[nodiscard]] std::vector<TokenId> encode(std::string_view text, EncodeOptions options = {}) const;
  /// How many bytes of the text have no token.
  [[nodiscard]] std::size_t missing_bytes(std::string_view text) const;

  /// The bytes of all tokens in a row; control tokens give their names when `with_control`, else nothing.
  [[nodiscard]] std::string decode(std::span<const TokenId> ids, bool with_control = false) const;

  /// The bytes of one token (maybe a part of a UTF-8 sequence); the name of a control token. Valid as long as the
  /// tokenizer. This and the two below throw Error (invalid_argument) for an id outside the vocabulary.
  [[nodiscard]] std::string_view piece(TokenId id) const { return vocabulary_.bytes(id); }
  /// Tokens that carry no text: control, unknown and unused ones.
  [[nodiscard]] bool is_control(TokenId id) const;
  /// The tokens after which a generation is over: end of sequence, of turn, of message.
  [[nodiscard]] bool is_end_of_generation(TokenId id) const;

  [[nodiscard]] std::optional<TokenId> bos() const { return bos_; }
  [[nodiscard]] std::optional<TokenId> eos() const { return eos_; }
  [[nodiscard]] std::size_t vocab_size() const { return vocabulary_.size(); }
  [[nodiscard]] PreTokenizer pre_tokenizer() const { return pre_tokenizer_; }
  /// The control or user-defined token of that name.
  [[nodiscard]] std::optional<TokenId> find(std::string_view control_token) const;

 private:
  struct Found {
    std::size_t position;
    std::size_t size_bytes;
    TokenId id;
  };

  Tokenizer() = default;
  void load_tokens(const GgufFile& file);
  void load_merges(const GgufFile& file, const TokenIndexByBytes& by_bytes);
  void load_specials(const GgufFile& file);
  [[nodiscard]] std::optional<TokenId> optional_id(const GgufFile& file, const char* key) const;
  [[nodiscard]] std::optional<Found> next_special(std::string_view text, std::size_t from, bool with_control) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  PreTokenizer pre_tokenizer_ = PreTokenizer::gpt2;
  std::array<TokenId, 256> id_of_byte_{};  // -1: the vocabulary has no such token
  TokenIndexByBytes whole_words_;          // llama-bpe: a pre-token that is a token needs no merges
  std::vector<TokenId> specials_;          // control and user-defined, sorted by first byte, then the longest first
  std::array<std::uint32_t, 257> specials_of_byte_{};  // specials_ that start with byte b: [b] to [b + 1]
  std::vector<TokenId> end_of_generation_;
  std::optional<TokenId> bos_;
  std::optional<TokenId> eos_;
  bool add_bos_ = false;
  bool add_eos_ = false;
};

inline Tokenizer Tokenizer::from_gguf(const GgufFile& file) {
  const std::string& model = file.require_string("tokenizer.ggml.model");
  if (model != "gpt2") {
    throw Error(ErrorCode::unsupported,
                "tokenizer.ggml.model is \"" + model.substr(0, 64) + "\"; supported is gpt2 (byte-level BPE)");
  }
  if (file.bool_or("tokenizer.ggml.add_space_prefix", false)) {
    throw Error(ErrorCode::unsupported, "tokenizer.ggml.add_space_prefix is true; supported is false");
  }
  Tokenizer tokenizer;
  tokenizer.pre_tokenizer_ = pre_tokenizer_named(file.require_string("tokenizer.ggml.pre"));
  tokenizer.load_tokens(file);
  tokenizer.load_specials(file);
  return tokenizer;
}

inline void Tokenizer::load_tokens(const GgufFile& file) {
  const std::vector<std::string>& tokens = file.strings("tokenizer.ggml.tokens");
  std::vector<std::int64_t> kinds(tokens.size(), static_cast<std::int64_t>(TokenKind::normal));
  if (file.find("tokenizer.ggml.token_type")) kinds = file.integers("tokenizer.ggml.token_type");
  if (kinds.size() != tokens.size() || tokens.empty()) {
    throw Error(ErrorCode::malformed, "tokenizer.ggml.token_type has " + std::to_string(kinds.size()) +
                                          " entries, tokenizer.ggml.tokens " + std::to_string(tokens.size()));
  }
  std::size_t size_bytes = 0;
  for (const std::string& token : tokens) size_bytes += token.size();
  vocabulary_.reserve(tokens.size(), size_bytes);

  TokenIndexByBytes by_bytes(tokens.size());
  std::string bytes;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (kinds[i] < 1 || kinds[i] > 6) {
      throw Error(ErrorCode::malformed, "tokenizer.ggml.token_type[" + std::to_string(i) + "] is " +
                                            std::to_string(kinds[i]) + ", not 1 to 6");
    }
    const auto kind = static_cast<TokenKind>(kinds[i]);
    bytes.clear();
    const bool in_alphabet = kind == TokenKind::normal && append_bytes_from_alphabet(tokens[i], bytes);
    vocabulary_.add(in_alphabet ? bytes : tokens[i], kind);
    if (!in_alphabet) continue;
    if (const auto twin = by_bytes.add(vocabulary_, static_cast<TokenId>(i))) {
      throw Error(ErrorCode::malformed, "tokenizer.ggml.tokens: entries " + std::to_string(*twin) + " and " +
                                            std::to_string(i) + " are the same token");
    }
  }
  for (std::size_t byte = 0; byte < id_of_byte_.size(); ++byte) {
    const char c = static_cast<char>(byte);
    id_of_byte_[byte] = by_bytes.find(vocabulary_, {&c, 1}).value_or(-1);
  }
  load_merges(file, by_bytes);
  if (pre_tokenizer_ == PreTokenizer::llama_bpe) whole_words_ = std::move(by_bytes);
}

inline void Tokenizer::load_merges(const GgufFile& file, const TokenIndexByBytes& by_bytes) {
  const std::vector<std::string>& texts = file.strings("tokenizer.ggml.merges");
  std::vector<Merge> merges;
  merges.reserve(texts.size());
  std::string bytes;
  for (const std::string& text : texts) {
    const std::string_view view = text;
    const std::size_t space = view.find(' ');
    bytes.clear();
    if (space != std::string_view::npos && append_bytes_from_alphabet(view.substr(0, space), bytes)) {
      const std::size_t left_size = bytes.size();
      if (append_bytes_from_alphabet(view.substr(space + 1), bytes)) {
        const std::string_view both = bytes;
        const auto left = by_bytes.find(vocabulary_, both.substr(0, left_size));
        const auto right = by_bytes.find(vocabulary_, both.substr(left_size));
        const auto result = by_bytes.find(vocabulary_, both);
        if (left && right && result) {
          merges.push_back({*left, *right, *result});
          continue;
        }
      }
    }
    throw Error(ErrorCode::malformed, "tokenizer.ggml.merges[" + std::to_string(merges.size()) + "] \"" +
                                          text.substr(0, 64) + "\" does not merge two tokens into a third");
  }
  merges_ = MergeTable(std::move(merges));
}

inline std::optional<TokenId> Tokenizer::optional_id(const GgufFile& file, const char* key) const {
  if (!file.find(key)) return std::nullopt;
  const std::uint64_t id = file.require_unsigned(key);
  if (id >= vocab_size()) {
    throw Error(ErrorCode::malformed, std::string(key) + " is " + std::to_string(id) + ", the vocabulary has " +
                                          std::to_string(vocab_size()) + " tokens");
  }
  return static_cast<TokenId>(id);
}

inline void Tokenizer::load_specials(const GgufFile& file) {
  for (std::size_t i = 0; i < vocab_size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const TokenKind kind = vocabulary_.kind(id);
    if ((kind == TokenKind::control || kind == TokenKind::user_defined) && !piece(id).empty()) specials_.push_back(id);
  }
  const auto first_byte = [this](TokenId id) { return static_cast<unsigned char>(piece(id)[0]); };
  std::stable_sort(specials_.begin(), specials_.end(), [&](TokenId a, TokenId b) {
    if (first_byte(a) != first_byte(b)) return first_byte(a) < first_byte(b);
    return piece(a).size() > piece(b).size();
  });
  for (const TokenId id : specials_) ++specials_of_byte_[first_byte(id) + std::size_t{1}];
  for (std::size_t b = 1; b < specials_of_byte_.size(); ++b) specials_of_byte_[b] += specials_of_byte_[b - 1];

  bos_ = optional_id(file, "tokenizer.ggml.bos_token_id");
  eos_ = optional_id(file, "tokenizer.ggml.eos_token_id");
  add_bos_ = file.bool_or("tokenizer.ggml.add_bos_token", pre_tokenizer_ == PreTokenizer::llama_bpe);
  add_eos_ = file.bool_or("tokenizer.ggml.add_eos_token", false);
  if (add_bos_ && !bos_) throw Error(ErrorCode::malformed, "tokenizer.ggml.bos_token_id is missing, to be added");
  if (add_eos_ && !eos_) throw Error(ErrorCode::malformed, "tokenizer.ggml.eos_token_id is missing, to be added");

  // The chat models of these families end a turn with other tokens than the one the file calls end of sequence.
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (const auto id = optional_id(file, key)) end_of_generation_.push_back(*id);
  }
  for (const char* name : {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"}) {
    if (const auto id = find(name)) end_of_generation_.push_back(*id);
  }
}

inline std::optional<Tokenizer::Found> Tokenizer::next_special(std::string_view text, std::size_t from,
                                                               bool with_control) const {
  for (std::size_t position = from; position < text.size(); ++position) {
    const auto byte = static_cast<unsigned char>(text[position]);
    for (std::size_t i = specials_of_byte_[byte]; i < specials_of_byte_[byte + std::size_t{1}]; ++i) {
      const TokenId id = specials_[i];
      if (!with_control && vocabulary_.kind(id) == TokenKind::control) continue;
      if (text.substr(position).starts_with(piece(id))) return Found{position, piece(id).size(), id};
    }
  }
  return std::nullopt;
}

inline std::vector<TokenId> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  std::vector<TokenId> ids;
  std::vector<TokenId> bytes;
  BytePairMerger merger(merges_);
  const auto encode_word = [&](std::string_view word) {
    if (const auto whole = whole_words_.find(vocabulary_, word)) return ids.push_back(*whole);
    bytes.clear();
    for (const char c : word) {
      const TokenId id = id_of_byte_[static_cast<unsigned char>(c)];
      if (id >= 0) bytes.push_back(id);
    }
    merger.merge(bytes, ids);
  };

  if (options.add_special && add_bos_) ids.push_back(*bos_);
  for (std::size_t begin = 0; begin < text.size();) {
    const auto special = next_special(text, begin, options.parse_special);
    const std::size_t end = special ? special->position : text.size();
    for_each_pre_token(pre_tokenizer_, text.substr(begin, end - begin), encode_word);
    if (special) ids.push_back(special->id);
    begin = special ? end + special->size_bytes : end;
  }
  if (options.add_special && add_eos_) ids.push_back(*eos_);
  return ids;
}

inline std::size_t Tokenizer::missing_bytes(std::string_view text) const {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [this](char c) { return id_of_byte_[static_cast<unsigned char>(c)] < 0; }));
}

inline std::string Tokenizer::decode(std::span<const TokenId> ids, bool with_control) const {
  std::string text;
  for (const TokenId id : ids) {
    if (with_control || !is_control(id)) text += piece(id);
  }
  return text;
}

inline bool Tokenizer::is_control(TokenId id) const {
  const TokenKind kind = vocabulary_.kind(id);
  return kind == TokenKind::control || kind == TokenKind::unknown || kind == TokenKind::unused;
}

inline bool Tokenizer::is_end_of_generation(TokenId id) const {
  static_cast<void>(vocabulary_.kind(id));  // for its check of the id
  return std::find(end_of_generation_.begin(), end_of_generation_.end(), id) != end_of_generation_.end();
}

inline std::optional<TokenId> Tokenizer::find(std::string_view control_token) const {
  const auto found =
      std::find_if(specials_.begin(), specials_.end(), [&](TokenId id) { return piece(id) == control_token; });
  if (found == specials_.end()) return std::nullopt;
  return *found;
}

}  // namespace lazyllm::inline v0
