// What the machine can do at best, measured in the process that runs the benchmarks.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <string_view>
#include <vector>

namespace quantal::bench {

/// Loops that keep an arch's arithmetic units busy, compiled with that arch's flags.
struct peak_loops {
  void (*fma)(std::int64_t rounds, float* sink) noexcept;
  void (*dot)(std::int64_t rounds, std::int32_t* sink) noexcept;
  double fma_ops, dot_ops;  ///< operations per round; a multiply-add is two
};

/// The loops of a compiled arch.
peak_loops peaks_of(std::string_view arch);

template <class Fn>
double seconds(Fn&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The same in processor time: what one thread of work takes on a machine that others use too.
template <class Fn>
double cpu_seconds(Fn&& f) {
  const std::clock_t start = std::clock();
  f();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

/// Best of several runs of at least ~5 ms, as a rate: work per second.
template <class Fn>
double best_rate(double work, Fn&& f) {
  double best = 0;
  for (int i = 0; i < 5; ++i) best = std::max(best, work / cpu_seconds(f));
  return best;
}

struct ceiling {
  double read_bandwidth;  ///< bytes per second of one thread streaming through memory
  double fma, dot;        ///< operations per second of one thread: float32 multiply-adds, int8 dot products
};

/// The best of what was seen so far; measures again, so that neighbours who disturbed the first measurement do not make
/// all later shares too good.
const ceiling& ceiling_of(std::string_view arch);

}  // namespace quantal::bench
