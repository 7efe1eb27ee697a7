// quantal-quantize behind its command line: reads, plans, converts, writes.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "quantal/result.hpp"

namespace quantal::plan {

struct run_options {
  std::filesystem::path in, out;
  std::string type;     ///< name or number of a file type
  std::string imatrix;  ///< file, or empty
  std::vector<std::string> rules;
  std::vector<std::string> rule_files;
  std::string token_embedding_type, output_type;
  std::string required = "lowbit";  ///< all, lowbit, none
  bool pure = false, dry_run = false, keep_split = false, allow_requantize = false, leave_output = false,
       json = false;
  int threads = 0;  ///< 0: all
};

/// Everything that can be refused is refused before the output is created; a failure later leaves no output
/// behind.
result<void> run(const run_options& options);

}  // namespace quantal::plan
