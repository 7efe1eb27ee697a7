#include "file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace quantal::file {
namespace {

/// What never ends, /dev/zero say, must not fill the memory.
constexpr std::size_t longest_text = std::size_t{4} << 30;

result<std::string> read_all(int fd, const std::string& path) {
  struct ::stat s {};
  if (::fstat(fd, &s) != 0) return error{path + ": " + std::strerror(errno)};
  if (S_ISDIR(s.st_mode)) return error{path + ": is a folder"};
  std::string out;
  std::vector<char> buffer(std::size_t{1} << 18);
  for (;;) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return error{path + ": cannot read: " + std::strerror(errno)};
    if (n == 0) return out;
    out.append(buffer.data(), static_cast<std::size_t>(n));
    if (out.size() > longest_text) return error{path + ": is longer than 4 GiB of text"};
  }
}

}  // namespace

result<std::string> read_text(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return error{path.string() + ": cannot open: " + std::strerror(errno)};
  auto content = read_all(fd, path.string());
  ::close(fd);
  return content;
}

}  // namespace quantal::file
