// quantal-convert behind its command line: a checkpoint directory to a GGUF, quantized on the way or not.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "run.hpp"

namespace quantal::hf {

struct convert_options {
  /// `in`: the checkpoint directory. `type`: empty for bf16.
  plan::run_options quantize;
  std::string layout = "3d";         ///< 3d, 2d, 2d+kv_b
  std::string name;                  ///< general.name; empty: the directory's
  std::uint64_t split_max_size = 0;  ///< bytes of tensor data per file; 0: one file
  /// Text to collect an importance matrix from: the model is converted to a temporary q8_0 file, run over the
  /// text, and then quantized from the checkpoint. The matrix stays beside the output as OUT.imatrix.gguf.
  std::string imatrix_text;
  std::int64_t imatrix_context = 512, imatrix_chunks = 0;
};

/// "50G", "800M", "1000K" or bytes; thousands, as in llama.cpp's splitter.
result<std::uint64_t> parse_size(std::string_view text);

/// Everything that can be refused is refused before the output is created; a failure later leaves none
/// behind.
result<void> convert(const convert_options& options);

}  // namespace quantal::hf
