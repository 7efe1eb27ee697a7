#include "hf_model.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <unordered_set>

#include "file.hpp"
#include "quantal/quantize/quantize.hpp"
#include "text.hpp"
#include "vocabulary.hpp"

namespace quantal::hf {
namespace {

/// The stored matrices of one tensor while its rows are read. Afterwards their pages are given back: a
/// checkpoint is read once, and memory stays small whatever its size.
class lease {
 public:
  explicit lease(std::vector<stored_matrix> parts) : parts_(std::move(parts)) {}
  lease(const lease&) = delete;
  lease& operator=(const lease&) = delete;
  ~lease() {
    for (const auto& p : parts_) release(p.bytes());
  }
  const std::vector<stored_matrix>& parts() const noexcept { return parts_; }

 private:
  /// Whole pages only; the file keeps their content.
  static void release(std::span<const std::byte> bytes) {
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto begin = (reinterpret_cast<std::uintptr_t>(bytes.data()) + page - 1) / page * page;
    const auto end = reinterpret_cast<std::uintptr_t>(bytes.data() + bytes.size()) / page * page;
    if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  std::vector<stored_matrix> parts_;
};

/// A row of floats in the type of the output, which is bf16 or f32.
void encode(std::uint32_t type, const float* x, std::int64_t n, std::byte* out) noexcept {
  if (type == f32::gguf_id) {
    std::memcpy(out, x, static_cast<std::size_t>(n) * sizeof(float));
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const auto b = bf16::from_float(x[i]);
    std::memcpy(out + i * static_cast<std::int64_t>(sizeof b), &b, sizeof b);
  }
}

/// Makes the rows of one GGUF tensor.
class row_maker {
 public:
  row_maker(const mapped_tensor& t, std::uint32_t type, const mla::config& c,
            std::vector<stored_matrix> parts)
      : how_(t.how),
        type_(type),
        rows_(t.rows),
        cols_(t.out.cols()),
        shape_(c),
        lease_(std::make_shared<lease>(std::move(parts))) {}

  const std::byte* operator()(std::int64_t r, std::byte* scratch) const {
    const auto& parts = lease_->parts();
    if (how_ == assembly::keys) return key_row(parts[0], r, scratch);
    if (how_ == assembly::values)
      return row(parts[0], r / shape_.value * shape_.head_rows() + shape_.nope + r % shape_.value, scratch);
    return row(parts[static_cast<std::size_t>(r / rows_)], r % rows_, scratch);
  }

 private:
  /// As stored where that is the output's type already.
  const std::byte* row(const stored_matrix& m, std::int64_t r, std::byte* scratch) const {
    if (m.type() == dtype::bf16 && type_ == bf16::gguf_id) return m.stored_row(r);
    if (m.type() == dtype::f32 && type_ == f32::gguf_id) return m.stored_row(r);
    thread_local std::vector<float> x;
    x.resize(static_cast<std::size_t>(cols_));
    m.row(r, x.data());
    encode(type_, x.data(), cols_, scratch);
    return scratch;
  }
  /// Row c of head h of attn_k_b is column c of the head's first rows of kv_b_proj.
  const std::byte* key_row(const stored_matrix& kv_b, std::int64_t r, std::byte* scratch) const {
    const std::int64_t first = r / shape_.rank * shape_.head_rows(), c = r % shape_.rank;
    thread_local std::vector<float> x;
    x.resize(static_cast<std::size_t>(cols_));
    for (std::int64_t n = 0; n < shape_.nope; ++n) x[static_cast<std::size_t>(n)] = kv_b.at(first + n, c);
    encode(type_, x.data(), cols_, scratch);
    return scratch;
  }

