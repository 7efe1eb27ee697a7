// Arguments of pack() and of products with what it made.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quantal {

namespace kernel {
struct weight_format;
}

/// One matrix, or a stack of matrices of one shape (the experts of mul_mat_id), as GGUF stores them.
struct pack_args {
  const std::byte* weights;        ///< row 0 of the first matrix
  std::int64_t experts;            ///< matrices in the stack; 1 for mul_mat
  std::int64_t rows, cols;         ///< cols: a multiple of the format's block
  std::int64_t weight_row_stride;  ///< bytes between rows, >= row_bytes(cols)
  std::int64_t expert_stride;  ///< bytes between matrices, >= rows * weight_row_stride if there are several
};

/// Packed weights whose format and arch are known at run time only: a view of the memory given to pack(),
/// which must outlive it and stay where it is. See packed_matrix for the view that has both in its type.
struct packed_weights {
  const kernel::weight_format* format = nullptr;  ///< of the format and arch that packed
  const std::byte* data = nullptr;
  std::int64_t experts = 0, rows = 0, cols = 0;
};

}  // namespace quantal
