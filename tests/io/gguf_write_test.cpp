#include <lazyllm/io/gguf_parse.hpp>
#include <lazyllm/io/gguf_write.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <span>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/gguf_text.hpp"

using namespace lazyllm;

namespace {

static_assert(!std::is_copy_constructible_v<GgufWriter>);
static_assert(std::is_nothrow_move_constructible_v<std::vector<std::byte>>);

/// A new folder that removes itself.
struct TemporaryFolder {
  std::filesystem::path path;
  TemporaryFolder() {
    std::random_device random;
    path = std::filesystem::temp_directory_path() / ("lazyllm-test-" + std::to_string(random()));
    std::filesystem::create_directory(path);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

std::vector<std::byte> some_bytes(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + 1);
  return bytes;
}

}  // namespace

TEST_CASE("a file of the gguf package, parsed and written again, has the same bytes") {
  for (const std::string name : {"gguf/every_type.gguf", "gguf/aligned_128.gguf"}) {
    CAPTURE(name);
    const auto original = test_support::to_bytes(test_support::read_test_data(name));
    const GgufFile file = parse_gguf(original);
    GgufWriter writer;
    for (const auto& [key, value] : file.metadata()) writer.add(key, value);
    for (const GgufTensor& tensor : file.tensors()) {
      writer.add_tensor(tensor.name, tensor.type, tensor.shape,
                        std::span(original).subspan(static_cast<std::size_t>(file.data_offset() + tensor.offset),
                                                    static_cast<std::size_t>(tensor.size_bytes)));
    }
    CHECK(writer.bytes() == original);
    std::ostringstream stream;
    writer.write(stream);
    CHECK(test_support::to_bytes(stream.str()) == original);
  }
}

TEST_CASE("what the writer writes, the parser reads") {
  GgufWriter writer;
  writer.add("text", "plain").add("number", 5).add("flag", true).add("real", 0.5f);
  writer.add("empty.strings", std::vector<std::string>{}).add("empty.bools", std::vector<bool>{});
  writer.add("late", std::vector<std::int16_t>{-1, 2});
  writer.add_tensor("owned", GgufType::i8, {5}, some_bytes(5));
  const auto kept = some_bytes(34);
  writer.add_tensor("borrowed", GgufType::q8_0, {32, 1}, kept);
  writer.add("general.alignment", std::uint32_t{64});  // also counts for tensors added before
  GgufWriter moved = std::move(writer);

  const auto bytes = moved.bytes();
  const GgufFile file = parse_gguf(bytes);
  CHECK(file.version() == 3);
  CHECK(file.alignment() == 64);
  CHECK(file.require_string("text") == "plain");
  CHECK(file.require_unsigned("number") == 5);
  CHECK(file.bool_or("flag", false));
  CHECK(file.require_real("real") == 0.5);
  CHECK(file.strings("empty.strings").empty());
  CHECK(file.integers("late") == std::vector<std::int64_t>{-1, 2});
  CHECK(file.require_tensor("borrowed").offset == 64);
  const auto data = [&](const std::string& name) {
    const GgufTensor& tensor = file.require_tensor(name);
    const auto part = std::span(bytes).subspan(static_cast<std::size_t>(file.data_offset() + tensor.offset),
                                               static_cast<std::size_t>(tensor.size_bytes));
    return std::vector<std::byte>(part.begin(), part.end());
  };
  CHECK(data("owned") == some_bytes(5));
  CHECK(data("borrowed") == kept);
  CHECK(bytes.size() == file.data_offset() + 128);
}

TEST_CASE("an empty writer makes a valid file without entries and tensors") {
  const GgufFile file = parse_gguf(GgufWriter{}.bytes());
  CHECK(file.metadata().empty());
  CHECK(file.tensors().empty());
}

TEST_CASE("the writer refuses what the parser would refuse") {
  GgufWriter writer;
  writer.add("key", true).add_tensor("tensor", GgufType::i8, {1}, some_bytes(1));
  CHECK_THROWS_WITH_AS(writer.add("key", 1), "GGUF key key: was added before", Error);
  CHECK_THROWS_AS(writer.add("", 1), Error);
  CHECK_THROWS_WITH_AS(writer.add("general.alignment", std::uint32_t{48}), doctest::Contains("48"), Error);
  CHECK_THROWS_AS(writer.add("general.alignment", "32"), Error);
  CHECK_THROWS_WITH_AS(writer.add_tensor("tensor", GgufType::i8, {1}, some_bytes(1)),
                       "GGUF tensor tensor: was added before", Error);
  CHECK_THROWS_AS(writer.add_tensor("", GgufType::i8, {1}, some_bytes(1)), Error);
  CHECK_THROWS_WITH_AS(writer.add_tensor("short", GgufType::f32, {2}, some_bytes(7)),
                       "GGUF tensor short: its shape takes 8 bytes, got 7", Error);
  CHECK_THROWS_AS(writer.add_tensor("rows", GgufType::q4_0, {16}, some_bytes(9)), Error);
  // The refused ones left nothing behind.
  const GgufFile file = parse_gguf(writer.bytes());
  CHECK(file.metadata().size() == 1);
  CHECK(file.tensors().size() == 1);
  CHECK(file.alignment() == 32);
}

TEST_CASE("save replaces a file as a whole and leaves nothing else behind") {
  const TemporaryFolder folder;
  const auto path = folder.path / "model.gguf";
  std::ofstream(path) << "an older file";
  GgufWriter writer;
  writer.add("key", "value").add_tensor("t", GgufType::i8, {3}, some_bytes(3));
  writer.save(path);
  std::ifstream in(path, std::ios::binary);
  const std::string saved{std::istreambuf_iterator<char>(in), {}};
  CHECK(test_support::to_bytes(saved) == writer.bytes());
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path), {}) == 1);
}

TEST_CASE("save that fails names the file and leaves nothing behind") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(GgufWriter{}.save(folder.path / "missing" / "model.gguf"), doctest::Contains("model.gguf"),
                       Error);
  const auto occupied = folder.path / "folder.gguf";  // a folder with contents cannot be renamed over
  std::filesystem::create_directory(occupied);
  std::ofstream(occupied / "file") << "x";
  CHECK_THROWS_WITH_AS(GgufWriter{}.save(occupied), doctest::Contains("folder.gguf"), Error);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path), {}) == 1);
}

TEST_CASE("a stream that fails is an error") {
  std::ostringstream stream;
  stream.setstate(std::ios::badbit);
  CHECK_THROWS_AS(GgufWriter{}.write(stream), Error);
}
