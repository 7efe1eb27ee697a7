#include "output.hpp"

#include "shard_name.hpp"
#include "text.hpp"

namespace quantal::plan {
namespace {

namespace fs = std::filesystem;

/// "dir/name" of "dir/name.gguf" and of "dir/name-00001-of-00003.gguf".
std::string shard_prefix(const fs::path& out) {
  const std::string path = out.string();
  if (const auto shard = parse_shard_name(path)) return shard->prefix;
  return path.ends_with(".gguf") ? path.substr(0, path.size() - 5) : path;
}

std::string cut(const std::string& s) { return s.substr(0, 127); }

void set_split_keys(gguf::metadata& meta, std::size_t shard, std::size_t shards, std::size_t tensors) {
  meta.set("split.no", static_cast<std::uint16_t>(shard));
  meta.set("split.count", static_cast<std::uint16_t>(shards));
  meta.set("split.tensors.count", static_cast<std::int32_t>(tensors));
}

/// Metadata and tensors of one file.
struct file_content {
  gguf::metadata meta;
  std::vector<gguf::tensor_info> tensors;
};

file_content content_of(std::size_t shard, std::size_t shards, const gguf::metadata& meta,
                        const model_plan& plan) {
  file_content c;
  for (const auto& s : plan.steps)
    if (shards == 1 || s.shard() == static_cast<int>(shard))
      c.tensors.push_back(*s.tensor), c.tensors.back().type = s.to.type;
  if (shard == 0) c.meta = meta;
  if (shards > 1) set_split_keys(c.meta, shard, shards, plan.steps.size());
  return c;
}

}  // namespace

std::vector<fs::path> shard_paths(const fs::path& out, int n) {
  return n == 1 ? std::vector<fs::path>{out} : shard_files(shard_prefix(out), n);
}

gguf::metadata output_metadata(const gguf::model_view& model, const file_type& type,
                               const std::optional<imatrix_note>& note, const std::string& hessian) {
  gguf::metadata meta = model.meta();
  for (const char* key : {"split.no", "split.count", "split.tensors.count"}) meta.erase(key);
  if (type.is_copy()) return meta;
  meta.set("general.quantization_version", std::uint32_t{2});
  meta.set("general.file_type", type.id);
  if (!hessian.empty()) meta.set("quantize.hessian.file", cut(hessian));
  if (!note) return meta;
  meta.set("quantize.imatrix.file", cut(note->file));
  meta.set("quantize.imatrix.dataset", cut(note->dataset));
  meta.set("quantize.imatrix.entries_count", static_cast<std::uint32_t>(note->entries));
  meta.set("quantize.imatrix.chunks_count", static_cast<std::uint32_t>(note->chunks));
  return meta;
}

result<output> output::create(const std::vector<fs::path>& paths, const gguf::metadata& meta,
                              const model_plan& plan) {
  output out;
  for (std::size_t shard = 0; shard < paths.size(); ++shard) {
    auto c = content_of(shard, paths.size(), meta, plan);
    auto w = gguf::writer::create(paths[shard], c.meta, std::move(c.tensors));
    if (!w) return w.error();
    out.writers_.push_back(std::move(*w));
  }
  return out;
}

result<std::uint64_t> output_bytes(const std::vector<fs::path>& paths, const gguf::metadata& meta,
                                   const model_plan& plan) {
  std::uint64_t bytes = 0;
  for (std::size_t shard = 0; shard < paths.size(); ++shard) {
    auto c = content_of(shard, paths.size(), meta, plan);
    const auto n = gguf::writer::file_bytes(paths[shard], c.meta, std::move(c.tensors));
    if (!n) return n.error();
    bytes += *n;
  }
  return bytes;
}

result<void> output::append(const step& s, std::span<const std::byte> bytes) {
  return writers_[writers_.size() == 1 ? 0 : static_cast<std::size_t>(s.shard())].append(bytes);
}

result<void> output::finish() { return gguf::writer::finish_all(writers_); }

}  // namespace quantal::plan
