#include "released.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "quantal/formats.hpp"

namespace quantal::plan {
namespace {

/// What blocks tell about where their scales came from.
struct block_count {
  std::int64_t seen = 0;
  std::int64_t blocks = 0;  ///< that are not zero
  std::int64_t at_end = 0;  ///< with the code that a quantizer gives the largest weight
  std::int64_t pairs = 0;   ///< of neighbours
  std::int64_t equal = 0;   ///< pairs under one scale, but for the last places of f16

  /// Quantizers give a block of its own weights a scale of its own: few pairs are equal by chance.
  bool shares_scales() const { return pairs > 0 && equal * 10 >= pairs * 9; }
  /// Quantizers to q4_0 put the largest weight of a block at -8: llama.cpp's always, ours five times in six. A symmetric int4
  /// checkpoint has -8 in no block, or where the largest weight is negative.
  bool avoids_end() const { return blocks > 0 && at_end * 3 <= blocks * 2; }

  block_count& operator+=(const block_count& o) {
    seen += o.seen, blocks += o.blocks, at_end += o.at_end, pairs += o.pairs, equal += o.equal;
    return *this;
  }
};

/// Fewer tell nothing: they may look so by chance.
constexpr std::int64_t least_blocks = 1024;

template <class F>
void count_row(const std::byte* row, std::int64_t cols, int end, block_count& sum) {
  float previous = 0;
  for (std::int64_t b = 0; b < cols / F::layout.elements; ++b) {
    ++sum.seen;
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
  constexpr std::int64_t usual_rows = 64;
  const auto source = model.rows(t);
  if (!source) return source.error();
  const std::int64_t rows = t.rows() * t.slices(),
                     in_row = std::max<std::int64_t>(t.cols() / F::layout.elements, 1);
  const std::int64_t taken = std::min(rows, std::max(usual_rows, (least_blocks + in_row - 1) / in_row));
  std::vector<std::byte> scratch(static_cast<std::size_t>(find_format(t.type)->row_bytes(t.cols())));
  block_count sum;
  for (std::int64_t i = 0; i < taken; ++i)
    count_row<F>(source->row(i * rows / taken, scratch.data()), t.cols(), end, sum);
  return sum;
}

/// Checkpoints are released in them.
bool is_fp4(std::uint32_t type) { return type == mxfp4::gguf_id || type == nvfp4::gguf_id; }

bool has_blocks(const gguf::tensor_info& t) {
  const auto* f = find_format(t.type);
  return f && f->usage == role::weight && !f->is_float;
}

bool was_released(std::uint32_t type, const block_count& n) {
  return n.seen >= least_blocks && (n.shares_scales() || (type == q4_0::gguf_id && n.avoids_end()));
}

/// True if a quantizer says that it made the file: quantize.imatrix.file, quantize.hessian.file, ...
bool is_marked(const gguf::metadata& meta) {
  return std::any_of(meta.items().begin(), meta.items().end(),
                     [](const auto& item) { return item.first.starts_with("quantize."); });
}

/// Its experts were released in mxfp4 and in nothing else, and its GGUF files have the bf16 tensors beside them in q8_0. Of other
/// architectures such files are what somebody made of bf16.
bool has_copies_beside(const gguf::model_view& model) {
  const auto name = model.meta().string("general.architecture");
  return name && *name == "gpt-oss" &&
         std::any_of(model.tensors().begin(), model.tensors().end(),
                     [](const auto& t) { return is_fp4(t.type) && t.slices() > 1; });
}

/// A quantized tensor with what its blocks tell.
struct counted_tensor {
  const gguf::tensor_info* tensor;
  block_count count;
};

}  // namespace

result<void> find_released(const gguf::model_view& model, type_options& options) {
  if (is_marked(model.meta())) return {};
  const bool copies_beside = has_copies_beside(model);
  std::unordered_set<std::string> found, copies;
  std::vector<counted_tensor> counts;
  std::map<std::uint32_t, block_count> of_type;
  for (const auto& t : model.tensors()) {
    if (!has_blocks(t)) continue;
    found.insert(t.name);
    if (is_fp4(t.type)) continue;
    if (t.type != q4_0::gguf_id && t.type != q8_0::gguf_id) return {};
    const auto n = t.type == q4_0::gguf_id ? count_blocks<q4_0>(model, t, q4_0::min_code)
                                           : count_blocks<q8_0>(model, t, q8_0::max_code);
    if (!n) return n.error();
    counts.push_back({&t, *n});
    of_type[t.type] += *n;
  }
  for (const auto& [t, n] : counts) {
    if (was_released(t->type, n.seen < least_blocks ? of_type[t->type] : n)) continue;
    if (!copies_beside || t->type != q8_0::gguf_id) return {};
    copies.insert(t->name);
  }
  options.released.merge(found);
  options.copies.merge(copies);
  return {};
}

}  // namespace quantal::plan
