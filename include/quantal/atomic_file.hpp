// A file that appears whole or not at all: written under a temporary name in the same folder, synced, renamed.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

#include "quantal/result.hpp"

namespace quantal {

class atomic_file {
 public:
  static result<atomic_file> create(const std::filesystem::path& path) {
    atomic_file f;
    f.path_ = path;
    f.temporary_ = path.string() + ".tmp." + std::to_string(::getpid());
    f.fd_ = ::open(f.temporary_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (f.fd_ < 0) return error{path.string() + ": cannot create: " + std::strerror(errno)};
    return f;
  }
  atomic_file(atomic_file&& o) noexcept
      : path_(std::move(o.path_)), temporary_(std::move(o.temporary_)), fd_(std::exchange(o.fd_, -1)) {}
  atomic_file& operator=(atomic_file&& o) noexcept {
    std::swap(path_, o.path_);
    std::swap(temporary_, o.temporary_);
    std::swap(fd_, o.fd_);
    return *this;
  }
  /// Without commit() nothing stays behind, and an existing file is as it was.
  ~atomic_file() {
    if (fd_ < 0) return;
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }

  result<void> write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return error{path_.string() + ": write failed: " + std::strerror(errno)};
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return {};
  }
  result<void> write(std::string_view text) { return write(std::as_bytes(std::span(text.data(), text.size()))); }

  /// Makes the file visible under its name.
  result<void> commit() {
    if (::fsync(fd_) != 0) return error{path_.string() + ": sync failed: " + std::strerror(errno)};
    if (::rename(temporary_.c_str(), path_.c_str()) != 0)
      return error{path_.string() + ": rename failed: " + std::strerror(errno)};
    ::close(std::exchange(fd_, -1));
    return {};
  }

 private:
  atomic_file() = default;
  std::filesystem::path path_;
  std::string temporary_;
  int fd_ = -1;
};

}  // namespace quantal
