#include "hf_model.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "file.hpp"
#include "quantal/format/mxfp4.hpp"
#include "quantal/format/nvfp4.hpp"
#include "quantal/format/q4_0.hpp"
#include "quantal/format/q4_1.hpp"
#include "quantal/format/q8_0.hpp"
#include "text.hpp"
#include "vocabulary.hpp"

namespace quantal::hf {
namespace {

/// The stored matrices of one tensor while its rows are read. Afterwards their pages are given back: a
/// checkpoint is read once, and memory stays small whatever its size.
class lease {
 public:
  explicit lease(std::vector<matrix_ptr> parts) : parts_(std::move(parts)) {}
  lease(const lease&) = delete;
  lease& operator=(const lease&) = delete;
  ~lease() {
    for (const auto& p : parts_)
      for (const auto b : p->bytes()) release(b);
  }
  const std::vector<matrix_ptr>& parts() const noexcept { return parts_; }

 private:
  /// Whole pages only; the file keeps their content.
  static void release(std::span<const std::byte> bytes) {
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto begin = (reinterpret_cast<std::uintptr_t>(bytes.data()) + page - 1) / page * page;
    const auto end = reinterpret_cast<std::uintptr_t>(bytes.data() + bytes.size()) / page * page;
    if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  std::vector<matrix_ptr> parts_;
};

/// A row of floats in the type of the output, which is bf16, f16 or f32.
void encode(std::uint32_t type, const float* x, std::int64_t n, std::byte* out) noexcept {
  if (type == f32::gguf_id) {
    std::memcpy(out, x, static_cast<std::size_t>(n) * sizeof(float));
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint16_t b =
        type == f16::gguf_id ? detail::float_to_half(x[i]) : detail::float_to_bfloat16(x[i]);
    std::memcpy(out + i * static_cast<std::int64_t>(sizeof b), &b, sizeof b);
  }
}

/// Where in the checkpoint element or row `i` of a tensor comes from; `head`: the width of a head, `rows`: those of a
/// stored slice.
std::int64_t source_of(order taken, std::int64_t i, std::int64_t head, std::int64_t rows) noexcept {
  switch (taken) {
    case order::rotary:
      return i / head * head + i % 2 * (head / 2) + i % head / 2;
    case order::even:
      return 2 * i;
    case order::odd:
      return 2 * i + 1;
    case order::first_half:
      return i / (rows / 2) * rows + i % (rows / 2);
    case order::second_half:
      return i / (rows / 2) * rows + rows / 2 + i % (rows / 2);
    default:
      return i;
  }
}

/// Makes the rows of one GGUF tensor.
class row_maker {
 public:
  row_maker(const mapped_tensor& t, const model_config& c, std::vector<matrix_ptr> parts)
      : how_(t.how),
        taken_(t.taken),
        plus_one_(t.plus_one),
        type_(t.out.type),
        part_(t.shape),
        cols_(t.out.cols()),
        head_(c.sizes[size::head]),
        shape_(c.hyper),
        lease_(std::make_shared<lease>(std::move(parts))) {}

  const std::byte* operator()(std::int64_t r, std::byte* scratch) const {
    if (how_ == assembly::scales || how_ == assembly::input_scales) return scale(scratch);
    if (const auto* same = stored(r, scratch)) return same;
    auto* x = floats(cols_);
    read(r, x, false);
    encode(type_, x, cols_, scratch);
    return scratch;
  }

  /// What the checkpoint says before anything is rounded.
  void exact(std::int64_t r, float* out) const { read(r, out, true); }

 private:
  static bool is_float_type(std::uint32_t type) {
    return type == f32::gguf_id || type == f16::gguf_id || type == bf16::gguf_id;
  }
  static float* floats(std::int64_t n) {
    thread_local std::vector<float> x;
    x.resize(static_cast<std::size_t>(n));
    return x.data();
  }
  const stored_matrix& only() const { return *lease_->parts()[0]; }
  bool takes_rows() const { return how_ != assembly::keys && how_ != assembly::transposed; }
  bool takes_elements() const { return how_ == assembly::vector && (taken_ != order::same || plus_one_); }

