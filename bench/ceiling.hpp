// What the machine can do at best, measured in the process that runs the benchmarks.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
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

/// Best of several runs of at least ~5 ms, as a rate: work per second.
template <class Fn>
double best_rate(double work, Fn&& f) {
  double best = 0;
  for (int i = 0; i < 7; ++i) best = std::max(best, work / seconds(f));
  return best;
}

struct ceiling {
  double read_bandwidth;  ///< bytes per second of one thread streaming through memory
  double fma, dot;        ///< operations per second of one thread: float32 multiply-adds, int8 dot products
};

/// Measured once per arch and process.
const ceiling& ceiling_of(std::string_view arch);

}  // namespace quantal::bench
