// Which tensors need importance data, and which have it. quantal-quantize plans with it and quantal-imatrix --check reports it,
// so that both say the same.
#pragma once

#include <cstdint>
#include <string>

#include "mixes.hpp"
#include "quantal/gguf/model_view.hpp"
#include "quantal/imatrix/model.hpp"

namespace quantal::plan {

/// Which tensors must have importance data: every quantized one, those of very low-bit types, or none.
enum class requirement : std::uint8_t { all, lowbit, none };

/// Where a tensor's importance comes from; the weights themselves are looked up again when they are needed.
struct importance_note {
  imatrix::source from = imatrix::source::none;
  std::string detail;
  std::int64_t vectors = 0, unseen = 0;
};

/// Why a tensor may go without data.
enum class exemption : std::uint8_t {
  no,
  lookup,     ///< embeddings: rows are read, nothing is multiplied
  output,     ///< output.weight: collected on request only
  unreached,  ///< blocks for next-token prediction: no forward pass runs them
};
exemption exemption_of(const std::string& tensor_name, const model_traits& model);

/// Whether a format's quality collapses without data. q2_K does in Q2_K_S, the mix that has little else.
bool needs_importance(const format_info& format, const file_type& type, dialect family);

/// Importance of one tensor. Data that does not fit is an error except for embeddings, which need none.
result<importance_note> find_importance(const gguf::model_view& model, const gguf::tensor_info& t,
                                        const imatrix::store& s, const imatrix::model_shape& shape);

/// What a tensor that no pass reaches gets instead of a format that needs data.
const format_info& safe_format();

}  // namespace quantal::plan