  assembly how_;
  std::uint32_t type_;
  std::int64_t rows_, cols_;
  mla::up_projection_shape shape_;
  std::shared_ptr<const lease> lease_;
};

/// "mit" of a model card that begins with "---\nlicense: mit\n"; empty without one.
std::string license_of(const std::filesystem::path& directory) {
  const auto card = file::read_text(directory / "README.md");
  if (!card || !card->starts_with("---")) return {};
  const std::string_view front =
      std::string_view(*card).substr(0, std::min(card->find("\n---", 3), card->size()));
  const auto at = front.find("\nlicense:");
  if (at == std::string_view::npos) return {};
  const auto line = front.substr(at + 9, front.find('\n', at + 1) - at - 9);
  return std::string(text::trim(line));
}

std::string directory_name(const std::filesystem::path& directory) {
  std::error_code ignored;
  const auto whole = std::filesystem::weakly_canonical(directory, ignored);
  return whole.filename().string();
}

}  // namespace

const gguf::tensor_info* hf_model::find(std::string_view name) const {
  const auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

result<std::vector<stored_matrix>> hf_model::parts_of(const mapped_tensor& t) const {
  std::vector<stored_matrix> out;
  for (const auto& name : t.parts) {
    auto m = stored_matrix::find(source_, name, t.rows, t.cols, config_.fp8_block);
    if (!m) return m.error();
    out.push_back(std::move(*m));
  }
  return out;
}

result<gguf::row_source> hf_model::rows(const gguf::tensor_info& t) const {
  const auto it = by_name_.find(t.name);
  if (it == by_name_.end()) return error{path_ + ": no tensor " + text::in_quotes(t.name)};
  const auto& mapped = mapped_[it->second];
  auto parts = parts_of(mapped);
  if (!parts) return parts.error();
  return gguf::row_source(row_maker(mapped, t.type, config_.hyper, std::move(*parts)));
}

result<void> hf_model::take_tensors(const import_options& options) {
  mapped_ = map_tensors(config_, options.layout);
  std::size_t rounded = 0;
  for (const auto& m : mapped_) {
    const auto parts = parts_of(m);
    if (!parts) return parts.error();
    for (const auto& p : *parts)
      rounded += m.out.type == bf16::gguf_id && p.type() != dtype::bf16 && p.type() != dtype::f8_e4m3;
    auto t = m.out;
    if (options.full_precision) t.type = f32::gguf_id;
    const auto bytes = gguf::tensor_bytes(t.type, t.ne);
    if (!bytes) return error{path_ + ": tensor " + text::in_quotes(t.name) + ": its size overflows"};
    t.nbytes = *bytes;
    by_name_.emplace(t.name, tensors_.size());
    tensors_.push_back(std::move(t));
  }
  if (rounded && !options.full_precision)
    notices_.push_back(std::to_string(rounded) + " tensors stored as F16 or F32 are rounded to bf16");
  return {};
}

result<void> hf_model::check_leftovers() {
  std::unordered_set<std::string> used;
  for (const auto& m : mapped_)
    for (const auto& p : m.parts) used.insert(p), used.insert(p + "_scale_inv");
  std::size_t dropped = 0, left = 0;
  std::string first;
  for (const auto& p : source_.tensors()) {
    const auto& name = p.tensor->name;
    if (used.contains(name)) continue;
    if (is_dropped(name, config_)) {
      ++dropped;
      continue;
    }
    if (left++ == 0) first = describe(p);
  }
  if (left)
    return error{first + (left > 1 ? " and " + std::to_string(left - 1) + " more" : "") +
                 ": no place in a deepseek2 model with this config.json"};
  if (dropped)
    notices_.push_back(std::to_string(dropped) +
                       " tensors are left out: next-token prediction layers, rotary tables, tied output");
  if (!source_.unlisted().empty())
    notices_.push_back(std::to_string(source_.unlisted().size()) +
                       " tensors are in no index and ignored, the first is " +
                       text::in_quotes(source_.unlisted().front()));
  return {};
}

result<hf_model> hf_model::open(const std::filesystem::path& directory, const import_options& options) {
  auto config = read_config(directory);
  if (!config) return config.error();
  auto source = checkpoint::open(directory);
  if (!source) return source.error();
  hf_model m(std::move(*source));
  m.path_ = directory.string();
  m.config_ = std::move(*config);
  m.notices_ = m.config_.notices;
  if (auto ok = m.take_tensors(options); !ok) return ok.error();
  if (auto ok = m.check_leftovers(); !ok) return ok.error();
  double parameters = 0;  // attn_kv_b holds attn_k_b and attn_v_b once more
  for (const auto& t : m.tensors_)
    if (!t.name.ends_with("exp_probs_b.bias") && !t.name.ends_with("attn_kv_b.weight"))
      parameters += static_cast<double>(t.elements());
  m.meta_ = model_metadata(m.config_, options.layout,
                           {options.name.empty() ? directory_name(directory) : options.name,
                            license_of(directory), size_label(parameters)});
  if (auto ok = add_vocabulary(directory, m.config_, m.meta_, m.notices_); !ok) return ok.error();
  return m;
}

}  // namespace quantal::hf
