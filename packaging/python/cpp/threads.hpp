// Threads of the calls from Python: one pool per process, and loops over rows that Ctrl-C ends.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "quantal/executor.hpp"
#include "quantal/status.hpp"

namespace quantal::python {

namespace nb = nanobind;

/// The workers of one call: its own thread, or a pool that stays for later calls. Made with the GIL held.
class workers {
 public:
  /// `wanted`: a number of threads; without one, all cores for work of at least `worth_it` values.
  workers(std::optional<int> wanted, std::int64_t values, std::int64_t worth_it);

  int count() const noexcept { return pool_ ? pool_->workers() : 1; }
  executor_ref executor() noexcept { return pool_ ? executor_ref(*pool_) : executor_ref(serial_); }

 private:
  std::shared_ptr<thread_pool> pool_;
  serial_executor serial_;
};

/// The first row that failed, and how.
class row_failure {
 public:
  void report(std::int64_t row, status s) {
    const std::lock_guard lock(mutex_);
    if (row_ < 0 || row < row_) row_ = row, status_ = s;
  }
  std::int64_t row() const noexcept { return row_; }
  status what() const noexcept { return status_; }

 private:
  std::mutex mutex_;
  std::int64_t row_ = -1;
  status status_ = status::ok;
};

/// How many values a piece has, and how many are worked on before anybody looks at the clock: a wake-up of the threads
/// and a task cost as much as decoding some thousand values.
struct pace {
  std::int64_t piece, first;
};
inline constexpr pace searching{4096, 0}, decoding{16384, 1 << 21};

/// Calls work(row, worker) -> status for every row, without the GIL, and looks for signals about ten times a second:
/// a KeyboardInterrupt is thrown between rows. `values`: per row. After a failure no further pieces begin.
template <class Work>
void for_rows(std::int64_t rows, std::int64_t values, pace speed, workers& threads, row_failure& failure,
              Work work) {
  using clock = std::chrono::steady_clock;
  constexpr auto brief = std::chrono::milliseconds(20), long_enough = std::chrono::milliseconds(100);
  values = std::max<std::int64_t>(values, 1);
  const std::int64_t grain = std::max<std::int64_t>(1, speed.piece / values);
  const nb::gil_scoped_release released;
  auto checked = clock::now();
  std::int64_t step = std::max(grain * threads.count(), speed.first / values);
  for (std::int64_t at = 0; at < rows && failure.row() < 0;) {
    const std::int64_t end = std::min(rows, at + step);
    const int tasks = static_cast<int>((end - at + grain - 1) / grain);
    const auto began = clock::now();
    threads.executor().for_each(tasks, [&](int task, int worker) {
      const std::int64_t first = at + task * grain;
      for (std::int64_t r = first; r < std::min(end, first + grain); ++r)
        if (const status s = work(r, worker); s != status::ok) return failure.report(r, s);
    });
    const auto now = clock::now();
    if (now - began < brief && step < grain * (1 << 20)) step *= now - began < brief / 8 ? 8 : 2;
    if (now - began > long_enough) step = std::max(grain * threads.count(), step / 2);
    at = end;
    if (now - checked < long_enough) continue;
    checked = now;
    const nb::gil_scoped_acquire held;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

}  // namespace quantal::python
