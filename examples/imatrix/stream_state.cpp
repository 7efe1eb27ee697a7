#include "stream_state.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <utility>

#include "file.hpp"
#include "quantal/imatrix/io.hpp"
#include "text.hpp"

namespace quantal::mla {

std::string digest(std::span<const std::byte> bytes) {
  std::uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
  for (const auto b : bytes) h = (h ^ std::to_integer<std::uint64_t>(b)) * 0x100000001b3u;
  return text::format("%016llx", static_cast<unsigned long long>(h));
}

result<stream_state> stream_state::open(const std::filesystem::path& folder, json identity) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) return error{folder.string() + ": cannot be created: " + failed.message()};
  const int lock = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock < 0) return error{folder.string() + ": cannot open: " + std::strerror(errno)};
  stream_state s(folder, std::move(identity), lock);
  if (::flock(lock, LOCK_EX | LOCK_NB) != 0) return error{folder.string() + ": another run uses it"};
  if (auto r = s.read(); !r) return r.error();
  return s;
}

stream_state::stream_state(stream_state&& o) noexcept
    : folder_(std::move(o.folder_)),
      identity_(std::move(o.identity_)),
      lock_(std::exchange(o.lock_, -1)),
      blocks_(o.blocks_),
      hidden_(o.hidden_) {}

stream_state::~stream_state() {
  if (lock_ >= 0) ::close(lock_);
}

std::filesystem::path stream_state::statistics_of(std::int64_t blocks) const {
  return folder_ / ("statistics-" + std::to_string(blocks) + ".gguf");
}

std::filesystem::path stream_state::moments(std::int64_t block) const {
  return folder_ / ("moments-" + std::to_string(block) + ".gguf");
}

result<void> stream_state::read() {
  const auto path = folder_ / "state.json";
  if (!std::filesystem::exists(path)) return {};
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
                 (before.contains(name) ? before[name].dump() : "none") + ", now " + value.dump() +
                 "); finish that run with its options, or remove the folder"};
  }
  const auto blocks = state->value("blocks", json()), hidden = state->value("hidden", json());
  if (!blocks.is_number_integer() || !hidden.is_number_integer()) return damaged;
  blocks_ = blocks.get<std::int64_t>(), hidden_ = hidden.get<int>();
  return blocks_ > 0 && (*hidden_ == 0 || *hidden_ == 1) ? result<void>{} : damaged;
}

result<imatrix::store> stream_state::statistics() const { return imatrix::load(statistics_of(blocks_)); }

result<void> stream_state::keep(std::int64_t blocks, int hidden, const imatrix::store& statistics) {
  if (auto r = imatrix::save_gguf(statistics, statistics_of(blocks)); !r) return r;
  const json state = {{"identity", identity_}, {"blocks", blocks}, {"hidden", hidden}};
  if (auto r = file::write(folder_ / "state.json", state.dump(2) + "\n"); !r) return r;
  std::error_code ignored;
  std::filesystem::remove(statistics_of(blocks_), ignored);
  blocks_ = blocks, hidden_ = hidden;
  return {};
}

void stream_state::remove() noexcept {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

}  // namespace quantal::mla
