// Collects paired moments of one stage of tensors.
#pragma once

#include <limits>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "observer.hpp"
#include "paired_moments.hpp"
#include "quantal/executor.hpp"
#include "quantal/quantize/output_coder.hpp"

namespace quantal::plan {

struct pairing_options {
  /// Where the sums of a tensor's experts or heads would take more memory, they share them.
  std::size_t bytes_per_tensor = std::size_t{1} << 30;
  std::int64_t held_out_from = std::numeric_limits<std::int64_t>::max();  ///< first token that is kept apart
};

/// Sees a batch of tokens in the quantized model first, then the same batch in the reference. The router of the quantized
/// model decides which experts a token is counted for, in both. Every number adds its terms in the order of the tokens, so
/// the sums do not depend on threads.
class paired_collector {
 public:
  /// `names`: tensors whose inputs are wanted, all of one half of a block. They must be reported in every batch.
  paired_collector(std::vector<std::string> names, pairing_options o, quantize::row_product product,
                   executor_ref threads);

  mla::observer& quantized() noexcept { return quantized_; }
  mla::observer& reference() noexcept { return reference_; }

  /// Every wanted tensor of this batch was seen, in the model that ran last.
  bool complete() const noexcept { return seen_ == names_.size(); }
  /// The wanted tensors, for messages.
  std::string described() const;
  /// Once all batches are through: moments of a tensor. One matrix per expert or head, or one for all.
  const paired_moments& moments_of(const std::string& name);

 private:
  class side : public mla::observer {
   public:
    side(paired_collector& to, bool reference) : to_(to), reference_(reference) {}
    void start_at(std::int64_t token) override { to_.start(token, reference_); }
    result<void> on_mul_mat(const mla::matrix_input& in) override;
    result<void> on_mul_mat_id(const mla::expert_input& in) override;
    std::span<const std::int32_t> other_experts() const override;
    bool done() const override { return to_.complete(); }

   private:
    paired_collector& to_;
    bool reference_;
  };

  /// Inputs of a tensor in one batch: row (token, i) has cols floats and belongs to a slice.
  struct rows {
    std::string_view name;
    const float* data;
    std::int64_t cols, tokens, per_token, token_stride, row_stride, slices;
    const std::int32_t* ids;  ///< slice of a row; null: row i of a token is of slice i

    const float* row(std::int64_t token, std::int64_t i) const {
      return data + token * token_stride + i * row_stride;
    }
    std::int64_t slice(std::int64_t token, std::int64_t i) const {
      return ids ? ids[token * per_token + i] : i;
    }
  };
  /// Sums of one slice, and the inputs that are not in them yet.
  struct sums {
    std::vector<double> x, d, rest;  ///< x x^T, d x^T, d d^T
    std::vector<float> pending_x, pending_r;
    double count = 0;
  };
  struct tensor {
    std::int64_t cols = 0, slices = 0;
    const float* data = nullptr;  ///< where the quantized model had its inputs in this batch
    std::vector<float> batch;     ///< these inputs: per token one row, or one per slot where they differ
    std::int64_t batch_rows = 0;  ///< per token
    std::vector<sums> used, held_out;
    bool finished = false;
    paired_moments moments;
  };

  void start(std::int64_t token, bool reference);
  bool wanted(std::string_view name) const;
  result<void> take(const rows& in, bool reference);
  result<void> keep(const rows& in);
  result<void> pair(const rows& in);
  const std::string* shared_with(const std::string& name, const rows& in) const;
  void open(tensor& t, const rows& in) const;
  void flush(sums& s, std::int64_t cols, bool with_rest);
  void add_products(const std::vector<float>& left, const std::vector<float>& right, std::int64_t n,
                    std::int64_t cols, std::vector<double>& sum);
  void finish(tensor& t);

  std::vector<std::string> names_;
  pairing_options options_;
  quantize::row_product product_;
  executor_ref threads_;
  side quantized_{*this, false}, reference_{*this, true};
  std::int64_t first_token_ = 0;
  std::size_t seen_ = 0;  ///< wanted tensors of this batch, in the model that runs
  std::map<std::string, tensor> tensors_;
  std::map<std::string, std::string> same_;       ///< tensors that have the inputs of another
  std::vector<std::int32_t> experts_;             ///< that the quantized model chose in this batch
  std::vector<float> columns_, rows_, products_;  ///< of add_products()
};

}  // namespace quantal::plan
