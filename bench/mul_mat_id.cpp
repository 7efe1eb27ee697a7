// mul_mat_id/FORMAT/ARCH/POLICY/experts:E/top:J/m:ROWS/n:TOKENS/k:LENGTH: a mixture layer with evenly random routing.
#include "bench.hpp"

namespace quantal::bench {
namespace {

constexpr std::int64_t experts = 32, used = 4, rows = 2048, cols = 4096;

struct mul_mat_id_case {
  std::string_view arch;
  const runtime::format_ops* ops;
  const format_info* format;
  activation policy;
  std::int64_t tokens;
};

void run(benchmark::State& state, const mul_mat_id_case& c) {
  const ceiling& top = ceiling_of(c.arch);
  rotating_weights weights(*c.format, experts * rows, cols, false);
  test::rng g(2);
  const auto x = test::gaussian(g, static_cast<std::size_t>(c.tokens * cols));
  std::vector<std::int32_t> ids(static_cast<std::size_t>(c.tokens * used));
  std::vector<bool> touched(experts);
  for (std::int64_t t = 0; t < c.tokens; ++t) {
    std::int32_t e = static_cast<std::int32_t>(g() % experts);
    for (std::int64_t j = 0; j < used; ++j, e = (e + 5) % experts) {
      ids[static_cast<std::size_t>(t * used + j)] = e;
      touched[static_cast<std::size_t>(e)] = true;
    }
  }
  std::vector<float> out(static_cast<std::size_t>(c.tokens * used * rows));
  serial_executor serial;
  const std::int64_t stride = c.format->row_bytes(cols);
  const mul_mat_id_args a{weights.next(), experts,    rows,        cols, stride,     stride * rows,
                          x.data(),       c.tokens,   cols,        0,    ids.data(), used,
                          used,           out.data(), used * rows, rows};
  std::vector<std::byte> workspace(c.ops->mul_mat_id_workspace(a, c.policy));
  const double elapsed = cpu_seconds([&] {
    for (auto _ : state) {
      if (c.ops->mul_mat_id(a, c.policy, serial, workspace) != status::ok) state.SkipWithError("refused");
      benchmark::ClobberMemory();
    }
  });
  const double reached = static_cast<double>(std::count(touched.begin(), touched.end(), true)) / experts;
  const double bytes = weights.bytes() * reached + 4.0 * static_cast<double>(x.size() + out.size());
  const double ops = 2.0 * static_cast<double>(c.tokens * used * rows * cols);
  set_counters(state, elapsed, bytes, ops, top.read_bandwidth,
               c.policy == activation::q8 ? top.dot : top.fma);
}

}  // namespace

void register_mul_mat_id() {
  for_each_case([](std::string_view arch, const runtime::format_ops* ops, const format_info* format,
                   activation policy) {
    for (const std::int64_t n : {1, 8, 64, 512}) {
      const mul_mat_id_case c{arch, ops, format, policy, n};
      const std::string name = "mul_mat_id/" + std::string(format->name) + "/" + std::string(arch) + "/" +
                               name_of(policy) + "/experts:32/top:4/m:2048/n:" + std::to_string(n) +
                               "/k:4096";
      benchmark::RegisterBenchmark(name.c_str(), [c](benchmark::State& s) { run(s, c); })
          ->Unit(benchmark::kMicrosecond)
          ->UseRealTime();
    }
  });
}

}  // namespace quantal::bench
