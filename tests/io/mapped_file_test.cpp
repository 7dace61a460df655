#include <lazyllm/io/mapped_file.hpp>

#include <doctest/doctest.h>

#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <type_traits>
#include <utility>

using namespace lazyllm;

namespace {

static_assert(!std::is_copy_constructible_v<MappedFile>);
static_assert(std::is_nothrow_move_constructible_v<MappedFile>);

struct TemporaryPath {
  std::filesystem::path path;
  TemporaryPath() {
    std::random_device random;
    path = std::filesystem::temp_directory_path() / ("lazyllm-mapped-" + std::to_string(random()));
  }
  explicit TemporaryPath(const std::string& contents) : TemporaryPath() {
    std::ofstream(path, std::ios::binary) << contents;
  }
  TemporaryPath(const TemporaryPath&) = delete;
  TemporaryPath& operator=(const TemporaryPath&) = delete;
  ~TemporaryPath() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

std::string contents_of(std::size_t size) {
  std::string contents(size, '\0');
  std::uint32_t state = 1;
  for (char& c : contents) c = static_cast<char>((state = state * 1664525u + 1013904223u) >> 24);
  return contents;
}

bool same(const MappedFile& file, const std::string& contents) {
  const auto bytes = file.bytes();
  return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == contents;
}

/// Bytes of this process's memory that come from files.
std::size_t resident_file_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t total = 0;
  std::size_t resident = 0;
  std::size_t shared = 0;
  statm >> total >> resident >> shared;
  return shared * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

TEST_CASE("both modes give the bytes of the file") {
  for (const std::size_t size : {std::size_t{1}, std::size_t{4095}, std::size_t{4096}, std::size_t{100001}}) {
    const std::string contents = contents_of(size);
    const TemporaryPath file(contents);
    for (const FileMode mode : {FileMode::map, FileMode::read}) {
      const MappedFile mapped(file.path, mode);
      mapped.advise_sequential();
      CHECK(same(mapped, contents));
      CHECK(reinterpret_cast<std::uintptr_t>(mapped.bytes().data()) % 64 == 0);
    }
  }
}

TEST_CASE("released ranges still read as the file, whatever their bounds") {
  const std::string contents = contents_of(5 * 4096 + 123);
  const TemporaryPath file(contents);
  for (const FileMode mode : {FileMode::map, FileMode::read}) {
    const MappedFile mapped(file.path, mode);
    REQUIRE(same(mapped, contents));
    for (const std::size_t offset : {0u, 1u, 4095u, 4096u, 4097u, 5u * 4096u, 5u * 4096u + 123u}) {
      for (std::size_t size = 0; offset + size <= contents.size(); size += 1021) mapped.release(offset, size);
      mapped.release(offset, contents.size() - offset);
      CHECK(same(mapped, contents));
    }
  }
}

TEST_CASE("release gives the memory of mapped pages back") {
  constexpr std::size_t size = 16u << 20;
  const std::string contents = contents_of(size);
  const TemporaryPath file(contents);
  const MappedFile mapped(file.path);
  const std::size_t before = resident_file_bytes();
  REQUIRE(same(mapped, contents));
  const std::size_t touched = resident_file_bytes();
  REQUIRE(touched >= before + size / 2);  // half: the system counts lazily on some kernels
  mapped.release(1, size - 1);            // all pages but the first
  CHECK(resident_file_bytes() + size / 2 <= touched);
}

TEST_CASE("moving a file moves its bytes and leaves an empty one") {
  const std::string first = contents_of(5000);
  const std::string second = contents_of(300);
  const TemporaryPath first_file(first);
  const TemporaryPath second_file(second);
  for (const FileMode mode : {FileMode::map, FileMode::read}) {
    MappedFile a(first_file.path, mode);
    MappedFile b(std::move(a));
    CHECK(same(b, first));
    CHECK(a.bytes().empty());  // NOLINT(bugprone-use-after-move): the state after a move is what is tested
    MappedFile c(second_file.path, FileMode::map);
    c = std::move(b);
    CHECK(same(c, first));
    CHECK(b.bytes().empty());  // NOLINT(bugprone-use-after-move)
    MappedFile& self = c;
    c = std::move(self);
    CHECK(same(c, first));
  }
}

TEST_CASE("a file that cannot be used is an error with its path and the reason") {
  const TemporaryPath missing;
  const TemporaryPath empty("");
  const TemporaryPath folder;
  std::filesystem::create_directory(folder.path);
  const TemporaryPath pipe;
  REQUIRE(::mkfifo(pipe.path.c_str(), 0600) == 0);
  for (const FileMode mode : {FileMode::map, FileMode::read}) {
    const auto message = [&](const std::filesystem::path& path) -> std::string {
      try {
        const MappedFile file(path, mode);
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::io);
        return error.what();
      }
      return "no error";
    };
    CHECK(message(missing.path) == "file " + missing.path.string() + ": cannot open: No such file or directory");
    CHECK(message(empty.path) == "file " + empty.path.string() + ": is empty");
    CHECK(message(folder.path) == "file " + folder.path.string() + ": is a directory");
    CHECK(message(pipe.path) == "file " + pipe.path.string() + ": is not a regular file");
  }
}
