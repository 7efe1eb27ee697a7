#include "hidden_states.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace quantal::mla {

result<mapped_floats> mapped_floats::open(const std::filesystem::path& path, std::int64_t floats, bool keep) {
  const auto fail = [&](const char* what, int cause) {
    return error{path.string() + ": " + what + ": " + std::strerror(cause)};
  };
  const auto bytes = static_cast<std::size_t>(floats) * sizeof(float);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | (keep ? 0 : O_CREAT), 0600);
  if (fd < 0) return fail("cannot open", errno);
  struct stat s {};
  if (keep && (::fstat(fd, &s) != 0 || static_cast<std::size_t>(s.st_size) != bytes)) {
    ::close(fd);
    return error{path.string() + ": has another size than the text's hidden states"};
  }
  if (!keep && ::ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    const int cause = errno;
    ::close(fd);
    return fail("cannot be made large enough", cause);
  }
  // A page without space on the disk would end the program when it is written.
  const int reserved = keep ? 0 : ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  if (reserved != 0) {
    ::close(fd);
    return fail("cannot hold the hidden states", reserved);
  }
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const int cause = errno;
  ::close(fd);
  if (at == MAP_FAILED) return fail("cannot map", cause);
  return mapped_floats(path.string(), {static_cast<float*>(at), static_cast<std::size_t>(floats)});
}

mapped_floats::mapped_floats(mapped_floats&& o) noexcept
    : path_(std::move(o.path_)), values_(std::exchange(o.values_, {})) {}

mapped_floats::~mapped_floats() {
  if (!values_.empty()) ::munmap(values_.data(), values_.size_bytes());
}

result<void> mapped_floats::sync() {
  if (::msync(values_.data(), values_.size_bytes(), MS_SYNC) == 0) return {};
  return error{path_ + ": cannot be written: " + std::strerror(errno)};
}

result<hidden_states> hidden_states::temporary(std::int64_t floats, std::uint64_t ram,
                                               const std::filesystem::path& folder) {
  hidden_states h;
  part& p = h.parts_.emplace_back();
  if (static_cast<std::uint64_t>(floats) * sizeof(float) <= ram) {
    p.memory.resize(static_cast<std::size_t>(floats));
    p.values = p.memory;
    return h;
  }
  auto holder = unnamed_file::in(folder);
  if (!holder) return holder.error();
  p.holder = std::make_unique<unnamed_file>(std::move(*holder));
  auto file = mapped_floats::open(p.holder->path(), floats, false);
  if (!file) return file.error();
  p.file = std::make_unique<mapped_floats>(std::move(*file));
  p.values = p.file->values();
  return h;
}

result<hidden_states> hidden_states::kept(std::int64_t floats, const std::filesystem::path& folder,
                                          std::optional<int> current) {
  hidden_states h;
  h.current_ = current.value_or(0);
  for (int i = 0; i < 2; ++i) {
    auto file = mapped_floats::open(folder / ("hidden." + std::to_string(i)), floats, current.has_value());
    if (!file) return file.error();
    part& p = h.parts_.emplace_back();
    p.file = std::make_unique<mapped_floats>(std::move(*file));
    p.values = p.file->values();
  }
  return h;
}

result<void> hidden_states::advance() {
  if (parts_.size() == 1) return {};
  current_ = 1 - current_;
  return parts_[static_cast<std::size_t>(current_)].file->sync();
}

}  // namespace quantal::mla
