#include "released.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "quantal/formats.hpp"

namespace quantal::plan {
namespace {

/// What blocks tell about where their scales came from.
struct block_count {
  std::int64_t blocks = 0;  ///< that are not zero
  std::int64_t at_end = 0;  ///< with the code that a quantizer gives the largest weight
  std::int64_t pairs = 0;   ///< of neighbours
  std::int64_t equal = 0;   ///< pairs under one scale, but for the last places of f16

  /// Quantizers give a block of its own weights a scale of its own: few pairs are equal by chance.
  bool shares_scales() const { return pairs > 0 && equal * 10 >= pairs * 9; }
  /// Quantizers to q4_0 put the largest weight of a block at -8: llama.cpp's always, ours five times in six. A symmetric int4
  /// checkpoint has -8 in no block, or where the largest weight is negative.
  bool avoids_end() const { return blocks > 0 && at_end * 3 <= blocks * 2; }
};

template <class F>
void count_row(const std::byte* row, std::int64_t cols, int end, block_count& sum) {
  float previous = 0;
  for (std::int64_t b = 0; b < cols / F::layout.elements; ++b) {
    typename F::block block;
    std::memcpy(&block, row + b * F::layout.bytes, sizeof block);
    const float scale = std::fabs(F::scale(block, 1.0f, 0));  // the signs of codes may hold its sign
    if (b > 0 && scale != 0 && previous != 0)
      ++sum.pairs, sum.equal += std::fabs(scale - previous) <= 0x1p-9f * scale;
    previous = scale;
    if (scale == 0) continue;
    ++sum.blocks;
    for (int e = 0; e < F::layout.elements; ++e)
      if (F::code(block, e) == end) {
        ++sum.at_end;
        break;
      }
  }
}

template <class F>
result<block_count> count_blocks(const gguf::model_view& model, const gguf::tensor_info& t, int end) {
  constexpr std::int64_t most_rows = 64;
  const auto source = model.rows(t);
  if (!source) return source.error();
  const std::int64_t rows = t.rows() * t.slices(), taken = std::min(rows, most_rows);
  std::vector<std::byte> scratch(static_cast<std::size_t>(find_format(t.type)->row_bytes(t.cols())));
  block_count sum;
  for (std::int64_t i = 0; i < taken; ++i)
    count_row<F>(source->row(i * rows / taken, scratch.data()), t.cols(), end, sum);
  return sum;
}

result<bool> is_released(const gguf::model_view& model, const gguf::tensor_info& t) {
  if (t.type == mxfp4::gguf_id || t.type == nvfp4::gguf_id) return true;
  if (t.type == q4_0::gguf_id) {
    const auto n = count_blocks<q4_0>(model, t, q4_0::min_code);
    return n ? result<bool>(n->shares_scales() || n->avoids_end()) : n.error();
  }
  if (t.type != q8_0::gguf_id) return false;
  const auto n = count_blocks<q8_0>(model, t, q8_0::max_code);
  return n ? result<bool>(n->shares_scales()) : n.error();
}

}  // namespace

result<void> find_released(const gguf::model_view& model, std::unordered_set<std::string>& names) {
  for (const auto& [key, value] : model.meta().items())
    if (key.starts_with("quantize.imatrix.")) return {};
  for (const auto& t : model.tensors()) {
    const auto yes = is_released(model, t);
    if (!yes) return yes.error();
    if (*yes) names.insert(t.name);
  }
  return {};
}

}  // namespace quantal::plan
