// What stands at the path of an output, and whether it can be written or replaced: asked before anything is written.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "quantal/result.hpp"

namespace quantal {

struct output_target {
  std::filesystem::path path;  ///< behind all symbolic links
  bool exists = false;
  bool stream = false;      ///< device node, FIFO or descriptor: written to directly, never replaced
  int descriptor = -1;      ///< of this process, for paths like /dev/stdout and /dev/fd/N
  struct ::stat status {};  ///< if it exists

  /// Follows links. Errors, by name: folders, sockets, block devices, files that cannot be written or replaced.
  static result<output_target> find(const std::filesystem::path& given);
};

namespace detail {

inline error output_error(const std::filesystem::path& path, const std::string& why) {
  return {path.string() + ": " + why};
}
inline error cannot_create(const std::filesystem::path& path, int cause) {
  return output_error(path, std::string("cannot create: ") + std::strerror(cause));
}

/// Descriptors 0, 1 and 2 belong to the standard streams, also where a caller closed them: an output that got one of
/// them would receive every message printed later.
inline int above_standard_streams(int fd) noexcept {
  if (fd < 0 || fd > 2) return fd;
  const int above = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  const int cause = errno;
  ::close(fd);
  errno = cause;
  return above;
}

inline std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

inline bool same_file(const struct ::stat& a, const struct ::stat& b) noexcept {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/// N of /proc/self/fd/N, however the folder is spelled; -1 for other paths.
inline int own_descriptor(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  int n = -1;
  const auto [end, failed] = std::from_chars(name.data(), name.data() + name.size(), n);
  if (failed != std::errc{} || end != name.data() + name.size() || n < 0) return -1;
  struct ::stat folder {
  }, descriptors{};
  if (::stat(folder_of(path).c_str(), &folder) != 0 || ::stat("/proc/self/fd", &descriptors) != 0) return -1;
  return same_file(folder, descriptors) ? n : -1;
}

/// Follows symbolic links, also one whose target does not exist, up to the last name or one of this process's
/// descriptors.
inline result<void> follow_links(const std::filesystem::path& given, output_target& t) {
  t.path = given;
  for (int links = 0; links < 40; ++links) {
    if ((t.descriptor = own_descriptor(t.path)) >= 0) return {};
    struct ::stat s {};
    if (::lstat(t.path.c_str(), &s) != 0 || !S_ISLNK(s.st_mode)) return {};
    std::error_code failed;
    const auto next = std::filesystem::read_symlink(t.path, failed);
    if (failed) return output_error(given, "cannot follow the link: " + failed.message());
    t.path = next.is_absolute() ? next : t.path.parent_path() / next;
  }
  return cannot_create(given, ELOOP);
}

/// Something is mounted on the file itself, as containers do: another file cannot take its name.
inline bool is_mount_point([[maybe_unused]] const std::filesystem::path& path) {
#if defined(STATX_ATTR_MOUNT_ROOT)
  struct ::statx s {};
  return ::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, STATX_TYPE, &s) == 0 &&
         (s.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
#else
  return false;
#endif
}

/// In a sticky folder only the owner of the file or the folder may replace it.
inline bool sticky_forbids(const output_target& t) {
  struct ::stat folder {};
  if (::stat(folder_of(t.path).c_str(), &folder) != 0 || !(folder.st_mode & S_ISVTX)) return false;
  const auto me = ::geteuid();
  return me != 0 && me != t.status.st_uid && me != folder.st_uid;
}

/// A file that its owner protects from writing is not replaced either.
inline result<void> check_replaceable(const output_target& t) {
  const int fd = ::open(t.path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return output_error(t.path, std::string("cannot be replaced: ") + std::strerror(errno));
  ::close(fd);
  if (sticky_forbids(t))
    return output_error(t.path,
                        "cannot be replaced: belongs to another user in a folder with the sticky bit");
  if (is_mount_point(t.path)) return output_error(t.path, "cannot be replaced: is a mount point");
  return {};
}

inline result<void> check_descriptor(const output_target& t) {
  const int flags = ::fcntl(t.descriptor, F_GETFL);
  if (flags < 0) return output_error(t.path, std::string("cannot be written: ") + std::strerror(errno));
  if ((flags & O_ACCMODE) == O_RDONLY)
    return output_error(t.path, "cannot be written: is open for reading only");
  return {};
}

}  // namespace detail

inline result<output_target> output_target::find(const std::filesystem::path& given) {
  if (given.empty()) return error{"an output has no name"};
  output_target t;
  t.exists = ::stat(given.c_str(), &t.status) == 0;
  if (!t.exists && errno != ENOENT) return detail::cannot_create(given, errno);
  if (t.exists && S_ISDIR(t.status.st_mode)) return detail::output_error(given, "is a folder");
  if (given.filename().empty()) return detail::output_error(given, "ends in a slash, which names a folder");
  if (auto followed = detail::follow_links(given, t); !followed) return followed.error();
  if (t.descriptor >= 0) {
    t.stream = true;
    if (auto ok = detail::check_descriptor(t); !ok) return ok.error();
    return t;
  }
  if (!t.exists) return t;
  if (S_ISSOCK(t.status.st_mode)) return detail::output_error(given, "is a socket");
  if (S_ISBLK(t.status.st_mode))
    return detail::output_error(given, "is a block device; what it holds would be lost");
  t.stream = !S_ISREG(t.status.st_mode);
  if (t.stream) t.path = given;
  if (t.stream && ::faccessat(AT_FDCWD, given.c_str(), W_OK, AT_EACCESS) != 0)
    return detail::output_error(given, std::string("cannot be written: ") + std::strerror(errno));
  if (t.stream) return t;
  if (auto ok = detail::check_replaceable(t); !ok) return ok.error();
  return t;
}

}  // namespace quantal
