#include "file_plan.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <optional>
#include <system_error>

#include "quantal/atomic_file.hpp"
#include "shard_name.hpp"

namespace quantal {
namespace {

namespace fs = std::filesystem;

/// Files of a folder that a converter may read; earlier results beside them are none.
std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code failed;
  for (fs::directory_iterator it(folder, failed), end; !failed && it != end; it.increment(failed))
    if (it->path().extension() != ".gguf") files.push_back(it->path());
  return files;
}

std::optional<struct ::stat> status_of(const fs::path& path) {
  struct ::stat s {};
  if (::stat(path.c_str(), &s) != 0) return std::nullopt;
  return s;
}

/// Two descriptions of a file that holds or carries data: a terminal or /dev/null may serve several purposes.
bool same_data(const struct ::stat& a, const struct ::stat& b) {
  return detail::same_file(a, b) && (S_ISREG(a.st_mode) || S_ISFIFO(a.st_mode));
}

/// Of outputs that need not exist.
bool same_place(const output_target& a, const output_target& b) {
  if (a.exists && b.exists) return same_data(a.status, b.status);
  if (a.exists != b.exists || a.path.filename() != b.path.filename()) return false;
  const auto x = status_of(detail::folder_of(a.path)), y = status_of(detail::folder_of(b.path));
  return x && y && detail::same_file(*x, *y);
}

}  // namespace

file_plan& file_plan::input(const std::string& name, const fs::path& path) {
  if (path.empty()) return *this;
  inputs_.push_back({name, path});
  std::error_code ignored;
  if (const auto shard = parse_shard_name(path.string()))
    for (const auto& p : shard_files(shard->prefix, std::min(shard->count, 65535)))
      inputs_.push_back({name, p});
  if (fs::is_directory(path, ignored))
    for (const auto& p : files_in(path)) inputs_.push_back({name, p});
  return *this;
}

file_plan& file_plan::output(std::string name, const fs::path& path) {
  if (!path.empty()) outputs_.push_back({std::move(name), path});
  return *this;
}

result<void> file_plan::check() const {
  if (auto ok = check_streams(); !ok) return ok;
  for (std::size_t i = 0; i < outputs_.size(); ++i)
    if (auto ok = check_output(i); !ok) return ok;
  return {};
}

result<void> file_plan::check_output(std::size_t i) const {
  const auto& out = outputs_[i];
  const auto target = output_target::find(out.path);
  if (!target) return error{out.name + ": " + target.error().message};
  const auto refused = [&](const std::string& why) {
    return error{out.name + ": " + out.path.string() + ": " + why};
  };
  for (const auto& in : inputs_) {
    const auto s = status_of(in.path);
    if (target->exists && s && same_data(target->status, *s))
      return refused("is the input " + in.name + " (" + in.path.string() + "); writing over it is refused");
  }
  for (std::size_t k = 0; k < i; ++k) {
    const auto other = output_target::find(outputs_[k].path);
    if (other && same_place(*target, *other)) return refused("is also the output " + outputs_[k].name);
  }
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    struct ::stat s {};
    if (prints_ && target->exists && ::fstat(fd, &s) == 0 && same_data(target->status, s))
      return refused(std::string("is standard ") + (fd == STDOUT_FILENO ? "output" : "error") +
                     ", which receives the text that the program prints");
  }
  if (auto ok = atomic_file::check(out.path); !ok) return error{out.name + ": " + ok.error().message};
  return {};
}

result<void> file_plan::check_streams() const {
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    struct ::stat stream {};
    if (::fstat(fd, &stream) != 0 || !S_ISREG(stream.st_mode)) continue;
    for (const auto& in : inputs_) {
      const auto s = status_of(in.path);
      if (s && same_data(stream, *s))
        return error{in.name + ": " + in.path.string() + ": is also what standard " +
                     (fd == STDOUT_FILENO ? "output" : "error") + " is redirected to"};
    }
  }
  return {};
}

}  // namespace quantal
