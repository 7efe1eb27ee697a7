// A progress bar with the remaining time, drawn only where somebody can see it.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

#include "text.hpp"

namespace quantal {

/// One line on stderr, redrawn at most ten times a second; silent unless stderr is a terminal. Call from one
/// thread.
class progress {
 public:
  progress(std::string label, std::int64_t total, bool enabled = ::isatty(STDERR_FILENO) != 0)
      : label_(std::move(label)), total_(std::max<std::int64_t>(total, 1)), enabled_(enabled) {}
  progress(const progress&) = delete;
  progress& operator=(const progress&) = delete;
  ~progress() { clear(); }

  /// `done` of total; `note` follows the bar.
  void update(std::int64_t done, const std::string& note = {}) {
    if (!enabled_) return;
    const auto now = clock::now();
    if (drawn_ && now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now;
    drawn_ = true;
    std::fprintf(stderr, "\r\033[K%s", line(done, seconds_since(start_, now), note).c_str());
    std::fflush(stderr);
  }

  /// As update(), for work of hours: where no bar is drawn, a line every minute says in the log how far it is.
  void update_logged(std::int64_t done, const std::string& note) {
    const auto now = clock::now();
    if (enabled_ || now - last_ < std::chrono::minutes(1)) return update(done, note);
    last_ = now;
    std::fprintf(stderr, "%s\n", line(done, seconds_since(start_, now), note).c_str());
  }

  /// Removes the line, before other output or at the end.
  void clear() {
    if (drawn_) std::fputs("\r\033[K", stderr), std::fflush(stderr);
    drawn_ = false;
  }

  double elapsed() const { return seconds_since(start_, clock::now()); }

  /// The text of the line: "label [#####.....]  50.0%  eta 3m05s  note".
  std::string line(std::int64_t done, double elapsed_s, const std::string& note) const {
    constexpr int width = 24;
    const double share = std::clamp(static_cast<double>(done) / static_cast<double>(total_), 0.0, 1.0);
    const int full = static_cast<int>(share * width);
    std::string out = label_ + " [" + std::string(static_cast<std::size_t>(full), '#') +
                      std::string(static_cast<std::size_t>(width - full), '.') + "]" +
                      text::format(" %5.1f%%", share * 100);
    if (share > 0 && share < 1) out += "  eta " + text::human_time(elapsed_s * (1 - share) / share);
    return note.empty() ? out : out + "  " + note;
  }

 private:
  using clock = std::chrono::steady_clock;
  static double seconds_since(clock::time_point from, clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
  }
  std::string label_;
  std::int64_t total_;
  bool enabled_, drawn_ = false;
  clock::time_point start_ = clock::now(), last_ = start_;
};

}  // namespace quantal
