// Second moments of the inputs of weight tensors: sums of x x^T, which output-aware quantization needs
// (quantize/output_metric.hpp). An importance matrix is their diagonal.
//
// The file is a GGUF file of general.type "moments". Per tensor NAME, with a slice per expert or head, or one
// for all:
//   NAME.moments          f32 [cols * (cols + 1) / 2, slices]: lower triangle of the sum, row by row
//   NAME.mean             f32 [cols, slices]: mean of x
//   NAME.counts           f32 [1, slices]: inputs seen
//   NAME.held_out         as NAME.moments, of inputs that were kept apart: they judge what was
//                         chosen by the others
//   NAME.held_out_counts  as NAME.counts, of those
// A tensor that has the inputs of another has no tensors of its own but the key quantal.moments.same.NAME,
// which holds the other's name.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quantal/finite.hpp"
#include "quantal/formats.hpp"
#include "quantal/gguf/reader.hpp"
#include "quantal/gguf/writer.hpp"

namespace quantal::imatrix {

/// Numbers of a lower triangle.
constexpr std::int64_t triangle(std::int64_t cols) noexcept { return cols * (cols + 1) / 2; }

/// Sums over the inputs of one tensor.
struct moments {
  std::int64_t cols = 0, slices = 1;
  std::vector<float> sums;          ///< [slices][triangle(cols)]
  std::vector<float> mean;          ///< [slices][cols]
  std::vector<double> counts;       ///< [slices]
  std::vector<float> held_out;      ///< as sums
  std::vector<double> held_counts;  ///< [slices]

  moments() = default;
  moments(std::int64_t c, std::int64_t s)
      : cols(c),
        slices(s),
        sums(static_cast<std::size_t>(s * triangle(c))),
        mean(static_cast<std::size_t>(s * c)),
        counts(static_cast<std::size_t>(s)),
        held_out(sums.size()),
        held_counts(counts.size()) {}
  bool operator==(const moments&) const = default;

  /// The whole matrix of a slice, row-major, as second_moments wants it.
  std::vector<float> matrix(std::int64_t slice) const { return square(sums, slice); }
  std::vector<float> held_out_matrix(std::int64_t slice) const { return square(held_out, slice); }

 private:
  std::vector<float> square(const std::vector<float>& from, std::int64_t slice) const {
    std::vector<float> out(static_cast<std::size_t>(cols * cols));
    const float* v = from.data() + slice * triangle(cols);
    for (std::int64_t i = 0; i < cols; ++i)
      for (std::int64_t j = 0; j <= i; ++j, ++v)
        out[static_cast<std::size_t>(i * cols + j)] = out[static_cast<std::size_t>(j * cols + i)] = *v;
    return out;
  }
};

/// Inputs that the moments of a tensor come from.
struct moments_counts {
  std::int64_t cols = 0;
  std::vector<double> used, held_out;  ///< [slices]
};

struct moments_store {
  std::map<std::string, moments> entries;   ///< by tensor name
  std::map<std::string, std::string> same;  ///< tensors that have the inputs of another: its name
  std::vector<std::string> datasets;        ///< calibration files in order of use
  bool operator==(const moments_store&) const = default;
};

namespace detail {

inline constexpr std::string_view same_key = "quantal.moments.same.";

inline error moments_error(const std::string& path, const std::string& name, const std::string& why) {
  return {path + ": moments of '" + gguf::detail::printable(name) + "': " + why};
}

/// Adds sums of float32, which stay finite.
inline bool add_sums(std::vector<float>& to, const std::vector<float>& from) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    to[i] = static_cast<float>(double{to[i]} + from[i]);
    if (!is_finite(to[i])) return false;
  }
  return true;
}

inline result<void> merge_entry(const std::string& name, moments& to, const moments& from) {
  const auto fail = [&](const std::string& why) {
    return error{"moments of '" + gguf::detail::printable(name) + "': " + why};
  };
  if (to.cols != from.cols || to.slices != from.slices)
    return fail(std::to_string(to.slices) + " x " + std::to_string(to.cols) +
                " columns cannot be merged with " + std::to_string(from.slices) + " x " +
                std::to_string(from.cols));
  for (std::size_t i = 0; i < to.mean.size(); ++i) {
    const std::size_t s = i / static_cast<std::size_t>(to.cols);
    const double n = to.counts[s] + from.counts[s];
    if (n > 0)
      to.mean[i] = static_cast<float>((to.mean[i] * to.counts[s] + from.mean[i] * from.counts[s]) / n);
  }
  if (!add_sums(to.sums, from.sums) || !add_sums(to.held_out, from.held_out))
    return fail("the sums are not finite");
  for (std::size_t s = 0; s < to.counts.size(); ++s)
    to.counts[s] += from.counts[s], to.held_counts[s] += from.held_counts[s];
  return {};
}

}  // namespace detail

