// The files that a plan writes: one merged file or the shards of the input, all visible only when all are
// complete.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "plan.hpp"
#include "quantal/gguf/reader.hpp"
#include "quantal/gguf/writer.hpp"

namespace quantal::plan {

/// What metadata says about the imatrix.
struct imatrix_note {
  std::string file, dataset;
  std::int64_t entries = 0, chunks = 0;
};

/// PREFIX-00001-of-0000N.gguf and so on for n > 1 files, `out` itself for one.
std::vector<std::filesystem::path> shard_paths(const std::filesystem::path& out, int n);

/// Metadata of the merged file: the input's without the split keys, with type, version, imatrix notes and the file of second moments
/// (empty: none).
gguf::metadata output_metadata(const gguf::model_view& model, const file_type& type,
                               const std::optional<imatrix_note>& note, const std::string& hessian);

/// Bytes of the files that output::create() with the same arguments begins.
result<std::uint64_t> output_bytes(const std::vector<std::filesystem::path>& paths,
                                   const gguf::metadata& meta, const model_plan& plan);

class output {
 public:
  /// Opens every file and writes its header.
  static result<output> create(const std::vector<std::filesystem::path>& paths, const gguf::metadata& meta,
                               const model_plan& plan);
  /// Next bytes of the tensor of `s`; tensors come in the order of the plan.
  result<void> append(const step& s, std::span<const std::byte> bytes);
  /// Makes every file visible, or on failure none; files that they replace are put back then.
  result<void> finish();

 private:
  output() = default;
  std::vector<gguf::writer> writers_;
};

}  // namespace quantal::plan
