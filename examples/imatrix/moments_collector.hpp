// Collects second moments of the inputs of weight products, beside the importance statistics.
#pragma once

#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "observer.hpp"
#include "quantal/executor.hpp"
#include "quantal/imatrix/moments.hpp"
#include "quantal/quantize/output_coder.hpp"

namespace quantal::mla {

struct moments_options {
  /// Where the matrices of a tensor's experts or heads would take more memory, they share one.
  std::size_t bytes_per_tensor = std::size_t{1} << 30;
  std::int64_t held_out_from = std::numeric_limits<std::int64_t>::max();  ///< first token that is kept apart
};

/// Products of blocks of inputs are float32, their sum is float64. Every number adds its terms in the order
/// of the tokens, so the result does not depend on threads.
class moments_collector : public observer {
 public:
  moments_collector(moments_options o, quantize::row_product product, executor_ref threads);

  void start_at(std::int64_t token) override { first_token_ = token; }
  result<void> on_mul_mat(const matrix_input& in) override;
  result<void> on_mul_mat_id(const expert_input& in) override;
  /// What has been collected.
  imatrix::moments_store take();

 private:
  /// Sums of one slice, and the inputs that are not in them yet.
  struct sums {
    std::vector<double> triangle, x;
    std::vector<float> pending;  ///< [inputs][cols]
    double count = 0;
  };
  struct tensor {
    std::int64_t cols;
    const float* data;    ///< of its last input
    std::int64_t tokens;  ///< before that pass
    std::vector<sums> used, held_out;
  };

  /// The tensor's sums, or null if another with the same input has them.
  result<tensor*> find(std::string_view name, const float* data, std::int64_t cols, std::int64_t slices);
  const std::string* shared_with(const std::string& name, const float* data, std::int64_t cols,
                                 std::size_t slices) const;
  result<void> add(std::string_view name, tensor& t, std::int64_t slice, std::int64_t token, const float* x);
  void flush(sums& s, std::int64_t cols);

  moments_options options_;
  quantize::row_product product_;
  executor_ref threads_;
  std::int64_t first_token_ = 0;
  std::map<std::string, tensor> tensors_;
  std::map<std::string, std::string> same_;
  std::vector<float> columns_, rows_, products_;  ///< of flush()
};

/// Tells two observers the same.
class observers : public observer {
 public:
  observers(observer& a, observer& b) : a_(a), b_(b) {}
  void start_at(std::int64_t token) override { a_.start_at(token), b_.start_at(token); }
  result<void> on_mul_mat(const matrix_input& in) override {
    auto r = a_.on_mul_mat(in);
    return r ? b_.on_mul_mat(in) : r;
  }
  result<void> on_mul_mat_id(const expert_input& in) override {
    auto r = a_.on_mul_mat_id(in);
    return r ? b_.on_mul_mat_id(in) : r;
  }
  bool wants_all_experts() const override { return a_.wants_all_experts() || b_.wants_all_experts(); }

 private:
  observer &a_, &b_;
};

}  // namespace quantal::mla
