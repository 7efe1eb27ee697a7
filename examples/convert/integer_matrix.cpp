// Weights of four or eight bits with a scale, and perhaps a zero point, per group of columns:
// compressed-tensors (packed and plain), GPTQ, AWQ.
#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "quantal/format/q4_0.hpp"
#include "quantal/format/q4_1.hpp"
#include "quantal/format/q8_0.hpp"
#include "stored_matrix.hpp"
#include "text.hpp"

namespace quantal::hf {
namespace {

/// Fields of `bits` bits in words of 32, in rows of whole words; low bits first.
struct packed_rows {
  const std::byte* data;
  std::int64_t words;  ///< per row
  int bits;
  int operator()(std::int64_t r, std::int64_t c) const noexcept {
    const int per_word = 32 / bits;
    return static_cast<int>(word_at(data, r * words + c / per_word) >> (c % per_word * bits) &
                            ((1u << bits) - 1));
  }
};

/// As packed_rows, but the words run down the columns.
struct packed_columns {
  const std::byte* data;
  std::int64_t cols;
  int bits;
  int operator()(std::int64_t r, std::int64_t c) const noexcept {
    const int per_word = 32 / bits;
    return static_cast<int>(word_at(data, r / per_word * cols + c) >> (r % per_word * bits) &
                            ((1u << bits) - 1));
  }
};

/// The transpose of another layout.
template <class Layout>
struct transposed {
  Layout from;
  int operator()(std::int64_t r, std::int64_t c) const noexcept { return from(c, r); }
};

/// AWQ's words hold eight outputs in the order 0 2 4 6 1 3 5 7.
struct interleaved_columns {
  const std::byte* data;
  std::int64_t words;  ///< per input
  int operator()(std::int64_t r, std::int64_t c) const noexcept {
    const std::int64_t k = r % 8;
    return static_cast<int>(word_at(data, c * words + r / 8) >> (4 * (k / 2 + k % 2 * 4)) & 15);
  }
};

/// Bytes with a sign, counted from -128 as packed ones are.
struct signed_bytes {
  const std::byte* data;
  std::int64_t cols;
  int bits;
  int operator()(std::int64_t r, std::int64_t c) const noexcept {
    return static_cast<std::int8_t>(data[r * cols + c]) + (1 << (bits - 1));
  }
};

/// No zero points: the middle of the codes.
struct middle {
  int value;
  int operator()(std::int64_t, std::int64_t) const noexcept { return value; }
};

/// A layout whose values are off by a constant; the sum has no more bits than they.
template <class Layout>
struct shifted {
  Layout from;
  int by, bits;
  int operator()(std::int64_t r, std::int64_t c) const noexcept {
    return (from(r, c) + by) & ((1 << bits) - 1);
  }
};

struct scale_layout {
  dtype type;
  const std::byte* data;
  std::int64_t row_step, group_step;
  std::int64_t group;  ///< columns that share a scale
  float operator()(std::int64_t r, std::int64_t g) const noexcept {
    return number_at(type, data, r * row_step + g * group_step);
  }
};

/// weight = (code - zero) * scale, codes counted from 0.
template <class Codes, class Zeros>
class integer_matrix final : public stored_matrix {
 public:
  integer_matrix(std::int64_t cols, int bits, Codes codes, Zeros zeros, scale_layout scales, dtype product,
                 std::initializer_list<const checkpoint::place*> tensors)
      : stored_matrix(cols), bits_(bits), codes_(codes), zeros_(zeros), scales_(scales), product_(product) {
    for (const auto* p : tensors)
      if (p) use(*p->tensor);
  }

  void decode(std::int64_t r, std::int64_t first, std::int64_t n, float* out) const noexcept override {
    read(product_, r, first, n, out);
  }
  void exact_row(std::int64_t r, float* out) const noexcept override { read(dtype::f32, r, 0, cols(), out); }

  std::uint32_t natural_type() const noexcept override {
    constexpr std::int64_t block = q4_0::layout.elements;
    constexpr bool centred = std::is_same_v<Zeros, middle>;
    if (cols() % block || (scales_.group % block && scales_.group < cols())) return bf16::gguf_id;
    if (bits_ == 4) return centred ? q4_0::gguf_id : q4_1::gguf_id;
    return centred ? q8_0::gguf_id : bf16::gguf_id;
  }

