#include <cstdio>
#include <map>

#include "bench.hpp"

namespace quantal::bench {
namespace {

double measure_read_bandwidth() {
  std::vector<std::uint64_t> data(rotating_weights::cold_bytes / 8, 1);
  std::uint64_t sum = 0;
  const double rate = best_rate(static_cast<double>(data.size() * 8), [&] {
    std::uint64_t s[8] = {};
    for (std::size_t i = 0; i < data.size(); i += 8)
      for (int j = 0; j < 8; ++j) s[j] += data[i + static_cast<std::size_t>(j)];
    for (const auto v : s) sum += v;
    benchmark::DoNotOptimize(sum);
  });
  return rate;
}

}  // namespace

const ceiling& ceiling_of(std::string_view arch) {
  static const double bandwidth = measure_read_bandwidth();
  static std::map<std::string_view, ceiling> known;
  if (const auto it = known.find(arch); it != known.end()) return it->second;
  const peak_loops loops = peaks_of(arch);
  constexpr std::int64_t rounds = 2'000'000;
  float f = 0;
  std::int32_t i = 0;
  const double fma = best_rate(loops.fma_ops * rounds, [&] { loops.fma(rounds, &f); });
  const double dot = best_rate(loops.dot_ops * rounds, [&] { loops.dot(rounds, &i); });
  benchmark::DoNotOptimize(f);
  benchmark::DoNotOptimize(i);
  std::fprintf(stderr, "ceilings of %.*s, one thread: read %.1f GB/s, fp32 FMA %.0f GFLOP/s, int8 dot %.0f GOP/s\n",
               static_cast<int>(arch.size()), arch.data(), bandwidth / 1e9, fma / 1e9, dot / 1e9);
  return known.emplace(arch, ceiling{bandwidth, fma, dot}).first->second;
}

}  // namespace quantal::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  quantal::bench::register_mul_mat();
  quantal::bench::register_mul_mat_id();
  quantal::bench::register_rows();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
