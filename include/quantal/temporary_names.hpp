// What a signal handler must know of outputs that are being written: which temporary names to remove, and whether
// files are changing their names just now. The library installs no handler; a program that wants its temporary
// files gone when a signal ends it calls leave_no_temporary_files() from its own.
#pragma once

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstddef>

namespace quantal {

namespace detail {

// A handler reaches nothing but what is global. Names belong to atomic_file objects and outlive their entries.
inline std::atomic<const char*> temporary_names[1024];
inline std::atomic<int> renamings_under_way{0};
inline std::atomic<int> postponed_signal{0};

/// Without a free entry the file is written all the same; only a handler would not know of it.
inline void remember_temporary(const char* name) noexcept {
  for (auto& entry : temporary_names) {
    const char* none = nullptr;
    if (entry.compare_exchange_strong(none, name)) return;
  }
}
inline void forget_temporary(const char* name) noexcept {
  for (auto& entry : temporary_names) {
    const char* mine = name;
    if (entry.compare_exchange_strong(mine, nullptr)) return;
  }
}

/// While one lives, a handler postpones its signal: files are changing their names.
class renaming {
 public:
  renaming() noexcept { renamings_under_way.fetch_add(1); }
  renaming(const renaming&) = delete;
  renaming& operator=(const renaming&) = delete;
  ~renaming() {
    if (renamings_under_way.fetch_sub(1) != 1) return;
    if (const int signal = postponed_signal.exchange(0)) ::raise(signal);
  }
};

}  // namespace detail

/// For signal handlers: removes the temporary files of unfinished outputs; then the handler ends the process. False
/// while files change their names: the handler returns, and the signal is raised again when they have.
inline bool leave_no_temporary_files(int signal) noexcept {
  if (detail::renamings_under_way.load() > 0) {
    detail::postponed_signal.store(signal);
    return false;
  }
  for (auto& entry : detail::temporary_names)
    if (const char* name = entry.load()) ::unlink(name);
  return true;
}

}  // namespace quantal