  /// The row in the tensor's type, if it is stored so or has an encoding of its own.
  const std::byte* stored(std::int64_t r, std::byte* scratch) const {
    if (!takes_rows() || takes_elements()) return nullptr;
    const auto [m, row] = place_of(r);
    if (m->natural_type() != type_) return nullptr;
    if (const auto* bytes = m->stored_row(row)) return bytes;
    if (is_float_type(type_)) return nullptr;
    m->encode(row, scratch);
    return scratch;
  }

  void read(std::int64_t r, float* out, bool exact) const {
    if (how_ == assembly::keys) return read_keys(r, out);
    if (how_ == assembly::transposed) return read_column(r, out);
    if (takes_elements()) return read_elements(r, out);
    const auto [m, row] = place_of(r);
    exact ? m->exact_row(row, out) : m->decode(row, 0, cols_, out);
  }

  std::pair<const stored_matrix*, std::int64_t> place_of(std::int64_t r) const {
    if (how_ == assembly::values)
      return {&only(), r / shape_.value * shape_.head_rows() + shape_.nope + r % shape_.value};
    if (how_ == assembly::stack)
      return {lease_->parts()[static_cast<std::size_t>(r / part_.rows)].get(), r % part_.rows};
    return {&only(), how_ == assembly::vector ? r : source_of(taken_, r, head_, part_.rows)};
  }
  /// The scales of all parts are the only row.
  const std::byte* scale(std::byte* scratch) const {
    std::size_t i = 0;
    for (const auto& p : lease_->parts()) {
      const float s = how_ == assembly::scales ? p->tensor_scale() : p->input_scale();
      std::memcpy(scratch + 4 * i++, &s, 4);
    }
    return scratch;
  }
  /// Row c of head h of attn_k_b is column c of the head's first rows of kv_b_proj.
  void read_keys(std::int64_t r, float* out) const {
    const std::int64_t first = r / shape_.rank * shape_.head_rows(), c = r % shape_.rank;
    for (std::int64_t n = 0; n < shape_.nope; ++n) out[n] = only().at(first + n, c);
  }
  /// A column of the slice that it lies in.
  void read_column(std::int64_t r, float* out) const {
    const std::int64_t all = source_of(taken_, r, head_, part_.cols), first = all / part_.cols * part_.rows;
    for (std::int64_t n = 0; n < cols_; ++n) out[n] = only().at(first + n, all % part_.cols);
  }
  void read_elements(std::int64_t r, float* out) const {
    const float more = plus_one_ ? 1.0f : 0.0f;
    for (std::int64_t c = 0; c < cols_; ++c)
      out[c] = only().at(r, source_of(taken_, c, head_, part_.cols)) + more;
  }

