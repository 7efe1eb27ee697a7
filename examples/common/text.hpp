// Sizes, durations and names as people read them, and the default number of threads.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>

namespace quantal::text {

/// printf into a string, for numbers only: the format comes from the caller's source, never from data.
template <class... Args>
std::string format(const char* pattern, Args... args) {
  const int n = std::snprintf(nullptr, 0, pattern, args...);
  std::string out(static_cast<std::size_t>(n < 0 ? 0 : n) + 1, '\0');
  std::snprintf(out.data(), out.size(), pattern, args...);
  out.pop_back();
  return out;
}

/// "1.50 MiB".
inline std::string human_size(std::uint64_t bytes) {
  constexpr std::array<const char*, 5> units{"B", "KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return std::to_string(bytes) + " B";
  double v = static_cast<double>(bytes);
  std::size_t u = 0;
  for (; v >= 1024 && u + 1 < units.size(); ++u) v /= 1024;
  return format("%.2f %s", v, units[u]);
}

/// "2.345 s", "3m05s", "1h02m".
inline std::string human_time(double seconds) {
  if (seconds < 60) return format("%.3f s", seconds);
  const auto s = std::llround(seconds);
  if (s < 3600) return format("%lldm%02llds", s / 60, s % 60);
  return format("%lldh%02lldm", s / 3600, s % 3600 / 60);
}

/// ASCII lower case.
inline std::string lower(std::string_view s) {
  std::string out(s);
  for (auto& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

inline std::string_view trim(std::string_view s) {
  constexpr std::string_view blank = " \t\r\n";
  const auto first = s.find_first_not_of(blank);
  if (first == std::string_view::npos) return {};
  return s.substr(first, s.find_last_not_of(blank) - first + 1);
}

/// Names from files reach terminals: control characters become '?'.
inline std::string printable(std::string_view s) {
  std::string out(s);
  for (auto& c : out)
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
  return out;
}

/// A name from a file as messages show it: printable, not longer than a line or two, in quotes.
inline std::string in_quotes(std::string_view name) { return "'" + printable(name.substr(0, 200)) + "'"; }

/// 0 asks for every hardware thread.
inline int thread_count(std::int64_t asked = 0) {
  if (asked > 0) return static_cast<int>(asked);
  const unsigned n = std::thread::hardware_concurrency();
  return n == 0 ? 1 : static_cast<int>(n);
}

}  // namespace quantal::text
