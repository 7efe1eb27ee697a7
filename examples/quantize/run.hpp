// quantal-quantize behind its command line: reads, plans, converts, writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "file_plan.hpp"
#include "plan.hpp"
#include "sequential.hpp"

namespace quantal::plan {

struct run_options {
  std::filesystem::path in, out;
  std::string type;     ///< name or number of a file type
  std::string imatrix;  ///< file, or empty
  std::string hessian;  ///< file of second moments, or empty
  std::vector<std::string> rules;
  std::vector<std::string> rule_files;
  std::string token_embedding_type, output_type;
  std::string required = "lowbit";  ///< all, lowbit, none
  std::string types = "auto";       ///< auto, llama.cpp, ik, all
  bool pure = false, dry_run = false, keep_split = false, allow_requantize = false, leave_output = false,
       json = false, quiet = false, strict = false;
  double target_bpw = 0;          ///< 0: types come from the mix; else from an allocation (allocate.hpp)
  std::uint64_t target_size = 0;  ///< the same, for bytes of the output
  std::string sensitivity;        ///< file of a study, or empty
  bool lattice = false;           ///< tensors on a lattice get the type that holds it
  std::string target_types;       ///< candidates, comma-separated; empty: the default ones
  int threads = 0;                ///< 0: all
  sequential_options sequential;  ///< codes are chosen in the order of the model, on its text
};

/// Type, rules and tensor options, checked. Errors name the option, or the file and the line of a rule.
result<type_options> read_type_options(const run_options& options);

/// What --require-imatrix says.
requirement required_of(const run_options& options);

/// What --imatrix names, or nothing.
result<std::optional<imatrix::store>> load_statistics(const run_options& options);

/// The files that the options name as inputs, for checks of outputs.
file_plan inputs_of(const run_options& options);

/// Everything that can be refused is refused before the output is created; a failure later leaves no output
/// behind.
result<void> run(const run_options& options);

/// Decides the files of the output when the plan is known. With several files a tensor goes to the one that
/// its `shard` counts.
using placement = std::function<result<std::vector<std::filesystem::path>>(const model_plan&)>;

/// As above for a model of any origin; options.in and options.keep_split only show in reports, and there is no sequential run.
result<void> run(const gguf::model_view& model, const run_options& options, const placement& place,
                 sequential_run* sequential = nullptr);

}  // namespace quantal::plan
