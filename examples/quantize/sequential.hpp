// quantal-quantize --sequential: a model is quantized in the order in which a token goes through it. Every tensor's codes are
// chosen for the inputs that it gets from what is quantized already, and aim at the outputs of the model as it was.
//
// A text goes through both models side by side, one block in memory at a time. In a block the tensors that share inputs make
// a stage: the inputs of both models are collected, the stage's tensors are quantized, and the next stage meets the result.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "paired_moments.hpp"
#include "plan.hpp"
#include "quantal/executor.hpp"
#include "quantal/gguf/tensor_scale.hpp"

namespace quantal::plan {

struct sequential_options {
  std::filesystem::path text;  ///< empty: no sequential run
  std::int64_t context = 512, chunks = 0, from_chunk = 0;
  std::int64_t ram = 0;  ///< GiB that a run may take; 0: what is available
  std::int64_t limit =
      1024;  ///< MiB for the moments of one tensor; experts or heads that need more share them

  explicit operator bool() const noexcept { return !text.empty(); }
  /// What files call the text.
  std::string dataset() const { return text.filename().string().substr(0, 127); }
};

/// A tensor as it was quantized. The bytes stay where they are.
struct converted {
  std::span<const std::byte> bytes;
  gguf::tensor_scale scale;
};

/// Quantizes the tensor of a step, with moments of its inputs if there are any.
using step_converter = std::function<result<converted>(std::size_t step, const paired_moments* inputs)>;

/// The models and the text of a run.
class sequential_run {
 public:
  /// Errors name the file and what is wrong with it; a model that has no forward pass here is one.
  static result<sequential_run> open(const std::filesystem::path& model, const sequential_options& o);
  sequential_run(sequential_run&&) noexcept;
  ~sequential_run();

  /// Does the run learn the inputs of this tensor before it is quantized?
  bool meets(std::string_view tensor) const;
  /// "24 chunks of 512 tokens of FILE"
  std::string describe() const;
  /// Converts every step of the plan once, in the order of the model. `scratch`: folder of temporary files.
  result<void> run(const model_plan& plan, const std::filesystem::path& scratch, executor_ref threads,
                   const step_converter& convert);

 private:
  struct state;
  explicit sequential_run(std::unique_ptr<state> s) noexcept;
  std::unique_ptr<state> s_;
};

}  // namespace quantal::plan
