#include <lazyllm/io/gguf_parse.hpp>
#include <lazyllm/io/mapped_file.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support/allocation_count.hpp"
#include "support/gguf_bytes.hpp"
#include "support/gguf_text.hpp"
#include "support/real_model.hpp"

using namespace lazyllm;
using test_support::GgufBytes;

namespace {

// The text of an error takes memory however small the file is: a few concatenated strings of at most 200 characters.
constexpr std::size_t message_bytes = 2048;

struct Outcome {
  std::optional<GgufFile> file;
  std::optional<ErrorCode> code;
  std::string message;
  std::size_t allocated = 0;
};

/// Parses a copy of exactly the size of `bytes`, so that sanitizers see a read beyond its end. Anything but a GgufFile
/// or an Error leaves this function. Checks what must hold in each case, the limit on memory above all.
Outcome parse(std::span<const std::byte> bytes) {
  const auto copy = std::make_unique<std::byte[]>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), copy.get());
  Outcome outcome;
  {
    const test::AllocationCount count;
    try {
      outcome.file = parse_gguf({copy.get(), bytes.size()});
      outcome.allocated = count.bytes();
    } catch (const Error& error) {
      outcome.allocated = count.bytes();
      outcome.code = error.code();
      outcome.message = error.what();
    }
  }
  if (outcome.allocated > 8 * bytes.size() + message_bytes) {
    FAIL("allocated " << outcome.allocated << " bytes for a file of " << bytes.size());
  }
  if (outcome.file) {
    for (const GgufTensor& tensor : outcome.file->tensors()) {
      if (tensor.offset > bytes.size() || tensor.size_bytes > bytes.size() - tensor.offset ||
          outcome.file->data_offset() > bytes.size() - tensor.offset - tensor.size_bytes) {
        FAIL("tensor " << tensor.name << " lies outside the file");
      }
    }
  } else if (outcome.message.size() > 250 || *outcome.code == ErrorCode::io) {
    FAIL("unfit error: " << outcome.message);
  }
  return outcome;
}

/// The message of the error that these bytes must give.
std::string error_of(const std::vector<std::byte>& bytes, ErrorCode code = ErrorCode::malformed) {
  const Outcome outcome = parse(bytes);
  if (!outcome.code) return "no error";
  CHECK(*outcome.code == code);
  return outcome.message;
}

std::string error_of(const GgufBytes& bytes, ErrorCode code = ErrorCode::malformed) {
  return error_of(bytes.bytes(), code);
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::vector<std::byte> package_file() {
  return test_support::to_bytes(test_support::read_test_data("gguf/every_type.gguf"));
}

/// A valid file with each kind of count, length and offset.
GgufBytes small_file() {
  GgufBytes bytes(2, 5);
  bytes.key("general.alignment", test_support::gguf_u32).number(std::uint32_t{64});
  bytes.key("text", test_support::gguf_string).text("length of string", "some text");
  bytes.key("numbers", test_support::gguf_array).array(test_support::gguf_u64, 2);
  bytes.number(std::uint64_t{5}).number(std::uint64_t{6});
  bytes.key("texts", test_support::gguf_array).array(test_support::gguf_string, 2);
  bytes.text("length of first array string", "a").text("length of second array string", "bc");
  bytes.key("flags", test_support::gguf_array).array(test_support::gguf_bool, 3).raw(std::string("\0\1\1", 3));
  bytes.tensor("first", {32, 2}, 2, 0);         // Q4_0
  bytes.tensor("second", {2, 1, 3, 1}, 0, 64);  // F32
  return bytes.data(64 + 24, 64);
}

}  // namespace

TEST_CASE("files of the gguf package are seen as the package sees them") {
  for (const std::string name : {"gguf/every_type", "gguf/aligned_128"}) {
    CAPTURE(name);
    const auto bytes = test_support::to_bytes(test_support::read_test_data(name + ".gguf"));
    CHECK(test_support::gguf_text(parse_gguf(bytes), bytes) == test_support::read_test_data(name + ".txt"));
  }
}

TEST_CASE("version 2 reads as version 3 does") {
  auto bytes = package_file();
  bytes[4] = std::byte{2};
  std::string expected = test_support::read_test_data("gguf/every_type.txt");
  expected.replace(0, 9, "version 2");
  CHECK(test_support::gguf_text(parse_gguf(bytes), bytes) == expected);
}

