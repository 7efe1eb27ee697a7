#include <algorithm>
#include <cstdio>
#include <map>

#include "bench.hpp"

namespace quantal::bench {
namespace {

double measure_read_bandwidth() {
  static const std::vector<std::uint64_t> data(rotating_weights::cold_bytes / 8, 1);
  std::uint64_t sum = 0;
  return best_rate(static_cast<double>(data.size() * 8), [&] {
    std::uint64_t s[8] = {};
    for (std::size_t i = 0; i < data.size(); i += 8)
      for (int j = 0; j < 8; ++j) s[j] += data[i + static_cast<std::size_t>(j)];
    for (const auto v : s) sum += v;
    benchmark::DoNotOptimize(sum);
  });
}

/// Operations per second of a loop, over runs of at least 5 ms.
template <class T>
double measure_peak(void (*loop)(std::int64_t, T*) noexcept, double ops_per_round) {
  T sink{};
  std::int64_t rounds = 1000;
  while (cpu_seconds([&] { loop(rounds, &sink); }) < 0.005) rounds *= 2;
  const double rate = best_rate(ops_per_round * static_cast<double>(rounds), [&] { loop(rounds, &sink); });
  benchmark::DoNotOptimize(sink);
  return rate;
}

/// What the build is and the ceilings of every arch that this machine runs become part of the output, before anything
/// is measured against them; scripts/bench_report draws the ceilings and compares only runs of like builds.
void add_context() {
  benchmark::AddCustomContext("compiler", QUANTAL_BENCH_COMPILER);
  benchmark::AddCustomContext("build_type", QUANTAL_BENCH_BUILD_TYPE);
  const auto add = [](std::string_view key, double rate) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g", rate);
    benchmark::AddCustomContext("ceiling:" + std::string(key), text);
  };
  for (const auto arch : runtime::dispatcher::compiled()) {
    if (!runtime::dispatcher::named(arch)) continue;
    const ceiling& top = ceiling_of(arch);
    add(std::string(arch) + "/exact_op/s", top.fma);
    add(std::string(arch) + "/q8_op/s", top.dot);
    if (arch == runtime::dispatcher::compiled().back()) add("read_bytes/s", top.read_bandwidth);
  }
}

}  // namespace

const ceiling& ceiling_of(std::string_view arch) {
  static double read_bandwidth = 0;
  static std::map<std::string_view, ceiling> known;
  const peak_loops loops = peaks_of(arch);
  ceiling& top = known[arch];
  read_bandwidth = std::max(read_bandwidth, measure_read_bandwidth());
  top.read_bandwidth = read_bandwidth;
  top.fma = std::max(top.fma, measure_peak(loops.fma, loops.fma_ops));
  top.dot = std::max(top.dot, measure_peak(loops.dot, loops.dot_ops));
  return top;
}

}  // namespace quantal::bench

int main(int argc, char** argv) {
  const bool list = std::any_of(argv, argv + argc, [](std::string_view a) {
    return a.starts_with("--benchmark_list_tests") && !a.ends_with("=false");
  });
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  quantal::bench::register_mul_mat();
  quantal::bench::register_mul_mat_id();
  quantal::bench::register_output_aware();
  quantal::bench::register_packed();
  quantal::bench::register_rows();
  if (!list) quantal::bench::add_context();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
