// MappedFile: the bytes of a file, either mapped (pages come when touched and can be given back) or read into memory.
// POSIX. A mapping is read-only; the file must not be truncated while it is mapped (the system then raises SIGBUS).
#pragma once

#include <lazyllm/core/aligned_buffer.hpp>
#include <lazyllm/core/contract.hpp>
#include <lazyllm/core/error.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <system_error>
#include <utility>

namespace lazyllm::inline v0 {

enum class FileMode {
  map,   ///< for large files: memory is used only for the pages that were touched and not released
  read,  ///< for file systems that cannot map, and files that may change: a private copy
};

/// Owns the bytes of one file. Moves, does not copy; any number of threads may use one object's const functions.
class MappedFile {
 public:
  /// Throws Error (io) with the path and the reason: missing, not a regular file, empty, not readable.
  explicit MappedFile(const std::filesystem::path& path, FileMode mode = FileMode::map);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() { unmap(); }

  /// The whole file; 64-byte aligned, valid while this object lives.
  [[nodiscard]] std::span<const std::byte> bytes() const;

  /// Gives back the memory of the whole pages inside this range: they are read again when touched again, so `bytes()`
  /// does not change. Does nothing in read mode.
  void release(std::size_t offset, std::size_t size) const;

  /// Tells the system that the file will be read from front to back. Does nothing in read mode.
  void advise_sequential() const;

 private:
  void unmap() noexcept;

  AlignedBuffer<std::byte> owned_;
  const std::byte* mapping_ = nullptr;
  std::size_t mapping_bytes_ = 0;
};

namespace detail {

[[noreturn]] inline void file_error(const std::filesystem::path& path, const std::string& what) {
  throw Error(ErrorCode::io, "file " + path.string() + ": " + what);
}

/// The same with the text of an errno value.
[[noreturn]] inline void file_error(const std::filesystem::path& path, const char* what, int number) {
  file_error(path, std::string(what) + ": " + std::generic_category().message(number));
}

/// A file descriptor that closes itself.
class FileDescriptor {
 public:
  explicit FileDescriptor(int number) : number_(number) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (number_ >= 0) ::close(number_);
  }
  [[nodiscard]] int number() const { return number_; }

 private:
  int number_;
};

inline void read_exactly(int descriptor, std::span<std::byte> into, const std::filesystem::path& path) {
  constexpr std::size_t at_once = std::size_t{1} << 30;  // some systems refuse reads of 2 GiB and more
  for (std::size_t done = 0; done < into.size();) {
    const ssize_t got = ::read(descriptor, into.data() + done, std::min(into.size() - done, at_once));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) file_error(path, "cannot read", errno);
    if (got == 0) {
      file_error(path, "ended after " + std::to_string(done) + " of " + std::to_string(into.size()) + " bytes");
    }
    done += static_cast<std::size_t>(got);
  }
}

}  // namespace detail

inline MappedFile::MappedFile(const std::filesystem::path& path, FileMode mode) {
  // O_NONBLOCK: opening a pipe returns, and is then refused, instead of waiting for a writer.
  const detail::FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.number() < 0) detail::file_error(path, "cannot open", errno);
  struct stat status = {};
  if (::fstat(file.number(), &status) != 0) detail::file_error(path, "cannot read its size", errno);
  if (S_ISDIR(status.st_mode)) detail::file_error(path, "is a directory");
  if (!S_ISREG(status.st_mode)) detail::file_error(path, "is not a regular file");
  if (status.st_size <= 0) detail::file_error(path, "is empty");
  if (static_cast<std::uintmax_t>(status.st_size) > std::numeric_limits<std::size_t>::max()) {
    detail::file_error(path, std::to_string(status.st_size) + " bytes do not fit into the address space");
  }
  const auto size = static_cast<std::size_t>(status.st_size);

  if (mode == FileMode::read) {
    owned_ = AlignedBuffer<std::byte>(size);
    detail::read_exactly(file.number(), owned_.span(), path);
    return;
  }
  void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number(), 0);
  if (mapping == MAP_FAILED) detail::file_error(path, "cannot map", errno);
  mapping_ = static_cast<const std::byte*>(mapping);
  mapping_bytes_ = size;
}

inline MappedFile::MappedFile(MappedFile&& other) noexcept
    : owned_(std::exchange(other.owned_, {})),
      mapping_(std::exchange(other.mapping_, nullptr)),
      mapping_bytes_(std::exchange(other.mapping_bytes_, 0)) {}

inline MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    unmap();
    owned_ = std::exchange(other.owned_, {});
    mapping_ = std::exchange(other.mapping_, nullptr);
    mapping_bytes_ = std::exchange(other.mapping_bytes_, 0);
  }
  return *this;
}

inline std::span<const std::byte> MappedFile::bytes() const {
  if (mapping_) return {mapping_, mapping_bytes_};
  return owned_.span();
}

inline void MappedFile::release(std::size_t offset, std::size_t size) const {
  LAZYLLM_EXPECTS(offset <= bytes().size() && size <= bytes().size() - offset);
  if (!mapping_) return;
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t first = (offset + page - 1) / page * page;
  // The file's last page belongs to the range that reaches the end of the file, whole or not.
  const std::size_t end = offset + size == mapping_bytes_ ? mapping_bytes_ : (offset + size) / page * page;
  if (first >= end) return;
  // A refusal costs memory, nothing else.
  static_cast<void>(::madvise(const_cast<std::byte*>(mapping_ + first), end - first, MADV_DONTNEED));
}

inline void MappedFile::advise_sequential() const {
  if (mapping_) static_cast<void>(::madvise(const_cast<std::byte*>(mapping_), mapping_bytes_, MADV_SEQUENTIAL));
}

inline void MappedFile::unmap() noexcept {
  if (mapping_) ::munmap(const_cast<std::byte*>(mapping_), mapping_bytes_);
  mapping_ = nullptr;
}

}  // namespace lazyllm::inline v0
