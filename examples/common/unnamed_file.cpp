#include "unnamed_file.hpp"

#include <cstdlib>
#include <string>

#include "quantal/output_target.hpp"

namespace quantal {
namespace {

int open_without_name(const std::filesystem::path& folder) {
#if defined(O_TMPFILE)
  const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) return fd;
#endif
  std::string name = (folder / "quantal-XXXXXX").string();
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  if (named >= 0) ::unlink(name.c_str());
  return named;
}

}  // namespace

result<unnamed_file> unnamed_file::in(const std::filesystem::path& folder) {
  const auto where = folder.empty() ? std::filesystem::path(".") : folder;
  const int fd = detail::above_standard_streams(open_without_name(where));
  if (fd < 0)
    return detail::output_error(where, std::string("cannot hold a temporary file: ") + std::strerror(errno));
  return unnamed_file(fd);
}

unnamed_file::~unnamed_file() {
  if (fd_ >= 0) ::close(fd_);
}

std::filesystem::path unnamed_file::path() const { return "/proc/self/fd/" + std::to_string(fd_); }

}  // namespace quantal
