// An importance matrix from a GGUF model and a text, in one call.
#pragma once

#include <cstdint>
#include <filesystem>

#include "quantal/result.hpp"

namespace quantal::hf {

struct importance_job {
  std::filesystem::path model, text, out;
  std::int64_t context = 512;
  std::int64_t chunks = 0;  ///< 0: all
  int threads = 0;          ///< 0: all
};

/// Runs the model over the text and writes `out`; progress on stderr. Errors name the file and the cause.
result<void> collect_importance(const importance_job& job);

}  // namespace quantal::hf
