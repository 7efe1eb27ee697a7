// A temporary file that has no name, so that nothing of it can stay behind.
#pragma once

#include <filesystem>
#include <utility>

#include "quantal/result.hpp"

namespace quantal {

class unnamed_file {
 public:
  /// On the disk of `folder`.
  static result<unnamed_file> in(const std::filesystem::path& folder);
  unnamed_file(unnamed_file&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  unnamed_file& operator=(unnamed_file&& o) noexcept { return std::swap(fd_, o.fd_), *this; }
  ~unnamed_file();

  /// Opens the file as long as this object lives.
  std::filesystem::path path() const;

 private:
  explicit unnamed_file(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace quantal
