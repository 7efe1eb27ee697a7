// dequantize/FORMAT/ARCH and quantize/FORMAT/ARCH[/importance][/threads:2]: rows of 4096 weights, cold
// weights for dequantize.
#include "bench.hpp"
#include "quantal/executor.hpp"

namespace quantal::bench {
namespace {

constexpr std::int64_t cols = 4096;

void dequantize(benchmark::State& state, std::string_view arch, const runtime::format_ops* ops,
                const format_info* f) {
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

void quantize(benchmark::State& state, runtime::quantizer f, std::int64_t row_bytes, bool weighted,
              int threads) {
  const std::int64_t rows = 16 * threads;
  test::rng g(3);
  const auto x = test::gaussian(g, static_cast<std::size_t>(cols));
  auto importance = test::gaussian(g, static_cast<std::size_t>(cols));
  for (float& w : importance) w = w * w + 0.01f;
  std::vector<std::byte> out(static_cast<std::size_t>(rows * row_bytes));
  thread_pool pool(threads);
  const double elapsed = seconds([&] {
    for (auto _ : state)
      executor_ref(pool).for_each(static_cast<int>(rows), [&](int r, int) {
        if (f(x.data(), weighted ? importance.data() : nullptr, out.data() + r * row_bytes, cols) !=
            status::ok)
          state.SkipWithError("refused");
      });
  });
  state.counters["weights/s"] = benchmark::Counter(static_cast<double>(rows * cols) *
                                                   static_cast<double>(state.iterations()) / elapsed);
}

}  // namespace

void register_rows() {
  for_each_case(
      [](std::string_view arch, const runtime::format_ops* ops, const format_info* f, activation policy) {
        if (policy != activation::exact) return;
        const std::string name = "dequantize/" + std::string(f->name) + "/" + std::string(arch);
        benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& s) {
          dequantize(s, arch, ops, f);
        })->Unit(benchmark::kMicrosecond);
      });
  for (const auto arch : runtime::dispatcher::compiled())
    if (const auto d = runtime::dispatcher::named(arch))
      for (const auto& f : format_table)
        if (const auto q = d->find_quantizer(f.gguf_id))
          for (const bool weighted : {false, true})
            for (const int threads : {1, 2}) {
              std::string name = "quantize/" + std::string(f.name) + "/" + std::string(arch);
              if (weighted) name += "/importance";
              if (threads > 1) name += "/threads:" + std::to_string(threads);
              const std::int64_t bytes = f.row_bytes(cols);
              benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& s) {
                quantize(s, q, bytes, weighted, threads);
              })->Unit(benchmark::kMicrosecond);
            }
}

}  // namespace quantal::bench
