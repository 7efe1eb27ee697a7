// Perplexity and KL divergence of a model against its reference, where the model can run here.
#pragma once

#include <cstdint>
#include <filesystem>

#include "gates.hpp"
#include "quantal/executor.hpp"
#include "quantal/gguf/reader.hpp"

namespace quantal::validate {

struct text_options {
  std::filesystem::path text;
  std::int64_t context = 512, chunks = 0;  ///< chunks: 0 = all
};

/// Empty, or why the programs here cannot run this model.
std::string cannot_run(const gguf::reader& model);

/// ppl, ppl_ratio, kld, kld_99, same_top over the second half of every chunk; the activations are rounded as
/// an engine rounds them. Both models share the tokenizer of the reference.
result<metrics> compare_models(const std::filesystem::path& model, const std::filesystem::path& reference,
                               const text_options& options, executor_ref threads);

}  // namespace quantal::validate
