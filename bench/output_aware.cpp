// What output-aware quantization spends its time on:
//   output_product/PART/ARCH     the products of feedback and of descent at 7168 columns, against the ceiling
//   output_metric/COLS/ARCH      the metric of COLS columns, with its factorization
//   output_aware/FORMAT/ARCH     rows of 2048 weights, plain/ the same rows by the plain quantizer
#include "quantal/quantize/output_aware.hpp"

#include "bench.hpp"

namespace quantal::bench {
namespace {

/// Second moments with a few strong directions.
std::vector<float> some_moments(std::int64_t cols, quantize::row_product product) {
  constexpr std::int64_t directions = 32;
  test::rng g(7);
  auto v = test::gaussian(g, static_cast<std::size_t>(directions * cols));
  std::vector<float> across(v.size()), sums(static_cast<std::size_t>(cols * cols));
  for (std::int64_t k = 0; k < directions; ++k)
    for (std::int64_t c = 0; c < cols; ++c)
      across[static_cast<std::size_t>(c * directions + k)] = v[static_cast<std::size_t>(k * cols + c)];
  product(across.data(), directions, v.data(), cols, sums.data(), cols, static_cast<int>(cols), directions,
          cols);
  for (std::int64_t c = 0; c < cols; ++c) sums[static_cast<std::size_t>(c * cols + c)] += 8.0f;
  return sums;
}

void product(benchmark::State& state, std::string_view arch, quantize::row_product f, std::int64_t width) {
  constexpr std::int64_t cols = 7168, rows = quantize::output_tile_rows;
  test::rng g(1);
  const auto e = test::gaussian(g, rows * cols);
  const std::vector<float> u(static_cast<std::size_t>(cols * cols), 0.5f);
  std::vector<float> y(static_cast<std::size_t>(rows * width));
  std::int64_t panel = 0;
  const double elapsed = cpu_seconds([&] {
    for (auto _ : state) {
      f(e.data(), cols, u.data() + panel * width * cols, width, y.data(), width, rows, cols, width);
      panel = (panel + 1) % (cols / width);
      benchmark::ClobberMemory();
    }
  });
  set_counters(state, elapsed, static_cast<double>(4 * cols * width),
               static_cast<double>(2 * rows * cols * width), ceiling_of(arch).read_bandwidth,
               ceiling_of(arch).fma);
}

void metric(benchmark::State& state, const runtime::dispatcher& d, std::int64_t cols) {
  const auto sums = some_moments(cols, d.product());
  serial_executor serial;
  for (auto _ : state) {
    output_metric m;
    if (m.prepare({cols, 1e6, sums}, serial, {}, d.factor_product()) != status::ok)
      state.SkipWithError("refused");
  }
  const auto n = static_cast<double>(cols);
  state.counters["op/s"] = benchmark::Counter(n * n * n / 3 * static_cast<double>(state.iterations()),
                                              benchmark::Counter::kIsRate);
}

void rows(benchmark::State& state, const runtime::dispatcher& d, const quantize::output_coder& coder,
          bool plain) {
  constexpr std::int64_t cols = 2048, rows = 2 * quantize::output_tile_rows;
  static const auto sums = some_moments(cols, d.product());
  serial_executor serial;
  output_metric m;
  if (m.prepare({cols, 4096, sums}, serial, {.run = coder.run}, d.factor_product()) != status::ok)
    return state.SkipWithError("refused");
  test::rng g(3);
  const auto w = test::gaussian(g, rows * cols);
  std::vector<std::byte> out(static_cast<std::size_t>(rows * coder.row_bytes(cols))),
      workspace(quantize_rows_workspace(coder, cols, 1));
  const output_aware_args a{w.data(), rows, cols, out.data(), coder.row_bytes(cols)};
  const double elapsed = cpu_seconds([&] {
    for (auto _ : state)
      if (plain) {
        for (std::int64_t r = 0; r < rows; ++r)
          if (coder.quantize(w.data() + r * cols, m.diagonal().data(), out.data() + r * a.out_stride, cols) !=
              status::ok)
            state.SkipWithError("refused");
      } else if (quantize_rows(coder, d.product(), m, a, serial, workspace) != status::ok) {
        state.SkipWithError("refused");
      }
  });
  state.counters["us/weight"] =
      benchmark::Counter(1e6 * elapsed / static_cast<double>(rows * cols * state.iterations()));
}

}  // namespace

void register_output_aware() {
  for (const auto arch : runtime::dispatcher::compiled()) {
    const auto d = runtime::dispatcher::named(arch);
    if (!d) continue;
    const auto add = [&](const std::string& name, auto&& run) {
      benchmark::RegisterBenchmark((name + std::string(arch)).c_str(), run)->Unit(benchmark::kMillisecond);
    };
    for (const auto& [part, width] : {std::pair{"feedback", output_metric::factor_panel},
                                      std::pair{"descent", output_metric::moments_panel}})
      add("output_product/" + std::string(part) + "/",
          [arch, f = d->product(), width = width](benchmark::State& s) { product(s, arch, f, width); });
    for (const std::int64_t cols : {2048, 7168})
      add("output_metric/" + std::to_string(cols) + "/",
          [d = *d, cols](benchmark::State& s) { metric(s, d, cols); });
    for (const auto& f : format_table)
      if (const auto* coder = d->find_coder(f.gguf_id))
        for (const bool plain : {true, false})
          add("output_aware/" + std::string(f.name) + (plain ? "/plain/" : "/"),
              [d = *d, coder, plain](benchmark::State& s) { rows(s, d, *coder, plain); });
  }
}

}  // namespace quantal::bench