/// Adds `other` to `into`; on an error, which names the tensor, `into` is as before.
inline result<void> merge(moments_store& into, const moments_store& other) {
  moments_store merged = into;
  for (const auto& [name, to] : other.same) {
    if (merged.entries.contains(name))
      return error{"moments of '" + gguf::detail::printable(name) +
                   "': one file has them, another refers to '" + gguf::detail::printable(to) + "'"};
    if (const auto [it, added] = merged.same.try_emplace(name, to); !added && it->second != to)
      return error{"moments of '" + gguf::detail::printable(name) +
                   "': two files refer to different tensors"};
  }
  for (const auto& [name, e] : other.entries) {
    if (const auto it = merged.same.find(name); it != merged.same.end())
      return error{"moments of '" + gguf::detail::printable(name) +
                   "': one file has them, another refers to '" + gguf::detail::printable(it->second) + "'"};
    const auto [it, added] = merged.entries.try_emplace(name, e);
    if (added) continue;
    if (auto m = detail::merge_entry(name, it->second, e); !m) return m;
  }
  merged.datasets.insert(merged.datasets.end(), other.datasets.begin(), other.datasets.end());
  into = std::move(merged);
  return {};
}

/// A file of second moments; one tensor's are in memory at a time.
class moments_file {
 public:
  /// Errors name the file, the tensor and what is wrong with it. Numbers are looked at when a tensor is read.
  static result<moments_file> open(const std::filesystem::path& path) {
    auto file = gguf::reader::open(path);
    if (!file) return file.error();
    const auto type = file->meta().string("general.type");
    if (!type || *type != "moments") return error{file->path() + ": general.type is not 'moments'"};
    moments_file f(std::move(*file));
    if (auto ok = f.index(); !ok) return ok.error();
    return f;
  }

  const std::string& path() const noexcept { return file_.path(); }
  /// Tensors that have moments of their own, sorted.
  const std::vector<std::string>& names() const noexcept { return names_; }
  /// Tensor -> tensor that has the same inputs.
  const std::map<std::string, std::string>& same() const noexcept { return same_; }
  std::vector<std::string> datasets() const {
    const auto d = file_.meta().strings("moments.datasets");
    return d ? **d : std::vector<std::string>{};
  }
  bool contains(const std::string& tensor) const { return own_name(tensor) != nullptr; }
  /// The tensor under whose name the moments of another are, perhaps its own name; null if there are none.
  const std::string* own_name(const std::string& tensor) const {
    const auto shared = same_.find(tensor);
    const auto& name = shared == same_.end() ? tensor : shared->second;
    const auto it = std::lower_bound(names_.begin(), names_.end(), name);
    return it != names_.end() && *it == name ? &*it : nullptr;
  }

  /// How many inputs the moments of a tensor come from; their sums are not looked at.
  result<moments_counts> counts(const std::string& tensor) const {
    const auto* name = own_name(tensor);
    if (!name) return detail::moments_error(path(), tensor, "there are none");
    const auto* mean = file_.find(*name + ".mean");
    moments_counts c{mean->ne[0], {}, {}};
    for (const auto& [suffix, to] : {std::pair{".counts", &c.used}, {".held_out_counts", &c.held_out}}) {
      std::vector<float> values(static_cast<std::size_t>(mean->ne[1]));
      if (auto ok = fill(*name, suffix, values); !ok) return ok.error();
      if (std::any_of(values.begin(), values.end(), [](float v) { return v < 0; }))
        return detail::moments_error(path(), *name, "a count is negative");
      to->assign(values.begin(), values.end());
    }
    return c;
  }

  /// Moments of a tensor, perhaps under the name of another with its inputs.
  result<moments> read(const std::string& tensor) const {
    const auto* name = own_name(tensor);
    if (!name) return detail::moments_error(path(), tensor, "there are none");
    auto c = counts(tensor);
    if (!c) return c.error();
    moments m(c->cols, static_cast<std::int64_t>(c->used.size()));
    m.counts = std::move(c->used), m.held_counts = std::move(c->held_out);
    for (const auto& [suffix, to] :
         {std::pair{".moments", &m.sums}, {".mean", &m.mean}, {".held_out", &m.held_out}})
      if (auto ok = fill(*name, suffix, *to); !ok) return ok.error();
    return m;
  }

  /// Everything.
  result<moments_store> read_all() const {
    moments_store s;
    s.same = same_, s.datasets = datasets();
    for (const auto& name : names_) {
      auto m = read(name);
      if (!m) return m.error();
      s.entries.emplace(name, std::move(*m));
    }
    return s;
  }

 private:
  explicit moments_file(gguf::reader file) : file_(std::move(file)) {}

  result<void> index() {
    constexpr std::string_view suffix = ".moments";
    for (const auto& t : file_.tensors())
      if (t.name.ends_with(suffix)) names_.push_back(t.name.substr(0, t.name.size() - suffix.size()));
    std::sort(names_.begin(), names_.end());
    if (names_.empty()) return error{path() + ": holds no moments"};
    for (const auto& name : names_)
      if (auto ok = check_shapes(name); !ok) return ok;
    for (const auto& [key, value] : file_.meta().items()) {
      if (!key.starts_with(detail::same_key)) continue;
      const std::string name = key.substr(detail::same_key.size());
      const auto* to = std::get_if<std::string>(&value);
      if (!to || !std::binary_search(names_.begin(), names_.end(), *to))
        return detail::moments_error(path(), name, "refers to a tensor that has no moments");
      if (std::binary_search(names_.begin(), names_.end(), name))
        return detail::moments_error(path(), name, "are there and refer to another tensor");
      same_.emplace(name, *to);
    }
    return {};
  }

