#include "stream_state.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "file.hpp"
#include "quantal/imatrix/io.hpp"
#include "text.hpp"

namespace quantal::mla {

std::string digest(std::span<const std::byte> bytes) {
  std::uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
  for (const auto b : bytes) h = (h ^ std::to_integer<std::uint64_t>(b)) * 0x100000001b3u;
  return text::format("%016llx", static_cast<unsigned long long>(h));
}

namespace {

/// Is a file of the folder part of a state? Nothing else in it is touched.
bool is_own(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  constexpr std::string_view own[] = {"hidden.", "moments-", "statistics-", "state.json", "lock"};
  return std::ranges::any_of(own, [&](std::string_view start) { return name.starts_with(start); });
}

/// The files of a folder.
std::vector<std::filesystem::path> files_of(const std::filesystem::path& folder, std::error_code& failed) {
  std::vector<std::filesystem::path> files;
  for (std::filesystem::directory_iterator i(folder, failed), end; !failed && i != end; i.increment(failed))
    files.push_back(i->path());
  return files;
}

/// A lock that other machines see too: of a file, since file systems of a network have none for folders.
result<int> lock_file(const std::filesystem::path& folder) {
  const auto path = folder / "lock";
  const int lock = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock < 0) return error{path.string() + ": cannot open: " + std::strerror(errno)};
  if (::flock(lock, LOCK_EX | LOCK_NB) == 0) return lock;
  const int cause = errno;
  ::close(lock);
  if (cause == EWOULDBLOCK || cause == EACCES) return error{folder.string() + ": another run uses it"};
  return error{path.string() + ": cannot be locked: " + std::strerror(cause)};
}

/// A file that took another's name in the folder stays there when the power fails.
result<void> sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool done = fd >= 0 && ::fsync(fd) == 0;
  const int cause = errno;
  if (fd >= 0) ::close(fd);
  return done ? result<void>{} : error{folder.string() + ": cannot be synced: " + std::strerror(cause)};
}

}  // namespace

result<stream_state> stream_state::open(const std::filesystem::path& folder, json identity) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) return error{folder.string() + ": cannot be created: " + failed.message()};
  for (const auto& file : files_of(folder, failed))
    if (!is_own(file)) return error{file.string() + ": is no part of a state; move it away"};
  if (failed) return error{folder.string() + ": cannot be read: " + failed.message()};
  const auto lock = lock_file(folder);
  if (!lock) return lock.error();
  stream_state s(folder, std::move(identity), *lock);
  if (auto r = s.read(); !r) return r.error();
  return s;
}

stream_state::stream_state(stream_state&& o) noexcept
    : folder_(std::move(o.folder_)),
      identity_(std::move(o.identity_)),
      lock_(std::exchange(o.lock_, -1)),
      fresh_(o.fresh_),
      blocks_(o.blocks_),
      hidden_(o.hidden_) {}

stream_state::~stream_state() {
  if (lock_ < 0) return;
  if (fresh_) remove();  // nothing to go on from
  ::close(lock_);
}

std::filesystem::path stream_state::statistics_of(std::int64_t blocks) const {
  return folder_ / ("statistics-" + std::to_string(blocks) + ".gguf");
}

std::filesystem::path stream_state::moments(std::int64_t block) const {
  return folder_ / ("moments-" + std::to_string(block) + ".gguf");
}

namespace {

/// A value of an identity; names may hold any bytes.
std::string shown(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace

result<void> stream_state::read() {
  const auto path = folder_ / "state.json";
  fresh_ = !std::filesystem::exists(path);
  if (fresh_) return {};
  const auto text = file::read_text(path);
  if (!text) return text.error();
  const auto state = parse_json(*text, path.string());
  if (!state) return state.error();
  const auto damaged = error{path.string() + ": is damaged; remove the folder to begin anew"};
  if (!state->is_object() || !state->contains("identity") || !(*state)["identity"].is_object())
    return damaged;
  const auto& before = (*state)["identity"];
  for (const auto& [name, value] : identity_.items()) {
    if (before.contains(name) && before[name] == value) continue;
    return error{folder_.string() + ": holds the state of a run with another " + name + " (" +
                 (before.contains(name) ? shown(before[name]) : "none") + ", now " + shown(value) +
                 "); finish that run with its options, or remove the folder"};
  }
  const auto blocks = state->value("blocks", json()), hidden = state->value("hidden", json());
  if (!blocks.is_number_integer() || !hidden.is_number_integer()) return damaged;
  blocks_ = blocks.get<std::int64_t>();
  const auto which = hidden.get<std::int64_t>();
  hidden_ = static_cast<int>(which);
  return blocks_ > 0 && (which == 0 || which == 1) ? result<void>{} : damaged;
}

result<imatrix::store> stream_state::statistics() const { return imatrix::load(statistics_of(blocks_)); }

result<void> stream_state::keep(std::int64_t blocks, int hidden, const imatrix::store& statistics) {
  if (auto r = imatrix::save_gguf(statistics, statistics_of(blocks)); !r) return r;
  const json state = {{"identity", identity_}, {"blocks", blocks}, {"hidden", hidden}};
  if (auto r = file::write(folder_ / "state.json", state.dump(2) + "\n"); !r) return r;
  // The next block overwrites the hidden states that the state before this one names.
  if (auto r = sync_folder(folder_); !r) return r;
  fresh_ = false;
  std::error_code ignored;
  std::filesystem::remove(statistics_of(blocks_), ignored);
  blocks_ = blocks, hidden_ = hidden;
  return {};
}

void stream_state::remove() noexcept {
  std::error_code ignored;
  for (const auto& file : files_of(folder_, ignored))
    if (is_own(file)) std::filesystem::remove(file, ignored);
  std::filesystem::remove(folder_, ignored);  // stays where somebody put something into it
  fresh_ = false;
}

}  // namespace quantal::mla
