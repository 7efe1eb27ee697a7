#include "pass_report.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "text.hpp"

namespace quantal::mla {
namespace {

using clock = std::chrono::steady_clock;

double seconds_since(clock::time_point start) {
  return std::chrono::duration<double>(clock::now() - start).count();
}

double rate(double work, double seconds) { return seconds > 0 ? work / seconds : 0; }

/// Reads up to 512 MiB from the middle of a file without the system's cache.
double disk_rate([[maybe_unused]] const std::string& path) {
#if defined(O_DIRECT)
  constexpr std::size_t piece = std::size_t{8} << 20, most = std::size_t{512} << 20;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (fd < 0) return 0;
  const auto size = static_cast<std::size_t>(std::max<off_t>(0, ::lseek(fd, 0, SEEK_END)));
  void* const memory = std::aligned_alloc(piece, piece);
  const auto start = clock::now();
  std::size_t done = 0;
  for (std::size_t at = size / 2 / piece * piece; memory && done < most; at += piece) {
    const ssize_t n = ::pread(fd, memory, piece, static_cast<off_t>(at));
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  const double seconds = seconds_since(start);
  std::free(memory);
  ::close(fd);
  return rate(static_cast<double>(done), seconds);
#else
  return 0;
#endif
}

/// Best of a few products that fit into the caches.
double product_rate(const runtime::dispatcher& arch, executor_ref executor) {
  constexpr std::int64_t rows = 512, cols = 256, n = 512;
  const std::vector<float> w(rows * cols, 0.5f), x(n * cols, 1.0f);
  std::vector<float> out(n * rows);
  const mul_mat_args a{reinterpret_cast<const std::byte*>(w.data()),
                       rows,
                       cols,
                       4 * cols,
                       x.data(),
                       n,
                       cols,
                       out.data(),
                       rows};
  const auto* ops = arch.find(f32::gguf_id);
  std::vector<std::byte> workspace(ops->mul_mat_workspace(a, activation::exact));
  double best = 0;
  for (int i = 0; i < 20; ++i) {
    const auto start = clock::now();
    if (ops->mul_mat(a, activation::exact, executor, workspace) != status::ok) return 0;
    best = std::max(best, rate(2.0 * rows * cols * n, seconds_since(start)));
  }
  return best;
}

json with_limit(double seconds, const char* work_name, double work, const char* rate_name, double limit) {
  const double reached = rate(work, seconds);
  return {{"seconds", seconds},
          {work_name, work},
          {rate_name, reached},
          {"limit", limit > 0 ? json(limit) : json(nullptr)},
          {"share", limit > 0 ? json(reached / limit) : json(nullptr)}};
}

}  // namespace

machine_limits measure_limits(const model& m, const runtime::dispatcher& arch, executor_ref executor) {
  return {disk_rate(m.file->path()), product_rate(arch, executor)};
}

json report_json(const pass_report& r, const machine_limits& limits, bool streamed) {
  json phases;
  phases[streamed ? "blocks" : "blocks and output"] = with_limit(
      r.compute, "operations", r.operations, "operations_per_second", limits.operations_per_second);
  if (streamed) {
    phases["reading"] = with_limit(r.reading, "bytes", static_cast<double>(r.bytes), "bytes_per_second",
                                   limits.bytes_per_second);
    phases["waiting"] = {{"seconds", r.waiting}};
    phases["embedding"] = {{"seconds", r.embedding}};
    phases["keeping"] = {{"seconds", r.keeping}};
    phases["output"] = {{"seconds", r.output}};
  }
  return {{"streamed", streamed},
          {"tokens", r.tokens},
          {"blocks", r.blocks},
          {"seconds", r.seconds},
          {"tokens_per_second", rate(static_cast<double>(r.tokens), r.seconds)},
          {"phases", std::move(phases)}};
}

std::string summary(const pass_report& r) {
  std::string out = std::to_string(r.blocks) + " blocks in " + text::human_time(r.seconds) + ": " +
                    text::format("%.1f tokens/s", rate(static_cast<double>(r.tokens), r.seconds));
  if (r.bytes > 0)
    out += ", weights at " +
           text::human_size(static_cast<std::uint64_t>(rate(static_cast<double>(r.bytes), r.reading))) +
           "/s, " + text::human_time(r.waiting) + " waiting for them";
  return out;
}

}  // namespace quantal::mla
