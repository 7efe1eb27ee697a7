// mul_mat/FORMAT/ARCH/POLICY/m:ROWS/n:COLUMNS/k:LENGTH/threads:T. Weights are cold (beyond the last-level cache) for
// n <= 8; the quantization of the activations is part of the time. Rates of one thread are per processor time.
#include "bench.hpp"

namespace quantal::bench {
namespace {

struct mul_mat_case {
  std::string_view arch;
  const runtime::format_ops* ops;
  const format_info* format;
  activation policy;
  std::int64_t m, n, k;
  int threads;
};

void run(benchmark::State& state, const mul_mat_case& c) {
  const ceiling& top = ceiling_of(c.arch);
  rotating_weights weights(*c.format, c.m, c.k, c.n <= 8);
  test::rng g(2);
  const auto x = test::gaussian(g, static_cast<std::size_t>(c.n * c.k));
  std::vector<float> out(static_cast<std::size_t>(c.n * c.m));
  thread_pool pool(c.threads);
  mul_mat_args a{weights.next(), c.m, c.k, c.format->row_bytes(c.k), x.data(), c.n, c.k, out.data(), c.m};
  std::vector<std::byte> workspace(c.ops->mul_mat_workspace(a, c.policy));
  const auto loop = [&] {
    for (auto _ : state) {
      a.weights = weights.next();
      if (c.ops->mul_mat(a, c.policy, pool, workspace) != status::ok) state.SkipWithError("refused");
      benchmark::ClobberMemory();
    }
  };
  const double elapsed = c.threads == 1 ? cpu_seconds(loop) : seconds(loop);
  const double bytes = weights.bytes() + 4.0 * static_cast<double>(x.size() + out.size());
  const double ops = 2.0 * static_cast<double>(c.m * c.n * c.k);
  set_counters(state, elapsed, bytes, ops, top.read_bandwidth * c.threads,
               (c.policy == activation::q8 ? top.dot : top.fma) * c.threads);
}

}  // namespace

void register_mul_mat() {
  const auto add = [](std::string_view arch, const runtime::format_ops* ops, const format_info* format,
                      activation policy) {
    for (const int threads : {1, 2})
      for (const std::int64_t n : {1, 2, 4, 8, 16, 32, 64, 512}) {
        const mul_mat_case c{arch, ops, format, policy, n <= 8 ? 4096 : 2048, n, 4096, threads};
        const std::string name = "mul_mat/" + std::string(format->name) + "/" + std::string(arch) + "/" +
                                 name_of(policy) + "/m:" + std::to_string(c.m) + "/n:" + std::to_string(n) +
                                 "/k:" + std::to_string(c.k) + "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(name.c_str(), [c](benchmark::State& s) { run(s, c); })
            ->Unit(benchmark::kMicrosecond)
            ->UseRealTime();
      }
  };
  for_each_case(add);
  // A format that has a header and a place in a list, nothing else: what users add is to be as fast.
  static_assert(test::made_up_table[0].name == "q5_64");
  for (const auto arch : runtime::dispatcher::compiled())
    if (const auto* ops = test::made_up_ops(q5_64::gguf_id, arch))
      add(arch, ops, &test::made_up_table[0], activation::q8);
}

}  // namespace quantal::bench
