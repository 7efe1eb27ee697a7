// Brings bytes of a mapped file into memory before they are asked for, and lets them go afterwards.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

namespace quantal::mla {

using byte_ranges = std::vector<std::span<const std::byte>>;

/// Lets pages of a mapped file go; `from_cache`: from the system's cache too.
void release_pages(const byte_ranges& ranges, bool from_cache) noexcept;

/// A thread that touches pages in order. Not thread-safe itself.
class read_ahead {
 public:
  ~read_ahead() { stop(); }

  /// Begins, once the ranges before are in. What lies beyond `most` bytes is left to whoever needs it.
  void start(byte_ranges ranges, std::uint64_t most);
  /// Until all of it is in.
  void wait();

  /// Of everything that was read.
  std::uint64_t bytes() const noexcept { return bytes_; }
  double seconds() const noexcept { return seconds_; }

 private:
  void read(const byte_ranges& ranges, std::uint64_t most);
  void stop();

  std::thread thread_;
  std::atomic<bool> stopping_ = false;
  std::atomic<std::uint64_t> bytes_ = 0;
  double seconds_ = 0;
};

}  // namespace quantal::mla