  void encode(std::int64_t r, std::byte* out) const noexcept override {
    for (std::int64_t c = 0; c < cols(); c += 32) {
      const std::int64_t g = c / scales_.group;
      const float s = scales_(r, g);
      if (bits_ == 8)
        out = put<q8_0>(r, c, s, 0, 128, out);
      else if constexpr (std::is_same_v<Zeros, middle>)
        out = put<q4_0>(r, c, s, 0, 8, out);
      else
        out = put<q4_1>(r, c, s, -static_cast<float>(zeros_(r, g)) * s, 0, out);
    }
  }

 private:
  void read(dtype product, std::int64_t r, std::int64_t first, std::int64_t n, float* out) const noexcept {
    for (std::int64_t c = first; c < first + n;) {
      const std::int64_t g = c / scales_.group, end = std::min(first + n, (g + 1) * scales_.group);
      const float s = scales_(r, g);
      const int zero = zeros_(r, g);
      for (; c < end; ++c) *out++ = rounded_to(product, static_cast<float>(codes_(r, c) - zero) * s);
    }
  }
  template <class F>
  std::byte* put(std::int64_t r, std::int64_t c, float scale, float offset, int centre,
                 std::byte* out) const noexcept {
    typename F::block b{};
    F::set_scale(b, scale);
    if constexpr (F::layout.has_offset) F::set_offset(b, offset);
    for (int i = 0; i < F::layout.elements; ++i) F::set_code(b, i, codes_(r, c + i) - centre);
    std::memcpy(out, &b, sizeof b);
    return out + sizeof b;
  }

