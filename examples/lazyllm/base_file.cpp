#include "base_file.hpp"

#include <lazyllm/core/checksum.hpp>
#include <lazyllm/core/error.hpp>
#include <lazyllm/eval/logits.hpp>
#include <lazyllm/eval/perplexity.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <string>
#include <system_error>
#include <utility>

namespace program {
namespace {

using namespace lazyllm;

static_assert(std::endian::native == std::endian::little);

constexpr std::array<char, 16> magic = {'l', 'a', 'z', 'y', 'l', 'l', 'm', ' ', 'b', 'a', 's', 'e', ' ', '1', '\n', 0};
constexpr double range = 24;  // nats below the likeliest
constexpr double steps = 65535;

/// A position: the likeliest token's log-probability, then the codes.
std::uint64_t position_bytes(const BaseScope& scope) {
  return sizeof(float) + scope.vocab_size * sizeof(std::uint16_t);
}

template <class T>
void put(std::ofstream& file, std::span<const T> values) {
  const auto bytes = std::as_bytes(values);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

template <class T>
void get(std::ifstream& file, std::span<T> values) {
  const auto bytes = std::as_writable_bytes(values);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace

BaseScope base_scope(std::span<const std::vector<TokenId>> chunks, std::size_t vocab_size) {
  BaseScope scope{.vocab_size = vocab_size};
  for (const std::vector<TokenId>& chunk : chunks) {
    scope.chunk_tokens = chunk.size();
    scope.positions += chunk.size() - 1 - first_scored(chunk.size());
    scope.text_checksum = checksum(std::as_bytes(std::span(chunk)), scope.text_checksum);
  }
  return scope;
}

BaseWriter::BaseWriter(std::filesystem::path path, const BaseScope& scope)
    : path_(std::move(path)), file_(path_, std::ios::binary) {
  put(file_, std::span<const char>(magic));
  put(file_, std::span(&scope, 1));
  if (!file_.flush()) throw Error(ErrorCode::io, "cannot write " + path_.string());
}

void BaseWriter::write(std::span<const float> logits) {
  const float largest = *std::ranges::max_element(logits);
  const float likeliest = static_cast<float>(double{largest} - log_sum_exp(logits));
  codes_.resize(logits.size());
  std::ranges::transform(logits, codes_.begin(), [largest](float logit) {
    const double below = std::min(range, double{largest} - double{logit});
    return static_cast<std::uint16_t>(std::lround(below / range * steps));
  });
  put(file_, std::span(&likeliest, 1));
  put(file_, std::span<const std::uint16_t>(codes_));
  if (!file_.flush()) throw Error(ErrorCode::io, "cannot write " + path_.string());
}

BaseReader::BaseReader(std::filesystem::path path, const BaseScope& scope)
    : path_(std::move(path)), file_(path_, std::ios::binary) {
  std::array<char, magic.size()> found{};
  BaseScope stored;
  get(file_, std::span<char>(found));
  get(file_, std::span(&stored, 1));
  if (!file_) throw Error(ErrorCode::io, "cannot read " + path_.string());
  if (found != magic) throw Error(ErrorCode::malformed, path_.string() + " is no base of lazyllm perplexity");
  const auto differs = [&](const char* what, std::uint64_t in_file, std::uint64_t wanted) {
    throw Error(ErrorCode::invalid_argument, path_.string() + " is of another run: " + what + " " +
                                                 std::to_string(in_file) + ", this one has " + std::to_string(wanted));
  };
  if (stored.vocab_size != scope.vocab_size) differs("a vocabulary of", stored.vocab_size, scope.vocab_size);
  if (stored.chunk_tokens != scope.chunk_tokens) differs("chunks of", stored.chunk_tokens, scope.chunk_tokens);
  if (stored.positions != scope.positions) differs("scored tokens", stored.positions, scope.positions);
  if (stored != scope) {
    throw Error(ErrorCode::invalid_argument, path_.string() + " is of another text, or of another tokenizer");
  }
  std::error_code ignored;
  const std::uint64_t expected = magic.size() + sizeof(BaseScope) + scope.positions * position_bytes(scope);
  if (const std::uint64_t size = std::filesystem::file_size(path_, ignored); size != expected) {
    throw Error(ErrorCode::malformed, path_.string() + " has " + std::to_string(size) + " bytes, a whole base of " +
                                          std::to_string(scope.positions) + " scored tokens " +
                                          std::to_string(expected));
  }
  codes_.resize(scope.vocab_size);
  row_.resize(scope.vocab_size);
}

std::span<const float> BaseReader::read() {
  float likeliest = 0;
  get(file_, std::span(&likeliest, 1));
  get(file_, std::span<std::uint16_t>(codes_));
  if (!file_) throw Error(ErrorCode::io, "cannot read " + path_.string());
  std::ranges::transform(codes_, row_.begin(), [likeliest](std::uint16_t code) {
    return static_cast<float>(double{likeliest} - static_cast<double>(code) * range / steps);
  });
  return row_;
}

}  // namespace program
