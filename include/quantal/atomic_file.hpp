// A file that appears whole or not at all: written under a temporary name in the same folder, synced,
// renamed.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
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
      : path_(std::move(o.path_)),
        temporary_(std::move(o.temporary_)),
        kept_(std::move(o.kept_)),
        fd_(std::exchange(o.fd_, -1)) {}
  atomic_file& operator=(atomic_file&& o) noexcept {
    std::swap(path_, o.path_);
    std::swap(temporary_, o.temporary_);
    std::swap(kept_, o.kept_);
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
  result<void> write(std::string_view text) {
    return write(std::as_bytes(std::span(text.data(), text.size())));
  }

  /// Makes the file visible under its name.
  result<void> commit() {
    if (auto s = sync(); !s) return s;
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) return failed("rename");
    ::close(std::exchange(fd_, -1));
    return {};
  }

  /// Makes all of the files visible or none: if one cannot be, what the others replaced is put back. Replaced
  /// files are kept as PATH.old.PID meanwhile, so that a process killed in the middle loses none of them
  /// either.
  static result<void> commit_all(std::span<atomic_file* const> files) {
    if (files.size() == 1) return files[0]->commit();
    for (auto* f : files)
      if (auto s = f->sync(); !s) return s;
    for (std::size_t i = 0; i < files.size(); ++i) {
      auto done = files[i]->replace();
      if (done) continue;
      while (i-- > 0) files[i]->restore();
      return done;
    }
    for (auto* f : files) {
      if (!f->kept_.empty()) ::unlink(f->kept_.c_str());
      ::close(std::exchange(f->fd_, -1));
    }
    return {};
  }

 private:
  atomic_file() = default;

  error failed(const char* what) const {
    return {path_.string() + ": " + what + " failed: " + std::strerror(errno)};
  }
  result<void> sync() {
    if (::fsync(fd_) != 0) return failed("sync");
    return {};
  }

  /// A second name for what is to be replaced; on file systems without hard links it moves to that name.
  result<void> keep_replaced() {
    std::error_code ignored;
    if (std::filesystem::is_directory(path_, ignored)) return error{path_.string() + ": is a folder"};
    std::string kept = path_.string() + ".old." + std::to_string(::getpid());
    if (::link(path_.c_str(), kept.c_str()) != 0) {
      if (errno == ENOENT) return {};
      if (errno == EEXIST || ::rename(path_.c_str(), kept.c_str()) != 0)
        return error{path_.string() + ": cannot be kept as " + kept + ": " + std::strerror(errno)};
    }
    kept_ = std::move(kept);
    return {};
  }
  result<void> replace() {
    if (auto k = keep_replaced(); !k) return k;
    if (::rename(temporary_.c_str(), path_.c_str()) == 0) return {};
    const auto why = failed("rename");
    if (!kept_.empty()) restore();
    return why;
  }
  /// Where both names are the same file still, the renaming does nothing.
  void restore() noexcept {
    if (kept_.empty()) {
      ::unlink(path_.c_str());
      return;
    }
    if (::rename(kept_.c_str(), path_.c_str()) == 0) ::unlink(kept_.c_str());
    kept_.clear();
  }

  std::filesystem::path path_;
  std::string temporary_, kept_;
  int fd_ = -1;
};

}  // namespace quantal