  result<void> check_shapes(const std::string& name) const {
    const auto* mean = file_.find(name + ".mean");
    if (!mean) return detail::moments_error(path(), name, "have no mean");
    const std::int64_t cols = mean->ne[0], slices = mean->ne[1];
    if (cols <= 0 || slices <= 0 || cols > (std::int64_t{1} << 20))
      return detail::moments_error(path(), name, "are empty or too wide");
    for (const auto& [suffix, width] : {std::pair{".moments", triangle(cols)},
                                        {".mean", cols},
                                        {".counts", std::int64_t{1}},
                                        {".held_out", triangle(cols)},
                                        {".held_out_counts", std::int64_t{1}}}) {
      const auto* t = file_.find(name + suffix);
      if (!t) return detail::moments_error(path(), name, "have no " + std::string(suffix).substr(1));
      if (t->type != f32::gguf_id)
        return detail::moments_error(path(), name, std::string(suffix).substr(1) + " is not f32");
      if (t->ne != std::array<std::int64_t, 4>{width, slices, 1, 1})
        return detail::moments_error(path(), name,
                                     std::string(suffix).substr(1) + " does not fit " +
                                         std::to_string(slices) + " slices of " + std::to_string(cols) +
                                         " columns");
    }
    return {};
  }

  result<void> fill(const std::string& name, const char* suffix, std::vector<float>& to) const {
    const auto bytes = file_.data(*file_.find(name + suffix));
    if (!bytes) return bytes.error();
    std::memcpy(to.data(), bytes->data(), to.size() * sizeof(float));  // the shape has been checked
    for (const float v : to)
      if (!is_finite(v))
        return detail::moments_error(path(), name,
                                     std::string(suffix).substr(1) + " holds a number that is not finite");
    return {};
  }

  gguf::reader file_;
  std::vector<std::string> names_;
  std::map<std::string, std::string> same_;
};

/// Moments that a file is to hold; those of one tensor are in memory at a time.
struct moments_source {
  std::map<std::string, std::pair<std::int64_t, std::int64_t>>
      shapes;  ///< columns and slices, by tensor name
  std::map<std::string, std::string> same;
  std::vector<std::string> datasets;
  std::function<result<moments>(const std::string&)> read;
};

/// Writes a file; the same moments always give the same bytes. The file is visible once it is complete.
inline result<void> save_moments(const moments_source& s, const std::filesystem::path& path) {
  if (s.shapes.empty()) return error{path.string() + ": there are no moments to write"};
  gguf::metadata meta;
  meta.set("general.type", std::string("moments"));
  meta.set("moments.datasets", gguf::array(s.datasets));
  for (const auto& [name, to] : s.same) meta.set(std::string(detail::same_key) + name, to);
  std::vector<gguf::tensor_info> tensors;
  for (const auto& [name, shape] : s.shapes) {
    if (name.size() + std::strlen(".held_out_counts") > 63)
      return detail::moments_error(path.string(), name,
                                   "the name is too long for the tensor NAME.held_out_counts");
    const auto plan = [&, &tensor = name, slices = shape.second](const char* suffix, std::int64_t width) {
      tensors.push_back({tensor + suffix, f32::gguf_id, 2, {width, slices, 1, 1}});
    };
    const std::int64_t cols = shape.first;
    plan(".moments", triangle(cols)), plan(".mean", cols), plan(".counts", 1);
    plan(".held_out", triangle(cols)), plan(".held_out_counts", 1);
  }
  auto w = gguf::writer::create(path, meta, std::move(tensors));
  if (!w) return w.error();
  for (const auto& [name, shape] : s.shapes) {
    const auto m = s.read(name);
    if (!m) return m.error();
    const std::vector<float> counts(m->counts.begin(), m->counts.end()),
        held_counts(m->held_counts.begin(), m->held_counts.end());
    for (const auto* part : {&m->sums, &m->mean, &counts, &m->held_out, &held_counts})
      if (auto r = w->append(std::as_bytes(std::span(*part))); !r) return r;
  }
  return w->finish();
}

/// Moments that are in memory.
inline moments_source source_of(moments_store s) {
  auto kept = std::make_shared<const moments_store>(std::move(s));
  moments_source source;
  for (const auto& [name, m] : kept->entries) source.shapes.emplace(name, std::pair(m.cols, m.slices));
  source.same = kept->same, source.datasets = kept->datasets;
  source.read = [kept](const std::string& name) -> result<moments> { return kept->entries.at(name); };
  return source;
}

inline result<void> save_moments(moments_store s, const std::filesystem::path& path) {
  return save_moments(source_of(std::move(s)), path);
}

}  // namespace quantal::imatrix
