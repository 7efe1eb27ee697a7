// Importance-matrix files: the GGUF form (imatrix.md section 3) and the legacy .dat form (section 2).
//
// Both lose something: GGUF stores sums as float32 and one count for all heads, .dat only means. GGUF files written
// here carry the float64 sums, the int64 counts and the slices in additional keys that other readers ignore, so that
// reloading, merging and resuming are exact. Parts of a text also carry which chunks they are of, and what their sums
// lost to rounding.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "quantal/finite.hpp"
#include "quantal/gguf/writer.hpp"
#include "quantal/imatrix/store.hpp"

namespace quantal::imatrix {

namespace detail {

inline constexpr const char* exact_sums_key = "quantal.imatrix.sums.";
inline constexpr const char* exact_counts_key = "quantal.imatrix.counts.";
inline constexpr const char* rest_key = "quantal.imatrix.rest.";
inline constexpr const char* first_chunk_key = "quantal.imatrix.first_chunk";
inline constexpr const char* last_chunk_key = "quantal.imatrix.last_chunk";
inline constexpr const char* approximate_key = "quantal.imatrix.approximate_counts";

inline error entry_error(const std::string& path, const std::string& name, const std::string& why) {
  return {path + ": entry '" + gguf::detail::printable(name) + "': " + why};
}

/// No collection reaches it, float64 holds it, and sums of many such counts do not overflow.
inline constexpr std::int64_t most_rows = std::int64_t{1} << 53;

/// Sums are finite and not negative, counts not negative, and the sizes agree.
inline result<void> check_entry(const std::string& path, const std::string& name, const entry& e) {
  if (e.cols <= 0 || e.slices <= 0) return entry_error(path, name, "is empty");
  if (e.sums.size() != static_cast<std::size_t>(e.cols * e.slices) ||
      e.counts.size() != static_cast<std::size_t>(e.slices))
    return entry_error(path, name, "sizes disagree");
  if (!e.rest.empty() && e.rest.size() != 2 * e.sums.size())
    return entry_error(path, name, "the rest of its sums has another size than they have");
  for (const double s : e.rest)
    if (!is_finite(s)) return entry_error(path, name, "the rest of a sum is not finite");
  for (const double s : e.sums)
    if (!is_finite(s) || s < 0) return entry_error(path, name, "holds a sum that is not finite or negative");
  for (const auto c : e.counts)
    if (c < 0 || c > most_rows) return entry_error(path, name, "holds a count that is not a count");
  return {};
}

/// Both forms store float32: what is beyond it could not be read back.
inline result<void> check_range(const std::string& path, const std::string& name, double value) {
  if (is_finite(static_cast<float>(value))) return {};
  return entry_error(path, name, "holds a value beyond float32, which the file could not hold");
}

inline result<std::vector<float>> floats(const gguf::reader& file, const gguf::tensor_info& t) {
  if (t.type != f32::gguf_id)
    return error{file.path() + ": tensor '" + t.name + "': type " + gguf::type_name(t.type) +
                 " instead of f32"};
  const auto bytes = file.data(t);
  if (!bytes) return bytes.error();
  std::vector<float> v(bytes->size() / sizeof(float));
  if (!v.empty()) std::memcpy(v.data(), bytes->data(), v.size() * sizeof(float));
  return v;
}

template <class T>
inline const std::vector<T>* array_of(const gguf::metadata& meta, const std::string& key) {
  const auto* v = meta.find(key);
  const auto* a = v ? std::get_if<gguf::array>(v) : nullptr;
  return a ? std::get_if<std::vector<T>>(a) : nullptr;
}

/// The tensor holds the exact numbers rounded; one number may stand for several that are equal.
template <class T>
inline bool same_as_float(const std::vector<T>& exact, const std::vector<float>& rounded) {
  if (rounded.size() != 1 && rounded.size() != exact.size()) return false;
  for (std::size_t i = 0; i < exact.size(); ++i)
    if (static_cast<float>(exact[i]) != rounded[rounded.size() == 1 ? 0 : i]) return false;
  return true;
}

/// Entry NAME from its two tensors, or from the exact keys where they agree with the tensors.
inline result<entry> read_entry(const gguf::reader& file, const std::string& name,
                                const gguf::tensor_info& sums_info, const gguf::tensor_info& counts_info) {
  const auto sums = floats(file, sums_info), counts = floats(file, counts_info);
  if (!sums) return sums.error();
  if (!counts) return counts.error();
  if (sums->empty() || counts->empty() || sums->size() % counts->size() != 0)
    return entry_error(file.path(), name,
                       std::to_string(sums->size()) + " sums are not divisible by " +
                           std::to_string(counts->size()) + " counts");
  entry e(static_cast<std::int64_t>(sums->size() / counts->size()),
          static_cast<std::int64_t>(counts->size()));
  for (std::size_t i = 0; i < sums->size(); ++i) e.sums[i] = (*sums)[i];
  for (std::size_t i = 0; i < counts->size(); ++i) {
    const float c = (*counts)[i];
    if (!is_finite(c) || c < 0 || c > static_cast<float>(most_rows))
      return entry_error(file.path(), name, "holds a count that is not a count");
    e.counts[i] = std::llround(c);
  }
  const auto* exact_sums = array_of<double>(file.meta(), exact_sums_key + name);
  const auto* exact_counts = array_of<std::int64_t>(file.meta(), exact_counts_key + name);
  if (exact_sums && exact_counts) {
    if (exact_sums->size() != sums->size() || exact_counts->empty() ||
        sums->size() % exact_counts->size() != 0)
      return entry_error(file.path(), name, "its exact sums have another size than its tensors");
    if (!same_as_float(*exact_sums, *sums) || !same_as_float(*exact_counts, *counts))
      return entry_error(file.path(), name,
                         "its exact sums differ from its tensors: one of them was changed");
    e.slices = static_cast<std::int64_t>(exact_counts->size());
    e.cols = static_cast<std::int64_t>(sums->size()) / e.slices;
    e.sums = *exact_sums;
    e.counts = *exact_counts;
    if (const auto* rest = array_of<double>(file.meta(), rest_key + name)) e.rest = *rest;
  }
  if (auto ok = check_entry(file.path(), name, e); !ok) return ok.error();
  return e;
}

inline result<std::optional<chunk_range>> read_chunks(const gguf::metadata& meta) {
  if (!meta.contains(first_chunk_key)) return std::optional<chunk_range>();
  const auto first = meta.integer(first_chunk_key, 0, most_rows);
  if (!first) return first.error();
  const auto last = meta.integer(last_chunk_key, *first + 1, most_rows);
  if (!last) return last.error();
  return std::optional(chunk_range{*first, *last});
}

inline result<store> load_gguf(const std::filesystem::path& path) {
  auto file = gguf::reader::open(path);
  if (!file) return file.error();
  const auto type = file->meta().string("general.type");
  if (!type || *type != "imatrix") return error{file->path() + ": general.type is not 'imatrix'"};
  store s;
  if (file->meta().contains("imatrix.chunk_size")) {
    const auto n = file->meta().integer("imatrix.chunk_size", 1, 1 << 30);
    if (!n) return error{file->path() + ": " + n.error().message};
    s.chunk_size = *n;
  }
  if (const auto d = file->meta().strings("imatrix.datasets")) s.datasets = **d;
  const auto approximate = file->meta().boolean(approximate_key);
  s.approximate_counts = approximate && *approximate;
  const auto chunks = read_chunks(file->meta());
  if (!chunks) return error{file->path() + ": " + chunks.error().message};
  s.chunks = *chunks;
  constexpr std::string_view sums_suffix = ".in_sum2", counts_suffix = ".counts";
  for (const auto& t : file->tensors()) {
    if (t.name.ends_with(sums_suffix)) {
      const std::string name = t.name.substr(0, t.name.size() - sums_suffix.size());
      const auto* counts = file->find(name + std::string(counts_suffix));
      if (!counts) return entry_error(file->path(), name, "has sums but no counts");
      auto e = read_entry(*file, name, t, *counts);
      if (!e) return e.error();
      if (!s.entries.emplace(canonical_name(name), std::move(*e)).second)
        return entry_error(file->path(), name, "appears twice");
    } else if (t.name.ends_with(counts_suffix)) {
      const std::string name = t.name.substr(0, t.name.size() - counts_suffix.size());
      if (!file->find(name + std::string(sums_suffix)))
        return entry_error(file->path(), name, "has counts but no sums");
    } else {
      return error{file->path() + ": tensor '" + gguf::detail::printable(t.name) +
                   "' is neither sums nor counts"};
    }
  }
  if (s.entries.empty()) return error{file->path() + ": holds no importance data"};
  return s;
}

inline result<store> load_dat(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  const std::string where = path.string();
  gguf::detail::cursor c(bytes);
  const auto n = c.read<std::int32_t>();
  if (c.failed() || n < 1) return error{where + ": not an importance matrix (bad entry count)"};
  store s;
  s.approximate_counts = true;
  for (std::int32_t i = 0; i < n; ++i) {
    const std::string at = where + ": entry " + std::to_string(i);
    const auto length = c.read<std::int32_t>();
    if (c.failed() || length < 1 || static_cast<std::size_t>(length) > c.remaining())
      return error{at + ": bad name length or truncated"};
    const auto raw = c.read_array<char>(static_cast<std::uint64_t>(length));
    const std::string name(raw.begin(), raw.end());
    const auto calls = c.read<std::int32_t>(), values = c.read<std::int32_t>();
    if (c.failed()) return error{at + ": truncated"};
    if (calls < 0 || values < 1) return entry_error(where, name, "negative call count or no values");
    const auto v = c.read_array<float>(static_cast<std::uint64_t>(values));
    if (c.failed()) return entry_error(where, name, "truncated");
    entry e(values, 1);
    // value = mean * calls; the file does not say how many rows a call had, a chunk is the best guess.
    e.counts[0] = std::max<std::int64_t>(calls, 1) * s.chunk_size;
    for (std::size_t k = 0; k < v.size(); ++k)
      e.sums[k] = static_cast<double>(v[k]) * static_cast<double>(s.chunk_size);
    if (auto ok = check_entry(where, name, e); !ok) return ok.error();
    if (!s.entries.emplace(canonical_name(name), std::move(e)).second)
      return entry_error(where, name, "appears twice");
  }
  if (c.remaining() > 0) {  // optional trailer
    c.read<std::int32_t>();
    const auto length = c.read<std::int32_t>();
    if (c.failed() || length < 0 || static_cast<std::size_t>(length) != c.remaining())
      return error{where + ": damaged trailer"};
    const auto raw = c.read_array<char>(static_cast<std::uint64_t>(length));
    if (!raw.empty()) s.datasets.emplace_back(raw.begin(), raw.end());
  }
  return s;
}

/// Numbers beyond what the file has room for become the largest that it has.
template <class T>
T to_32_bits(std::int64_t n) noexcept {
  return static_cast<T>(std::clamp<std::int64_t>(n, 0, std::numeric_limits<T>::max()));
}

/// Heads of one tensor see the same rows, and other readers expect a single count for them.
inline bool equal_counts(const entry& e) noexcept {
  for (const auto c : e.counts)
    if (c != e.counts.front()) return false;
  return true;
}
inline bool per_head(const std::string& name) noexcept {
  return name.ends_with(".attn_k_b.weight") || name.ends_with(".attn_v_b.weight");
}

}  // namespace detail

/// Reads either form. Names are made canonical. Errors name the file and the entry.
inline result<store> load(const std::filesystem::path& path) {
  auto file = gguf::mapped_file::open(path);
  if (!file) return file.error();
  const auto bytes = file->bytes();
  if (bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0) return detail::load_gguf(path);
  return detail::load_dat(path, bytes);
}

/// Writes the GGUF form; the same store always gives the same bytes.
inline result<void> save_gguf(const store& s, const std::filesystem::path& path) {
  gguf::metadata meta;
  meta.set("general.type", std::string("imatrix"));
  meta.set("imatrix.datasets", gguf::array(s.datasets));
  if (s.entries.empty()) return error{path.string() + ": there is no importance data to write"};
  meta.set("imatrix.chunk_count", detail::to_32_bits<std::uint32_t>(s.chunk_count()));
  meta.set("imatrix.chunk_size", detail::to_32_bits<std::uint32_t>(s.chunk_size));
  if (s.approximate_counts) meta.set(detail::approximate_key, true);
  if (s.chunks) {
    meta.set(detail::first_chunk_key, s.chunks->first);
    meta.set(detail::last_chunk_key, s.chunks->last);
  }
  std::vector<gguf::tensor_info> tensors;
  std::vector<std::vector<float>> data;
  for (const auto& [name, e] : s.entries) {
    if (auto ok = detail::check_entry(path.string(), name, e); !ok) return ok.error();
    if (name.size() + 8 > 63)
      return detail::entry_error(path.string(), name,
                                 "its name is too long for the tensors NAME.in_sum2 and NAME.counts");
    for (const double v : e.sums)
      if (auto ok = detail::check_range(path.string(), name, v); !ok) return ok.error();
    meta.set(detail::exact_sums_key + name, gguf::array(e.sums));
    meta.set(detail::exact_counts_key + name, gguf::array(e.counts));
    if (!e.rest.empty()) meta.set(detail::rest_key + name, gguf::array(e.rest));
    const bool joined = detail::per_head(name) && detail::equal_counts(e);
    const std::int64_t slices = joined ? 1 : e.slices, cols = joined ? e.cols * e.slices : e.cols;
    std::vector<float> counts(e.counts.begin(), e.counts.begin() + slices);
    tensors.push_back({name + ".counts", f32::gguf_id, 2, {1, slices, 1, 1}});
    data.push_back(std::move(counts));
    tensors.push_back({name + ".in_sum2", f32::gguf_id, 2, {cols, slices, 1, 1}});
    data.emplace_back(e.sums.begin(), e.sums.end());
  }
  auto w = gguf::writer::create(path, meta, std::move(tensors));
  if (!w) return w.error();
  for (const auto& v : data)
    if (auto r = w->append(std::as_bytes(std::span(v))); !r) return r;
  return w->finish();
}

/// What the legacy form holds for the heads of attn_k_b and attn_v_b. Its readers expect as many values as the tensor
/// has columns times slices: per head where the tensor has three dimensions, one vector where it has two.
enum class dat_heads { each, mean };

namespace detail {

/// Mean of x^2 per value; slices without data become 1 (all columns equal).
inline std::vector<double> means_of_squares(const entry& e) {
  std::vector<double> out(e.sums.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto count = e.counts[i / static_cast<std::size_t>(e.cols)];
    out[i] = count ? e.sums[i] / static_cast<double>(count) : 1.0;
  }
  return out;
}

/// One vector for all heads: every row counts once, whatever its head.
inline entry pooled_heads(const entry& e) {
  entry out(e.cols, 1);
  for (std::size_t i = 0; i < e.sums.size(); ++i) out.sums[i % static_cast<std::size_t>(e.cols)] += e.sums[i];
  for (const auto c : e.counts) out.counts[0] += c;
  return out;
}

/// Evaluations of a chunk that an entry's busiest slice stands for.
inline std::int32_t dat_calls(const entry& e, std::int64_t chunk_size) {
  const std::int64_t most = *std::max_element(e.counts.begin(), e.counts.end());
  return to_32_bits<std::int32_t>(std::max<std::int64_t>(1, (most + chunk_size - 1) / chunk_size));
}

}  // namespace detail

/// Writes the legacy form: means times calls, names sorted.
inline result<void> save_dat(const store& s, const std::filesystem::path& path,
                             dat_heads heads = dat_heads::each) {
  if (s.entries.empty()) return error{path.string() + ": there is no importance data to write"};
  std::string out;
  const auto put = [&](auto v) { out.append(reinterpret_cast<const char*>(&v), sizeof v); };
  put(static_cast<std::int32_t>(s.entries.size()));
  std::int32_t last_call = 0;
  for (const auto& [name, e] : s.entries) {
    if (auto ok = detail::check_entry(path.string(), name, e); !ok) return ok.error();
    const bool pool = heads == dat_heads::mean && detail::per_head(name);
    const auto values = detail::means_of_squares(pool ? detail::pooled_heads(e) : e);
    const std::int32_t calls = detail::dat_calls(e, s.chunk_size);
    last_call = std::max(last_call, calls);
    put(static_cast<std::int32_t>(name.size()));
    out += name;
    put(calls);
    put(static_cast<std::int32_t>(values.size()));
    for (const double v : values) {
      if (auto ok = detail::check_range(path.string(), name, v * calls); !ok) return ok.error();
      put(static_cast<float>(v * calls));
    }
  }
  put(last_call);
  const std::string dataset = s.datasets.empty() ? "" : s.datasets.back();
  put(static_cast<std::int32_t>(dataset.size()));
  out += dataset;
  auto file = atomic_file::create(path);
  if (!file) return file.error();
  if (auto w = file->write(out); !w) return w;
  return file->commit();
}

}  // namespace quantal::imatrix
