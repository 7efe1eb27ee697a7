// Registration and counters shared by the benchmarks.
#pragma once

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "ceiling.hpp"
#include "quantal/runtime/ops.hpp"
#include "support/made_up_formats.hpp"
#include "support/made_up_ops.hpp"
#include "support/random_weights.hpp"

namespace quantal::bench {

void register_mul_mat();
void register_mul_mat_id();
void register_output_aware();
void register_packed();
void register_rows();

/// Weights in enough copies to defeat the last-level cache where `cold`.
class rotating_weights {
 public:
  static constexpr std::size_t cold_bytes = std::size_t{96} << 20;

  rotating_weights(const format_info& f, std::int64_t rows, std::int64_t cols, bool cold) {
    const std::int64_t row = f.row_bytes(cols), distinct = std::min<std::int64_t>(rows, 64);
    size_ = static_cast<std::size_t>(rows * row);
    copies_ = cold ? (cold_bytes + size_ - 1) / size_ : 1;
    test::rng g(1);
    std::vector<std::byte> some;
    test::visit_any_format(f.gguf_id,
                           [&]<class F>() { some = test::random_rows<F>(g, distinct, cols, row); });
    data_.reserve(size_ * copies_);
    while (data_.size() < size_ * copies_)
      data_.insert(data_.end(), some.begin(),
                   some.begin() + std::min(some.size(), size_ * copies_ - data_.size()));
  }
  const std::byte* next() { return data_.data() + size_ * (at_++ % copies_); }
  double bytes() const { return static_cast<double>(size_); }

 private:
  std::size_t size_, copies_, at_ = 0;
  std::vector<std::byte> data_;
};

/// bytes/s, op/s and the share of the roofline min(peak, bandwidth x intensity).
inline void set_counters(benchmark::State& state, double elapsed, double bytes, double ops, double bandwidth,
                         double peak) {
  const double runs = static_cast<double>(state.iterations());
  state.counters["bytes/s"] = benchmark::Counter(bytes * runs / elapsed);
  state.counters["op/s"] = benchmark::Counter(ops * runs / elapsed);
  const double roof = std::min(peak, bandwidth * ops / bytes);
  state.counters["share"] = benchmark::Counter(ops * runs / elapsed / roof);
}

inline std::string name_of(activation policy) { return policy == activation::q8 ? "q8" : "exact"; }

/// Calls f(arch, ops, format, policy) for all that this machine runs.
template <class Fn>
void for_each_case(Fn&& f) {
  for (const auto arch : runtime::dispatcher::compiled())
    if (const auto d = runtime::dispatcher::named(arch))
      for (const auto& format : format_table)
        for (const auto policy : {activation::q8, activation::exact})
          if (policy == activation::exact || !format.is_float)
            f(arch, d->find(format.gguf_id), &format, policy);
}

}  // namespace quantal::bench
