#include "read_ahead.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

namespace quantal::mla {
namespace {

/// Asked for at a time: enough that the disk is never idle.
constexpr std::size_t bytes_at_once = std::size_t{8} << 20;

std::size_t page_size() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

/// The whole pages around (or, with `inside`, within) a range, as madvise wants them.
void advise(std::span<const std::byte> range, int advice, bool inside) noexcept {
  const auto page = static_cast<std::uintptr_t>(page_size());
  auto first = reinterpret_cast<std::uintptr_t>(range.data()), last = first + range.size();
  first = (inside ? first + page - 1 : first) / page * page;
  last = (inside ? last : last + page - 1) / page * page;
  if (first < last) (void)::madvise(reinterpret_cast<void*>(first), last - first, advice);
}

void touch(std::span<const std::byte> range) noexcept {
  const std::size_t page = page_size();
  for (std::size_t at = 0; at < range.size(); at += page)
    (void)*static_cast<const volatile std::byte*>(range.data() + at);
}

}  // namespace

void release_pages(const byte_ranges& ranges, [[maybe_unused]] bool from_cache) noexcept {
  for (const auto& r : ranges) {
#if defined(MADV_PAGEOUT)
    if (from_cache) advise(r, MADV_PAGEOUT, true);
#endif
    advise(r, MADV_DONTNEED, true);
  }
}

void read_ahead::start(byte_ranges ranges, std::uint64_t most) {
  wait();
  thread_ = std::thread([this, r = std::move(ranges), most] { read(r, most); });
}

void read_ahead::wait() {
  if (thread_.joinable()) thread_.join();
}

void read_ahead::stop() {
  stopping_ = true;
  wait();
}

void read_ahead::read(const byte_ranges& ranges, std::uint64_t most) {
  const auto begin = std::chrono::steady_clock::now();
  for (auto r : ranges) {
    r = r.first(static_cast<std::size_t>(std::min<std::uint64_t>(r.size(), most)));
    most -= r.size();
    advise(r.first(std::min(bytes_at_once, r.size())), MADV_WILLNEED, false);
    for (std::size_t at = 0; at < r.size() && !stopping_; at += bytes_at_once) {
      const auto now = r.subspan(at), ahead = now.subspan(std::min(bytes_at_once, now.size()));
      if (!ahead.empty()) advise(ahead.first(std::min(bytes_at_once, ahead.size())), MADV_WILLNEED, false);
      touch(now.first(std::min(bytes_at_once, now.size())));
    }
    bytes_ += r.size();
  }
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace quantal::mla
