// dequantize/FORMAT/ARCH and quantize/FORMAT[/importance]: rows of 4096 weights, cold weights for dequantize.
#include "bench.hpp"

#if __has_include("quantal/quantize/quantize.hpp")
#include "quantal/quantize/quantize.hpp"
#define QUANTAL_BENCH_QUANTIZE 1
#endif

namespace quantal::bench {
namespace {

constexpr std::int64_t cols = 4096;

void dequantize(benchmark::State& state, std::string_view arch, const runtime::format_ops* ops, const format_info* f) {
  const ceiling& top = ceiling_of(arch);
  constexpr std::int64_t rows = 256;
  rotating_weights weights(*f, rows, cols, true);
  std::vector<float> out(static_cast<std::size_t>(cols));
  const double elapsed = seconds([&] {
    for (auto _ : state) {
      const std::byte* w = weights.next();
      for (std::int64_t r = 0; r < rows; ++r) {
        ops->dequantize_row(w + r * f->row_bytes(cols), out.data(), cols);
        benchmark::ClobberMemory();
      }
    }
  });
  const double weights_per_run = static_cast<double>(rows * cols);
  set_counters(state, elapsed, weights.bytes(), weights_per_run, top.read_bandwidth, top.fma);
}

#ifdef QUANTAL_BENCH_QUANTIZE
void quantize(benchmark::State& state, const format_info* f, bool weighted) {
  test::rng g(3);
  const auto x = test::gaussian(g, static_cast<std::size_t>(cols));
  auto importance = test::gaussian(g, static_cast<std::size_t>(cols));
  for (float& w : importance) w = w * w + 0.01f;
  std::vector<std::byte> out(static_cast<std::size_t>(f->row_bytes(cols)));
  for (auto _ : state)
    if (quantize_row(f->gguf_id, x.data(), weighted ? importance.data() : nullptr, out.data(), cols) != status::ok)
      state.SkipWithError("refused");
  state.counters["weights/s"] = benchmark::Counter(static_cast<double>(cols * state.iterations()), benchmark::Counter::kIsRate);
}
#endif

}  // namespace

void register_rows() {
  for_each_case([](std::string_view arch, const runtime::format_ops* ops, const format_info* f, activation policy) {
    if (policy != activation::exact) return;
    const std::string name = "dequantize/" + std::string(f->name) + "/" + std::string(arch);
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& s) { dequantize(s, arch, ops, f); })
        ->Unit(benchmark::kMicrosecond);
  });
#ifdef QUANTAL_BENCH_QUANTIZE
  for (const auto& f : format_table)
    for (const bool weighted : {false, true}) {
      const std::string name = "quantize/" + std::string(f.name) + (weighted ? "/importance" : "");
      benchmark::RegisterBenchmark(name.c_str(), [&f, weighted](benchmark::State& s) { quantize(s, &f, weighted); })
          ->Unit(benchmark::kMicrosecond);
    }
#endif
}

}  // namespace quantal::bench
