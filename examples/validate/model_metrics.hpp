// Perplexity and KL divergence of a model against its reference, where the model can run here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "gates.hpp"
#include "quantal/executor.hpp"
#include "quantal/gguf/reader.hpp"
#include "quantal/kernel/args.hpp"

namespace quantal::validate {

struct text_options {
  std::filesystem::path text;
  std::int64_t context = 512, chunks = 0;  ///< chunks: 0 = all
  activation policy = activation::exact;   ///< of the model; the reference is exact
};

struct model_comparison {
  metrics values;
  std::vector<std::string>
      notes;  ///< what is odd about the text, the models' metadata, or one against the other
};

/// Empty, or why the programs here cannot run this model.
std::string cannot_run(const gguf::reader& model);

/// ppl, ppl_ratio, kld, kld_99, same_top over the second half of every chunk: the numbers that quantal-perplexity gives,
/// whose reference distributions are rounded to 16 bits. Both models share the tokenizer of the reference. Errors: a
/// value that is not finite, with the chunk and the tensor.
result<model_comparison> compare_models(const std::filesystem::path& model,
                                        const std::filesystem::path& reference, const text_options& options,
                                        executor_ref threads);

}  // namespace quantal::validate