  int bits_;
  Codes codes_;
  Zeros zeros_;
  scale_layout scales_;
  dtype product_;
};

template <class Codes, class Zeros>
matrix_ptr make(const weight_place& w, Codes codes, Zeros zeros, const scale_layout& scales,
                std::initializer_list<const checkpoint::place*> tensors) {
  const dtype product = w.scheme->rounds ? scales.type : dtype::f32;
  return std::make_unique<integer_matrix<Codes, Zeros>>(w.cols, w.scheme->bits, codes, zeros, scales, product,
                                                        tensors);
}

constexpr std::initializer_list<dtype> scale_types = {dtype::bf16, dtype::f16, dtype::f32};

/// Columns per scale; a group must divide the columns.
result<std::int64_t> group_of(const weight_place& w) {
  if (w.scheme->scales != sharing::group) return std::max<std::int64_t>(w.cols, 1);
  if (w.cols % w.scheme->group)
    return error{w.source.directory().string() + ": tensor " + text::in_quotes(w.name()) + ": groups of " +
                 std::to_string(w.scheme->group) + " (" + w.scheme->where + ") do not divide " +
                 std::to_string(w.cols) + " columns"};
  return w.scheme->group;
}

/// g_idx says which group an input belongs to; only the natural order has a place in blocks.
result<void> check_order(const weight_place& w, const char* suffix, std::int64_t group) {
  const auto* p = w.find(suffix);
  if (!p) return {};
  const auto& t = *p->tensor;
  if (t.type != dtype::i32 || t.shape != std::vector{w.cols})
    return error{describe(*p) + ": " + std::string(to_string(t.type)) + " " + t.shape_text() +
                 ", expected I32 " + dimensions({w.cols})};
  for (std::int64_t c = 0; c < w.cols; ++c)
    if (word_at(t.bytes.data(), c) != static_cast<std::uint32_t>(c / group))
      return error{describe(*p) +
                   ": the columns are in the order of activations (desc_act, actorder): group " +
                   std::to_string(word_at(t.bytes.data(), c)) + " at column " + std::to_string(c) +
                   " where blocks of columns need " + std::to_string(c / group) + "; this is not supported"};
  return {};
}

/// [rows, groups], [rows, 1] or one scale.
result<const checkpoint::place*> compressed_scales(const weight_place& w, std::int64_t group,
                                                   scale_layout& out) {
  const auto how = w.scheme->scales;
  const std::int64_t groups = how == sharing::group ? w.cols / group : 1;
  const auto* p = w.find(".weight_scale");
  const bool scalar = how == sharing::tensor && p && p->tensor->shape.empty();
  auto found = w.need(".weight_scale", scale_types,
                      scalar                   ? std::vector<std::int64_t>{}
                      : how == sharing::tensor ? std::vector<std::int64_t>{1}
                                               : std::vector{w.rows, groups});
  if (!found) return found;
  if (how == sharing::block)
    return error{describe(**found) + ": integers with scales per block (" + w.scheme->where +
                 ") are not supported"};
  out = {(*found)->tensor->type, (*found)->tensor->bytes.data(), how == sharing::tensor ? 0 : groups, 1,
         group};
  return found;
}

result<void> check_shape_tensor(const weight_place& w) {
  const auto* p = w.find(".weight_shape");
  if (!p) return {};
  const auto& t = *p->tensor;
  std::array<std::int64_t, 2> said{};
  if ((t.type != dtype::i64 && t.type != dtype::i32) || t.shape != std::vector<std::int64_t>{2})
    return error{describe(*p) + ": " + std::string(to_string(t.type)) + " " + t.shape_text() +
                 ", expected I64 [2]"};
  for (std::size_t i = 0; i < 2; ++i) {
    if (t.type == dtype::i64)
      std::memcpy(&said[i], t.bytes.data() + 8 * i, 8);
    else
      said[i] = static_cast<std::int32_t>(word_at(t.bytes.data(), static_cast<std::int64_t>(i)));
  }
  if (said != std::array{w.rows, w.cols})
    return error{describe(*p) + ": says " + dimensions({said[0], said[1]}) + " where config.json implies " +
                 dimensions({w.rows, w.cols})};
  return {};
}

std::int64_t words_for(std::int64_t n, int bits) { return (n + 32 / bits - 1) / (32 / bits); }

template <class Codes>
result<matrix_ptr> with_zero_points(const weight_place& w, const Codes& codes,
                                    const checkpoint::place* weights) {
  const auto group = group_of(w);
  if (!group) return group.error();
  for (const char* suffix : {".weight_g_idx", ".g_idx"})
    if (auto ok = check_order(w, suffix, *group); !ok) return ok.error();
  scale_layout scales{};
  const auto scale = compressed_scales(w, *group, scales);
  if (!scale) return scale.error();
  const auto* shape = w.find(".weight_shape");
  const auto* zero = w.find(".weight_zero_point");
  const int half = 1 << (w.scheme->bits - 1);
  if (w.scheme->symmetric) {
    if (zero) return error{describe(*zero) + ": zero points where " + w.scheme->where + " says symmetric"};
    return make(w, codes, middle{half}, scales, {weights, *scale, shape});
  }
  if (!zero)
    return error{describe(*weights) + ": no zero points (" +
                 text::in_quotes(w.module + ".weight_zero_point") + ") where " + w.scheme->where +
                 " says asymmetric"};
  const std::int64_t groups = w.scheme->scales == sharing::group ? w.cols / *group : 1;
  if (w.scheme->scales == sharing::tensor)
    return error{describe(*zero) + ": zero points per tensor (" + w.scheme->where + ") are not supported"};
  if (zero->tensor->type == dtype::i8) {
    const auto plain = w.need(".weight_zero_point", {dtype::i8}, {w.rows, groups});
    if (!plain) return plain.error();
    return make(w, codes, signed_bytes{zero->tensor->bytes.data(), groups, w.scheme->bits}, scales,
                {weights, *scale, zero, shape});
  }
  const auto packed = w.need(".weight_zero_point", {dtype::i32}, {words_for(w.rows, w.scheme->bits), groups});
  if (!packed) return packed.error();
  return make(w, codes, packed_columns{zero->tensor->bytes.data(), groups, w.scheme->bits}, scales,
              {weights, *scale, zero, shape});
}

/// True if every zero point is the middle of the codes.
template <class Zeros>
bool all_centred(const weight_place& w, const Zeros& zeros, std::int64_t groups, int half) {
  for (std::int64_t g = 0; g < groups; ++g)
    for (std::int64_t r = 0; r < w.rows; ++r)
      if (zeros(r, g) != half) return false;
  return true;
}

/// GPTQ and AWQ: inputs run down, zero points and scales are [groups, rows].
template <class Codes, class Zeros>
result<matrix_ptr> with_rows_across(const weight_place& w, const Codes& codes, const Zeros& zeros,
                                    std::int64_t group, const checkpoint::place* weights,
                                    const checkpoint::place* zero) {
  const auto scale = w.need(".scales", scale_types, {w.cols / group, w.rows});
  if (!scale) return scale.error();
  const scale_layout scales{(*scale)->tensor->type, (*scale)->tensor->bytes.data(), 1, w.rows, group};
  const auto *order = w.find(".g_idx"), *bias = w.find(".bias");
  if (bias) return error{describe(*bias) + ": biases of quantized layers are not supported"};
  const int half = 1 << (w.scheme->bits - 1);
  if (!w.scheme->symmetric) return make(w, codes, zeros, scales, {weights, *scale, zero, order});
  if (!all_centred(w, zeros, w.cols / group, half))
    return error{describe(*zero) + ": a zero point is not " + std::to_string(half) + " where " +
                 w.scheme->where + " says symmetric"};
  return make(w, codes, middle{half}, scales, {weights, *scale, zero, order});
}

}  // namespace

result<matrix_ptr> read_integer_matrix(const weight_place& w) {
  const int bits = w.scheme->bits;
  const std::int64_t words = words_for(w.cols, bits);
  const auto weights = w.need(".weight_packed", {dtype::i32}, {w.rows, words});
  if (!weights) return weights.error();
  if (auto ok = check_shape_tensor(w); !ok) return ok.error();
  return with_zero_points(w, packed_rows{(*weights)->tensor->bytes.data(), words, bits}, *weights);
}

result<matrix_ptr> read_plain_integer_matrix(const weight_place& w) {
  const auto weights = w.need(".weight", {dtype::i8}, {w.rows, w.cols});
  if (!weights) return weights.error();
  if (w.scheme->bits != 8)
    return error{describe(**weights) + ": type I8 where " + w.scheme->where + " says " +
                 std::to_string(w.scheme->bits) + " bits"};
  return with_zero_points(w, signed_bytes{(*weights)->tensor->bytes.data(), w.cols, 8}, *weights);
}

result<matrix_ptr> read_gptq_matrix(const weight_place& w) {
  const int bits = w.scheme->bits, per_word = 32 / bits;
  const auto group = group_of(w);
  if (!group) return group.error();
  if (w.rows % per_word || w.cols % per_word)
    return error{w.source.directory().string() + ": tensor " + text::in_quotes(w.module + ".qweight") + ": " +
                 dimensions({w.rows, w.cols}) + " is no multiple of " + std::to_string(per_word) +
                 ", as GPTQ packs"};
  const auto weights = w.need(".qweight", {dtype::i32}, {w.cols / per_word, w.rows});
  if (!weights) return weights.error();
  const auto zero = w.need(".qzeros", {dtype::i32}, {w.cols / *group, w.rows / per_word});
  if (!zero) return zero.error();
  if (auto ok = check_order(w, ".g_idx", *group); !ok) return ok.error();
  const transposed<packed_columns> codes{{(*weights)->tensor->bytes.data(), w.rows, bits}};
  const shifted<transposed<packed_rows>> zeros{
      {{(*zero)->tensor->bytes.data(), w.rows / per_word, bits}}, w.scheme->zeros_minus_one ? 1 : 0, bits};
  return with_rows_across(w, codes, zeros, *group, *weights, *zero);
}

result<matrix_ptr> read_awq_matrix(const weight_place& w) {
  const auto group = group_of(w);
  if (!group) return group.error();
  if (w.rows % 8)
    return error{w.source.directory().string() + ": tensor " + text::in_quotes(w.module + ".qweight") + ": " +
                 std::to_string(w.rows) + " rows are no multiple of 8, as AWQ packs"};
  const auto weights = w.need(".qweight", {dtype::i32}, {w.cols, w.rows / 8});
  if (!weights) return weights.error();
  const auto zero = w.need(".qzeros", {dtype::i32}, {w.cols / *group, w.rows / 8});
  if (!zero) return zero.error();
  return with_rows_across(w, interleaved_columns{(*weights)->tensor->bytes.data(), w.rows / 8},
                          interleaved_columns{(*zero)->tensor->bytes.data(), w.rows / 8}, *group, *weights,
                          *zero);
}

}  // namespace quantal::hf