  assembly how_;
  order taken_;
  bool plus_one_;
  std::uint32_t type_;
  matrix_shape part_;
  std::int64_t cols_, head_;
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

result<std::vector<matrix_ptr>> hf_model::parts_of(const mapped_tensor& t) const {
  std::vector<matrix_ptr> out;
  for (const auto& name : t.parts) {
    auto m = find_matrix(source_, config_.quantized, name, t.shape);
    if (!m) return m.error();
    out.push_back(std::move(*m));
  }
  return out;
}

result<gguf::row_source> hf_model::rows(const gguf::tensor_info& t) const {
  const auto it = by_name_.find(t.name);
  if (it == by_name_.end()) return error{path_ + ": no tensor " + text::in_quotes(t.name)};
  const auto& mapped = mapped_[it->second];
  if (mapped.how == assembly::computed)
    return gguf::row_source(std::as_bytes(std::span(config_.rope_factors)), mapped.out.nbytes);
  auto parts = parts_of(mapped);
  if (!parts) return parts.error();
  row_maker make(mapped, config_, std::move(*parts));
  const bool weights = mapped.how != assembly::scales && mapped.how != assembly::input_scales &&
                       mapped.how != assembly::vector;
  if (!natural_ || !weights) return gguf::row_source(std::move(make));
  return gguf::row_source(make, [make](std::int64_t r, float* out) { make.exact(r, out); });
}

/// A language model inside a wrapper has the wrapper's name before its own.
void hf_model::find_prefixes() {
  if (config_.native) {
    prefixes_ = {"", "output"};
    return;
  }
  const std::vector<name_prefixes> known = {{"model.", "lm_head"},
                                            {"language_model.model.", "language_model.lm_head"},
                                            {"model.language_model.", "lm_head"}};
  for (const auto& p : known)
    if (source_.find(p.body + "embed_tokens.weight")) prefixes_ = p;
}

/// Where config.json contradicts itself.
void hf_model::decide_ties() {
  if (!config_.ties_disagree) return;
  config_.tied_embeddings = source_.find(prefixes_.head + ".weight") == nullptr;
  config_.traits &= ~static_cast<std::uint32_t>(trait::untied);
  if (!config_.tied_embeddings) config_.traits |= trait::untied;
}

namespace {

/// The type that all parts have by nature; bf16 if they differ or a transpose changes what blocks hold.
std::uint32_t natural_type(const mapped_tensor& t, const std::vector<matrix_ptr>& parts) {
  const auto type = parts.front()->natural_type();
  const bool same =
      std::all_of(parts.begin(), parts.end(), [&](const matrix_ptr& p) { return p->natural_type() == type; });
  const bool is_float = type == f16::gguf_id || type == f32::gguf_id;
  const bool turned = t.how == assembly::keys || t.how == assembly::transposed;
  return same && (!turned || is_float) ? type : bf16::gguf_id;
}

}  // namespace

result<void> hf_model::take(mapped_tensor m, presentation types) {
  const auto parts = parts_of(m);
  if (!parts) return parts.error();
  const bool is_matrix = m.out.type == bf16::gguf_id;
  for (const auto& p : *parts) {
    rounded_ += is_matrix && p->is_wide();
    used_.insert(p->names().begin(), p->names().end());
  }
  if (types == presentation::f32) m.out.type = f32::gguf_id;
  if (types == presentation::natural && is_matrix) m.out.type = natural_type(m, *parts);
  const auto bytes = gguf::tensor_bytes(m.out.type, m.out.ne);
  if (!bytes) return error{path_ + ": tensor " + text::in_quotes(m.out.name) + ": its size overflows"};
  m.out.nbytes = *bytes;
  by_name_.emplace(m.out.name, tensors_.size());
  tensors_.push_back(m.out);
  mapped_.push_back(m);
  if (m.out.type != nvfp4::gguf_id) return {};
  take_scales(m, assembly::scales, ".scale");
  if (!std::all_of(parts->begin(), parts->end(), [](const matrix_ptr& p) { return p->input_scale() > 0; }))
    return {};
  for (const auto& part : m.parts) {
    const auto module = part.substr(0, part.size() - std::string_view(".weight").size());
    for (const char* end : {".input_scale", ".input_global_scale"}) used_.insert(module + end);
  }
  take_scales(m, assembly::input_scales, gguf::input_scale_end);
  return {};
}

void hf_model::take_scales(mapped_tensor m, assembly how, std::string_view end) {
  constexpr std::string_view weight = ".weight";
  m.how = how;
  m.out.name.replace(m.out.name.size() - weight.size(), weight.size(), end);
  m.out.type = f32::gguf_id, m.out.n_dims = 1;
  m.out.ne = {static_cast<std::int64_t>(m.parts.size()), 1, 1, 1};
  m.out.nbytes = 4 * m.parts.size();
  by_name_.emplace(m.out.name, tensors_.size());
  tensors_.push_back(m.out);
  mapped_.push_back(std::move(m));
}

result<void> hf_model::take_tensors(const import_options& options) {
  natural_ = options.types == presentation::natural;
  for (auto& m : map_tensors(config_, prefixes_))
    if (auto ok = take(std::move(m), options.types); !ok) return ok;
  if (rounded_ && options.types == presentation::bf16)
    notices_.push_back(std::to_string(rounded_) + " tensors stored as F16 or F32 are rounded to bf16");
  return {};
}

result<void> hf_model::check_leftovers() {
  std::size_t dropped = 0, left = 0;
  std::string first;
  for (const auto& p : source_.tensors()) {
    const auto& name = p.tensor->name;
    if (used_.contains(name)) continue;
    if (is_dropped(name, config_, prefixes_)) {
      ++dropped;
      continue;
    }
    if (left++ == 0) first = describe(p);
  }
  if (left)
    return error{first + (left > 1 ? " and " + std::to_string(left - 1) + " more" : "") + ": no place in a " +
                 std::string(config_.kind->architecture) + " model with this config.json"};
  if (dropped)
    notices_.push_back(
        std::to_string(dropped) +
        " tensors are left out: next-token prediction layers, rotary tables, tied output, indexers, "
        "parts that are no language model, scales of activations");
  if (!source_.unlisted().empty())
    notices_.push_back(std::to_string(source_.unlisted().size()) +
                       " tensors are in no index and ignored, the first is " +
                       text::in_quotes(source_.unlisted().front()));
  return {};
}

/// Of a file whose tensors keep their types: that of most of the bytes.
void hf_model::set_file_type() {
  std::unordered_map<std::uint32_t, std::uint64_t> bytes;
  for (const auto& t : tensors_) bytes[t.type] += t.nbytes;
  const auto most =
      std::max_element(bytes.begin(), bytes.end(), [](auto& a, auto& b) { return a.second < b.second; });
  constexpr auto ids = std::to_array<std::pair<std::uint32_t, std::uint32_t>>({{f32::gguf_id, 0},
                                                                               {f16::gguf_id, 1},
                                                                               {q4_0::gguf_id, 2},
                                                                               {q4_1::gguf_id, 3},
                                                                               {q8_0::gguf_id, 7},
                                                                               {bf16::gguf_id, 32},
                                                                               {mxfp4::gguf_id, 38},
                                                                               {nvfp4::gguf_id, 39}});
  for (const auto& [type, id] : ids)
    if (most != bytes.end() && most->first == type) meta_.set("general.file_type", id);
}

result<hf_model> hf_model::open(const std::filesystem::path& directory, const import_options& options) {
  auto config = read_config(directory, options.layout);
  if (!config) return config.error();
  auto source = checkpoint::open(directory, config->native ? "consolidated" : "model");
  if (!source) return source.error();
  hf_model m(std::move(*source));
  m.path_ = directory.string();
  m.config_ = std::move(*config);
  m.notices_ = m.config_.notices;
  m.find_prefixes();
  m.decide_ties();
  if (auto ok = m.take_tensors(options); !ok) return ok.error();
  if (auto ok = m.check_leftovers(); !ok) return ok.error();
  double parameters = 0;  // attn_kv_b holds attn_k_b and attn_v_b once more
  for (const auto& t : m.tensors_)
    if (!t.name.ends_with("exp_probs_b.bias") && !t.name.ends_with(".scale") &&
        !t.name.ends_with(gguf::input_scale_end) && !t.name.ends_with("attn_kv_b.weight"))
      parameters += static_cast<double>(t.elements());
  m.meta_ = model_metadata(m.config_, {options.name.empty() ? directory_name(directory) : options.name,
                                       license_of(directory), size_label(parameters)});
  if (m.natural_) m.set_file_type();
  if (auto ok = add_vocabulary(directory, m.config_, m.meta_, m.notices_); !ok) return ok.error();
  return m;
}

}  // namespace quantal::hf