TEST_CASE("other versions, byte orders and files are errors that say so") {
  CHECK(contains(error_of(std::vector<std::byte>{}), "exceed the file's 0"));
  CHECK(contains(error_of(test_support::to_bytes("PK\3\4 something else entirely")), "not a GGUF file"));
  CHECK(contains(error_of(GgufBytes(0, 0, 1), ErrorCode::unsupported), "version 1; supported are 2 and 3"));
  CHECK(contains(error_of(GgufBytes(0, 0, 4), ErrorCode::unsupported), "version 4;"));
  CHECK(contains(error_of(GgufBytes(0, 0, 0), ErrorCode::unsupported), "version 0;"));
  CHECK(contains(error_of(GgufBytes(0, 0, 0x03000000u), ErrorCode::unsupported), "big-endian"));
  CHECK(error_of(GgufBytes(0, 0, 2)) == "no error");
}

TEST_CASE("a header cut anywhere is malformed, and data cut before the last tensor's end as well") {
  for (const auto& bytes : {package_file(), small_file().bytes()}) {
    const GgufFile file = parse_gguf(bytes);
    const GgufTensor& last = file.tensors().back();
    const std::uint64_t needed = file.data_offset() + last.offset + last.size_bytes;
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      CAPTURE(size);
      const Outcome outcome = parse(std::span(bytes).first(size));
      REQUIRE(outcome.file.has_value() == (size >= needed));
      REQUIRE((outcome.file || *outcome.code == ErrorCode::malformed));
    }
  }
}

TEST_CASE("each count, length, dimension, type and offset at its limits is read or refused") {
  const GgufBytes original = small_file();
  REQUIRE(error_of(original) == "no error");
  REQUIRE(original.fields().size() >= 30);
  for (const GgufBytes::Field& field : original.fields()) {
    for (const std::uint64_t value :
         {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{1} << 31, (std::uint64_t{1} << 32) - 1,
          (std::uint64_t{1} << 61) + 1, std::uint64_t{1} << 63, (std::uint64_t{1} << 63) + 32, ~std::uint64_t{0} - 63,
          ~std::uint64_t{0}}) {
      CAPTURE(field.what);
      CAPTURE(value);
      auto bytes = original.bytes();
      std::memcpy(bytes.data() + field.position, &value, field.size);
      const Outcome outcome = parse(bytes);
      // No small field may be large; a 32-bit field sees only the low half of the value.
      const std::uint64_t written = field.size == 4 ? value & 0xffffffffu : value;
      if (written > 100) CHECK_FALSE(outcome.file.has_value());
    }
  }
}

TEST_CASE("any flipped bit of the header gives a file or an Error") {
  const auto original = small_file().bytes();
  const auto header_bytes = static_cast<std::size_t>(parse_gguf(original).data_offset());
  std::size_t refused = 0;
  for (std::size_t bit = 0; bit < 8 * header_bytes; ++bit) {
    CAPTURE(bit);
    auto bytes = original;
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    refused += parse(bytes).file ? 0 : 1;
  }
  CHECK(refused > header_bytes);
}

TEST_CASE("many random changes of a header give a file or an Error") {
  const auto original = package_file();
  const auto header_bytes = static_cast<std::size_t>(parse_gguf(original).data_offset());
  std::mt19937 random(20240719);
  std::size_t refused = 0;
  for (int round = 0; round < 3000; ++round) {
    CAPTURE(round);
    auto bytes = original;
    for (std::size_t changes = 1 + random() % 6; changes > 0; --changes) {
      const std::size_t at = random() % header_bytes;
      switch (random() % 3) {
        case 0: bytes[at] ^= std::byte{1} << (random() % 8); break;
        case 1: bytes[at] = static_cast<std::byte>(random() % 256); break;
        default:  // a run of equal bytes, which makes extreme numbers
          std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), std::min<std::size_t>(8, header_bytes - at),
                      random() % 2 == 0 ? std::byte{0} : std::byte{0xff});
      }
    }
    refused += parse(bytes).file ? 0 : 1;
  }
  CHECK(refused > 1000);
}

