// packed/FORMAT/ARCH/m:ROWS/n:COLUMNS/k:LENGTH/threads:T. mul_mat with weights that pack() decoded, see
// mul_mat.cpp; the packing itself is pack/FORMAT/ARCH/m:ROWS/k:LENGTH.
#include <memory>

#include "bench.hpp"

namespace quantal::bench {
namespace {

struct packed_case {
  std::string_view arch;
  const runtime::format_ops* ops;
  const format_info* format;
  std::int64_t m, n, k;
  int threads;
};

/// Packed matrices in enough copies to defeat the last-level cache where `cold`.
class rotating_packed {
 public:
  rotating_packed(const packed_case& c, bool cold) : size_(c.ops->packed_bytes(c.m, c.k)) {
    rotating_weights weights(*c.format, c.m, c.k, false);
    serial_executor serial;
    const std::size_t copies = cold ? (rotating_weights::cold_bytes + size_ - 1) / size_ : 1;
    memory_ = std::make_unique_for_overwrite<std::byte[]>(size_ * copies);
    views_.resize(copies);
    for (std::size_t i = 0; i < copies; ++i)
      refused_ |= c.ops->pack({weights.next(), 1, c.m, c.k, c.format->row_bytes(c.k), 0},
                              {memory_.get() + size_ * i, size_}, serial, views_[i]) != status::ok;
  }
  bool refused() const { return refused_; }
  const packed_weights& next() { return views_[at_++ % views_.size()]; }
  double bytes() const { return static_cast<double>(size_); }

 private:
  std::size_t size_, at_ = 0;
  bool refused_ = false;
  std::unique_ptr<std::byte[]> memory_;
  std::vector<packed_weights> views_;
};

void run(benchmark::State& state, const packed_case& c) {
  const ceiling& top = ceiling_of(c.arch);
  rotating_packed weights(c, c.n <= 8);
  if (weights.refused()) state.SkipWithError("refused");
  test::rng g(2);
  const auto x = test::gaussian(g, static_cast<std::size_t>(c.n * c.k));
  std::vector<float> out(static_cast<std::size_t>(c.n * c.m));
  thread_pool pool(c.threads);
  const mul_mat_args a{nullptr, c.m, c.k, 0, x.data(), c.n, c.k, out.data(), c.m};
  std::vector<std::byte> workspace(c.ops->packed_mul_mat_workspace(weights.next(), a));
  const auto loop = [&] {
    for (auto _ : state) {
      if (c.ops->packed_mul_mat(weights.next(), a, pool, workspace) != status::ok)
        state.SkipWithError("refused");
      benchmark::ClobberMemory();
    }
  };
  const double elapsed = c.threads == 1 ? cpu_seconds(loop) : seconds(loop);
  const double bytes = weights.bytes() + 4.0 * static_cast<double>(x.size() + out.size());
  const double ops = 2.0 * static_cast<double>(c.m * c.n * c.k);
  set_counters(state, elapsed, bytes, ops, top.read_bandwidth * c.threads, top.dot * c.threads);
}

/// bytes/s: of the packed weights.
void run_pack(benchmark::State& state, const packed_case& c) {
  rotating_weights weights(*c.format, c.m, c.k, false);
  std::vector<std::byte> memory(c.ops->packed_bytes(c.m, c.k));
  packed_weights packed;
  serial_executor serial;
  for (auto _ : state)
    if (c.ops->pack({weights.next(), 1, c.m, c.k, c.format->row_bytes(c.k), 0}, memory, serial, packed) !=
        status::ok)
      state.SkipWithError("refused");
  state.SetBytesProcessed(static_cast<std::int64_t>(memory.size()) * state.iterations());
}

}  // namespace

void register_packed() {
  for_each_case([](std::string_view arch, const runtime::format_ops* ops, const format_info* format,
                   activation policy) {
    if (policy != activation::q8 || format->is_float) return;
    const std::string of = std::string(format->name) + "/" + std::string(arch) + "/m:";
    for (const int threads : {1, 2})
      for (const std::int64_t n : {1, 2, 4, 8, 16, 32, 64, 512}) {
        const packed_case c{arch, ops, format, n <= 8 ? 4096 : 2048, n, 4096, threads};
        const std::string name = "packed/" + of + std::to_string(c.m) + "/n:" + std::to_string(n) +
                                 "/k:" + std::to_string(c.k) + "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(name.c_str(), [c](benchmark::State& s) { run(s, c); })
            ->Unit(benchmark::kMicrosecond)
            ->UseRealTime();
      }
    const packed_case c{arch, ops, format, 2048, 0, 4096, 1};
    benchmark::RegisterBenchmark(("pack/" + of + "2048/k:4096").c_str(), [c](benchmark::State& s) {
      run_pack(s, c);
    })->Unit(benchmark::kMicrosecond);
  });
}

}  // namespace quantal::bench
