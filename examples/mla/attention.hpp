// Causal attention of one head over tiles of keys. One tile of all keys is ordinary softmax attention; smaller tiles
// with a running maximum are the flash form. Both products of a tile go through the library's mul_mat.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "quantal/runtime/ops.hpp"

namespace quantal::mla {

/// Query t sits at position first + t and sees keys [0, first + t].
struct attention_args {
  const float* queries;
  std::int64_t n, query_stride, key_width;
  const float* keys;
  std::int64_t key_stride;
  const float* values;
  std::int64_t value_stride, value_width;
  std::int64_t first;
  float scale;
  float* out;
  std::int64_t out_stride;
  std::int64_t tile;  ///< keys per tile; at least first + n for the plain form
};

/// Scratch of one worker.
class attention {
 public:
  explicit attention(const runtime::dispatcher& arch) : ops_(arch.find(f32::gguf_id)) {}

  /// The last product's failure, if one failed.
  status outcome() const noexcept { return outcome_; }

  void run(const attention_args& a) {
    const std::int64_t keys = a.first + a.n;
    const std::int64_t tile = std::min(a.tile, keys);
    scores_.resize(static_cast<std::size_t>(a.n * tile));
    transposed_.resize(static_cast<std::size_t>(a.value_width * tile));
    top_.assign(static_cast<std::size_t>(a.n), -std::numeric_limits<float>::infinity());
    sum_.assign(static_cast<std::size_t>(a.n), 0.0);
    partial_.resize(static_cast<std::size_t>(a.n * a.value_width));
    for (std::int64_t t = 0; t < a.n; ++t) std::fill_n(a.out + t * a.out_stride, a.value_width, 0.0f);
    for (std::int64_t k = 0; k < keys; k += tile) add_tile(a, k, std::min(tile, keys - k));
    for (std::int64_t t = 0; t < a.n; ++t) {
      const float inverse = static_cast<float>(1.0 / sum_[static_cast<std::size_t>(t)]);
      for (std::int64_t v = 0; v < a.value_width; ++v) a.out[t * a.out_stride + v] *= inverse;
    }
  }

 private:
  void multiply(const float* w, std::int64_t rows, std::int64_t cols, std::int64_t row_stride, const float* x,
                std::int64_t n, std::int64_t x_stride, float* out, std::int64_t out_stride) {
    serial_executor serial;
    const mul_mat_args product{
        reinterpret_cast<const std::byte*>(w), rows, cols, 4 * row_stride, x, n, x_stride, out, out_stride};
    workspace_.resize(std::max(workspace_.size(), ops_->mul_mat_workspace(product, activation::exact)));
    const status s = ops_->mul_mat(product, activation::exact, serial, workspace_);
    if (s != status::ok) outcome_ = s;
  }

  void add_tile(const attention_args& a, std::int64_t first_key, std::int64_t keys) {
    // Queries before the tile see none of it.
    const std::int64_t skip = std::max<std::int64_t>(0, first_key - a.first);
    const std::int64_t n = a.n - skip;
    multiply(a.keys + first_key * a.key_stride, keys, a.key_width, a.key_stride,
             a.queries + skip * a.query_stride, n, a.query_stride, scores_.data(), keys);
    for (std::int64_t t = 0; t < n; ++t)
      soften(scores_.data() + t * keys, keys, std::min(keys, a.first + skip + t - first_key + 1), a,
             skip + t);
    for (std::int64_t v = 0; v < a.value_width; ++v)
      for (std::int64_t k = 0; k < keys; ++k)
        transposed_[static_cast<std::size_t>(v * keys + k)] = a.values[(first_key + k) * a.value_stride + v];
    multiply(transposed_.data(), a.value_width, keys, keys, scores_.data(), n, keys, partial_.data(),
             a.value_width);
    for (std::int64_t t = 0; t < n; ++t)
      for (std::int64_t v = 0; v < a.value_width; ++v)
        a.out[(skip + t) * a.out_stride + v] += partial_[static_cast<std::size_t>(t * a.value_width + v)];
  }

  /// Scores of query t to probabilities relative to its running maximum; earlier sums are rescaled to it.
  void soften(float* score, std::int64_t keys, std::int64_t visible, const attention_args& a,
              std::int64_t t) {
    float& top = top_[static_cast<std::size_t>(t)];
    float tile_top = -std::numeric_limits<float>::infinity();
    for (std::int64_t k = 0; k < visible; ++k) tile_top = std::max(tile_top, score[k] *= a.scale);
    if (tile_top > top) {
      const float shrink = std::exp(top - tile_top);
      sum_[static_cast<std::size_t>(t)] *= shrink;
      if (top > -std::numeric_limits<float>::infinity())
        for (std::int64_t v = 0; v < a.value_width; ++v) a.out[t * a.out_stride + v] *= shrink;
      top = tile_top;
    }
    double sum = 0;
    for (std::int64_t k = 0; k < visible; ++k) sum += score[k] = std::exp(score[k] - top);
    std::fill(score + visible, score + keys, 0.0f);
    sum_[static_cast<std::size_t>(t)] += sum;
  }

  const runtime::format_ops* ops_;
  std::vector<float> scores_, transposed_, partial_, top_;
  std::vector<double> sum_;
  std::vector<std::byte> workspace_;
  status outcome_ = status::ok;
};

}  // namespace quantal::mla
