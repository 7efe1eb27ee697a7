// A matrix of a checkpoint as the floats it stands for, however it is stored.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint.hpp"
#include "quantization.hpp"
#include "stored_numbers.hpp"

namespace quantal::hf {

class stored_matrix {
 public:
  virtual ~stored_matrix() = default;
  stored_matrix(const stored_matrix&) = delete;
  stored_matrix& operator=(const stored_matrix&) = delete;

  std::int64_t cols() const noexcept { return cols_; }
  /// Floats of columns [first, first + n) of a row. Several threads may read at once.
  virtual void decode(std::int64_t row, std::int64_t first, std::int64_t n, float* out) const noexcept = 0;
  float at(std::int64_t row, std::int64_t col) const noexcept {
    float v;
    decode(row, col, 1, &v);
    return v;
  }

  /// All floats of a row as codes and scales say, where decode() rounds products as the checkpoint's own
  /// library does; without tensor_scale().
  virtual void exact_row(std::int64_t row, float* out) const noexcept { decode(row, 0, cols_, out); }

  /// The GGUF type that holds the weights as they are, or with no more than a scale rounded; bf16 if there is
  /// none.
  virtual std::uint32_t natural_type() const noexcept { return bf16::gguf_id; }
  /// A row in that type; for natural types other than bf16, f16 and f32.
  virtual void encode(std::int64_t, std::byte*) const noexcept {}
  /// The bytes of a row if they are those of the natural type, else null.
  virtual const std::byte* stored_row(std::int64_t) const noexcept { return nullptr; }
  /// What encoded weights are to be multiplied by (nvfp4).
  virtual float tensor_scale() const noexcept { return 1; }
  /// What divides the inputs of FP4 products (nvfp4); 0 if the checkpoint does not say.
  virtual float input_scale() const noexcept { return 0; }
  /// The weights are more precise than bf16 and not quantized.
  virtual bool is_wide() const noexcept { return false; }

  /// The bytes in mapped files, to be given back after reading.
  const std::vector<std::span<const std::byte>>& bytes() const noexcept { return bytes_; }
  /// The names of all tensors that make up the matrix.
  const std::vector<std::string>& names() const noexcept { return names_; }

 protected:
  explicit stored_matrix(std::int64_t cols) noexcept : cols_(cols) {}
  const std::byte* use(const stored_tensor& t) {
    bytes_.push_back(t.bytes);
    names_.push_back(t.name);
    return t.bytes.data();
  }

 private:
  std::int64_t cols_;
  std::vector<std::span<const std::byte>> bytes_;
  std::vector<std::string> names_;
};

/// What a stored tensor must be: a matrix, or as many as there are slices behind one another.
struct matrix_shape {
  std::int64_t rows, cols;  ///< of a slice
  std::int64_t slices = 1;

  std::int64_t all_rows() const noexcept { return slices * rows; }
};

using matrix_ptr = std::unique_ptr<const stored_matrix>;

/// Where a weight is looked for.
struct weight_place {
  const checkpoint& source;
  std::string module;           ///< "model.layers.0.self_attn.o_proj"
  std::int64_t rows, cols;      ///< rows of all slices
  const weight_scheme* scheme;  ///< of config.json, or null
  std::int64_t slices = 1;

  std::string name() const { return module + ".weight"; }
  std::vector<std::int64_t> stored_shape() const;
  const checkpoint::place* find(const char* suffix) const { return source.find(module + suffix); }
  /// The tensor with this suffix, of one of these types and this shape.
  result<const checkpoint::place*> need(const char* suffix, std::initializer_list<dtype> types,
                                        const std::vector<std::int64_t>& shape) const;
};

/// Finds the weight `name` ("X.weight", or a vector of another name) however it is stored: as floats; fp8,
/// packed integers, 4-bit floats, GPTQ or AWQ with their scales. Errors name the file and the tensor:
/// missing, another shape, a type that holds no weights, missing or wrong scales, a contradiction to
/// config.json. A vector is a matrix of one row; rows are counted through all slices.
result<matrix_ptr> find_matrix(const checkpoint& c, const quantization& q, const std::string& name,
                               const matrix_shape& shape);

/// Readers of the single codings; used by find_matrix.
result<matrix_ptr> read_fp8_matrix(const weight_place& w, const checkpoint::place& weights);
result<matrix_ptr> read_integer_matrix(const weight_place& w);
result<matrix_ptr> read_plain_integer_matrix(const weight_place& w);
result<matrix_ptr> read_gptq_matrix(const weight_place& w);
result<matrix_ptr> read_awq_matrix(const weight_place& w);
/// Packed in `weights`; scales beside them.
result<matrix_ptr> read_fp4_matrix(const weight_place& w, const checkpoint::place& weights);
/// Slices of packed codes in X_blocks, groups of 32 in a dimension of their own; exponents in X_scales.
result<matrix_ptr> read_mxfp4_slices(const weight_place& w);

/// "[256, 128]".
std::string dimensions(const std::vector<std::int64_t>& shape);

}  // namespace quantal::hf
