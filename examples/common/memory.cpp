#include "memory.hpp"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

namespace quantal {
namespace {

/// The first number in a file of the kernel; nothing if there is none ("max").
std::optional<std::uint64_t> number_in(const std::string& path) {
  std::ifstream in(path);
  std::uint64_t n = 0;
  if (in >> n) return n;
  return {};
}

std::optional<std::uint64_t> available_in_system() {
  std::ifstream in("/proc/meminfo");
  for (std::string key, line; in >> key && std::getline(in, line);)
    if (key == "MemAvailable:") return std::stoull(line) * 1024;
  return {};
}

/// What a folder of the control groups leaves. Its page cache makes room, so only the limit counts.
void apply_limit(const std::string& folder, const char* file, std::uint64_t& least) {
  if (const auto limit = number_in(folder + "/" + file)) least = std::min(least, *limit);
}

/// The limits of the process's group and of those around it, in both versions of the interface.
void apply_limits(std::uint64_t& least) {
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    std::istringstream parts(line);
    std::string number, controllers, group;
    std::getline(parts, number, ':'), std::getline(parts, controllers, ':'), std::getline(parts, group);
    const bool second = controllers.empty();
    if (!second && controllers.find("memory") == std::string::npos) continue;
    const std::string root = second ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    // Up to the root, which in a container is the container's own group.
    for (;;) {
      apply_limit(root + group, second ? "memory.max" : "memory.limit_in_bytes", least);
      const auto last = group.rfind('/');
      if (last == std::string::npos) break;
      group.erase(last);
    }
  }
}

}  // namespace

std::uint64_t available_memory() {
  auto least = available_in_system();
  if (!least) return 0;
  apply_limits(*least);
  return *least;
}

std::uint64_t memory_for(std::int64_t ram) {
  return ram > 0 ? static_cast<std::uint64_t>(ram) << 30 : available_memory();
}

}  // namespace quantal
