// Arguments of the matrix products. Shapes use ggml's terms: a weight matrix has `rows` rows (ne1) of `cols`
// weights (ne0); activations are float32 vectors of `cols` values; each product yields `rows` values.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quantal {

/// What the activations become before they meet the weights.
enum class activation : std::uint8_t {
  exact,  ///< stay float32; weights are decoded to float32. Error: float32 summation only.
  /// rounded to int8 with a scale per block; integer dot products. Normalised MSE <= 5e-5. With bfloat16
  /// weights and six columns or more, on cores that multiply pairs of bfloat16: rounded to bfloat16, <= 5e-6;
  /// with other float weights as `exact`.
  q8,
};

/// Results may share no memory with weights, activations, ids or the workspace (status::overlap). A stride
/// between fewer than two things has no meaning.
///
/// out[t * out_stride + r] = sum_c W[r][c] * activations[t * activation_stride + c]
struct mul_mat_args {
  const std::byte* weights;        ///< row 0
  std::int64_t rows, cols;         ///< cols: a multiple of the format's block
  std::int64_t weight_row_stride;  ///< bytes between rows, >= row_bytes(cols)
  const float* activations;
  std::int64_t n;                  ///< number of activation vectors (tokens); 0 is allowed
  std::int64_t activation_stride;  ///< floats between activation vectors
  float* out;
  std::int64_t out_stride;  ///< floats between result vectors, >= rows
};

/// Indirect product (mixture of experts): token t, slot j uses the matrix of expert ids[t * ids_stride + j]:
/// out[t * out_token_stride + j * out_slot_stride + r] =
///     sum_c W[expert][r][c] * activations[t * token_stride + j * slot_stride + c]
struct mul_mat_id_args {
  const std::byte* weights;
  std::int64_t experts, rows, cols;
  std::int64_t weight_row_stride;  ///< bytes between rows
  std::int64_t expert_stride;      ///< bytes between experts
  const float* activations;
  std::int64_t tokens;
  std::int64_t token_stride,
      slot_stride;  ///< floats; slot_stride 0: all slots share the token's vector; else >= cols
  const std::int32_t* ids;
  std::int64_t used;        ///< slots per token
  std::int64_t ids_stride;  ///< ids between tokens
  float* out;
  std::int64_t out_token_stride, out_slot_stride;  ///< floats
};

}  // namespace quantal