TEST_CASE("memory stays in proportion to the file, however the file is made") {
  if (!test::counts_allocations) {
    MESSAGE("skipped: allocations are not counted under the thread sanitizer");
    return;
  }
  constexpr std::uint64_t n = 2000;
  const auto ratio = [](const std::vector<std::byte>& bytes) {
    return static_cast<double>(parse(bytes).allocated) / static_cast<double>(bytes.size());
  };
  SUBCASE("the smallest entries, all with the same key") {
    GgufBytes bytes(0, n);
    for (std::uint64_t i = 0; i < n; ++i) bytes.key("k", test_support::gguf_u8).number(std::uint8_t{0});
    CHECK(contains(error_of(bytes), "key k appears twice"));
    CHECK(ratio(bytes.bytes()) > 5);  // the count counts
  }
  SUBCASE("empty strings") {
    GgufBytes bytes(0, 1);
    bytes.key("k", test_support::gguf_array).array(test_support::gguf_string, n);
    for (std::uint64_t i = 0; i < n; ++i) bytes.text("", "");
    CHECK(error_of(bytes) == "no error");
    CHECK(ratio(bytes.bytes()) > 3);
  }
  SUBCASE("strings just too long for their object") {
    GgufBytes bytes(0, 1);
    bytes.key("k", test_support::gguf_array).array(test_support::gguf_string, n);
    for (std::uint64_t i = 0; i < n; ++i) bytes.text("", "0123456789abcdef");
    CHECK(error_of(bytes) == "no error");
  }
  SUBCASE("a count of entries and a count of strings that both claim the whole file, which then ends") {
    GgufBytes bytes(0, n);
    bytes.key("k", test_support::gguf_array).array(test_support::gguf_string, 14 * n / 8 - 10);
    for (std::uint64_t i = 0; i < 14 * n / 8 - 10; ++i) bytes.text("", "");
    CHECK(contains(error_of(bytes), "metadata"));
  }
  SUBCASE("bools") {
    GgufBytes bytes(0, 1);
    bytes.key("k", test_support::gguf_array).array(test_support::gguf_bool, n).raw(std::string(n, '\1'));
    CHECK(error_of(bytes) == "no error");
  }
  SUBCASE("the smallest tensors") {
    GgufBytes bytes(n, 0);
    for (std::uint64_t i = 0; i < n; ++i) bytes.tensor("t", {1}, 24, 0);
    CHECK(contains(error_of(bytes.data(1)), "tensor t appears twice"));
  }
  SUBCASE("a name as long as the file") {
    GgufBytes bytes(0, 1);
    bytes.key(std::string(100000, 'k'), 99);
    CHECK(contains(error_of(bytes, ErrorCode::unsupported), "kkk...: unknown metadata type 99"));
  }
}

TEST_CASE("repeated keys and names are malformed") {
  GgufBytes keys(0, 2);
  keys.key("k", test_support::gguf_u8).number(std::uint8_t{1}).key("k", test_support::gguf_u32).number(1u);
  CHECK(error_of(keys) == "GGUF key k appears twice");
  GgufBytes names(2, 0);
  names.tensor("t", {1}, 0, 0).tensor("t", {2}, 0, 32).data(40);
  CHECK(error_of(names) == "GGUF tensor t appears twice");
}

TEST_CASE("empty keys and names are malformed") {
  CHECK(contains(error_of(GgufBytes(0, 1).key("", 0).raw("0123")), "empty key"));
  CHECK(contains(error_of(GgufBytes(1, 0).tensor("", {1, 1}, 0, 0).data(4)), "empty name"));
}

TEST_CASE("the alignment must be a power of two of at least 8, and an integer") {
  for (const std::uint32_t alignment : {8u, 16u, 32u, 4096u}) {
    GgufBytes bytes(1, 1);
    bytes.key("general.alignment", test_support::gguf_u32).number(alignment).tensor("t", {1}, 0, alignment);
    const Outcome outcome = parse(bytes.data(alignment + 4u, alignment).bytes());
    REQUIRE(outcome.file.has_value());
    CHECK(outcome.file->alignment() == alignment);
    CHECK(outcome.file->data_offset() % alignment == 0);
  }
  for (const std::uint32_t alignment : {0u, 1u, 2u, 4u, 7u, 24u, 33u, 0x80000001u}) {
    GgufBytes bytes(0, 1);
    bytes.key("general.alignment", test_support::gguf_u32).number(alignment);
    CHECK(contains(error_of(bytes), "general.alignment: " + std::to_string(alignment) + " is not a power of two"));
  }
  GgufBytes real(0, 1);
  real.key("general.alignment", test_support::gguf_f32).number(32.0f);
  CHECK(contains(error_of(real), "general.alignment: wanted an unsigned integer, found float32"));
  // The largest alignment: the data section starts beyond any file.
  GgufBytes huge(1, 1);
  huge.key("general.alignment", test_support::gguf_u64).number(std::uint64_t{1} << 63).tensor("t", {1}, 0, 0);
  CHECK(contains(error_of(huge.data(4, 8)), "exceed the data section's 0"));
}

TEST_CASE("tensors must be aligned and lie inside the file") {
  const auto one = [](const std::vector<std::uint64_t>& shape, std::uint32_t type, std::uint64_t offset) {
    return GgufBytes(1, 0).tensor("t", shape, type, offset).data(128);
  };
  CHECK(error_of(one({32}, 0, 0)) == "no error");
  CHECK(error_of(one({8}, 0, 96)) == "no error");
  CHECK(error_of(one({33}, 0, 0)) == "GGUF tensor t: 132 bytes at offset 0 exceed the data section's 128");
  CHECK(contains(error_of(one({9}, 0, 96)), "36 bytes at offset 96 exceed the data section's 128"));
  CHECK(contains(error_of(one({1}, 0, 160)), "exceed"));
  CHECK(contains(error_of(one({1}, 0, ~std::uint64_t{0} - 31)), "offset 18446744073709551584 exceed"));
  // Offset and size each fit into 64 bits, their sum wraps to 0.
  CHECK(contains(error_of(one({~std::uint64_t{0} - 31}, 24, 32)), "18446744073709551584 bytes at offset 32 exceed"));
  CHECK(contains(error_of(one({1}, 0, 4)), "offset 4 is not a multiple of the alignment 32"));
  CHECK(contains(error_of(one({std::uint64_t{1} << 32, std::uint64_t{1} << 32}, 24, 0)), "64 bits"));
  CHECK(contains(error_of(one({16}, 2, 0)), "not whole blocks of 32 (Q4_0)"));
  CHECK(contains(error_of(one({0}, 0, 0)), "dimension 0 is 0"));
  CHECK(contains(error_of(one({}, 0, 0)), "0 dimensions"));
  CHECK(contains(error_of(one({1, 1, 1, 1, 1}, 0, 0)), "5 dimensions"));
  CHECK(contains(error_of(one({32}, 4, 0), ErrorCode::unsupported), "tensor t: type 4 is not known"));
}

TEST_CASE("a bool is 0 or 1, alone and in an array") {
  CHECK(contains(error_of(GgufBytes(0, 1).key("k", test_support::gguf_bool).raw("\2")), "key k: a bool of value 2"));
  GgufBytes array(0, 1);
  array.key("k", test_support::gguf_array).array(test_support::gguf_bool, 2).raw("\1\xff");
  CHECK(contains(error_of(array), "key k: a bool of value 255"));
}

TEST_CASE("unknown metadata types and arrays of arrays are unsupported, by name") {
  CHECK(contains(error_of(GgufBytes(0, 1).key("k", 13).raw("0123"), ErrorCode::unsupported),
                 "key k: unknown metadata type 13"));
  GgufBytes unknown(0, 1);
  unknown.key("k", test_support::gguf_array).array(77, 0);
  CHECK(contains(error_of(unknown, ErrorCode::unsupported), "key k: array of unknown metadata type 77"));
  GgufBytes nested(0, 1);
  nested.key("k", test_support::gguf_array).array(test_support::gguf_array, 1);
  nested.array(test_support::gguf_u8, 1).raw("0");
  CHECK(contains(error_of(nested, ErrorCode::unsupported), "key k: an array of arrays"));
}

TEST_CASE("a part of a split model is unsupported, a model of one part is not") {
  const auto parts = [](std::uint32_t count) {
    return GgufBytes(0, 1).key("split.count", test_support::gguf_u32).number(count);
  };
  CHECK(contains(error_of(parts(3), ErrorCode::unsupported), "split into 3 files"));
  CHECK(error_of(parts(1)) == "no error");
  CHECK(error_of(parts(0)) == "no error");
}

TEST_CASE("the real model is read") {
  const auto path = real_model_path();
  if (!path) {
    MESSAGE("skipped: LAZYLLM_MODEL is not set");
    return;
  }
  const MappedFile model(*path);
  const test::AllocationCount count;
  const GgufFile file = parse_gguf(model.bytes());
  CHECK(count.bytes() < 8 * file.data_offset());
  CHECK(file.require_string("general.architecture") == "llama");
  const std::uint64_t width = file.require_unsigned("llama.embedding_length");
  const GgufTensor& embedding = file.require_tensor("token_embd.weight");
  CHECK(embedding.shape == std::vector<std::uint64_t>{width, file.strings("tokenizer.ggml.tokens").size()});
  // Nine tensors a layer, the embedding and the last norm, an own head where there is one.
  const std::uint64_t layers = file.require_unsigned("llama.block_count");
  const std::uint64_t rest = file.tensors().size() - 9 * layers;
  CHECK(rest >= 2);
  CHECK(rest <= 4);
  // The tensors fill the data section: what follows the last is padding.
  std::uint64_t end = 0;
  for (const GgufTensor& tensor : file.tensors()) end = std::max(end, tensor.offset + tensor.size_bytes);
  CHECK(model.bytes().size() - (file.data_offset() + end) < file.alignment());
}
