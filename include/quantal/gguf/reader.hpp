// GGUF v2/v3 reader: mapped, sharded, and distrustful of every number in the file (gguf.md sections 1, 2 and 6).
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <unordered_set>

#include "quantal/gguf/mapped_file.hpp"
#include "quantal/gguf/model_view.hpp"

namespace quantal::gguf {

inline constexpr std::uint64_t default_alignment = 32;
inline constexpr std::uint64_t max_alignment = 1u << 20;

namespace detail {

/// Bounds-checked little-endian cursor. After the first failure every read fails.
class cursor {
 public:
  explicit cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::size_t position() const noexcept { return at_; }
  std::size_t remaining() const noexcept { return bytes_.size() - at_; }
  bool failed() const noexcept { return failed_; }

  template <class T>
  T read() noexcept {
    T v{};
    if (failed_ || remaining() < sizeof(T)) {
      failed_ = true;
      return v;
    }
    std::memcpy(&v, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return v;
  }

  std::string read_string() {
    const auto n = read<std::uint64_t>();
    if (failed_ || n > remaining() || n > max_string) {
      failed_ = true;
      return {};
    }
    std::string s(reinterpret_cast<const char*>(bytes_.data() + at_), static_cast<std::size_t>(n));
    at_ += static_cast<std::size_t>(n);
    return s;
  }

  /// `count` fixed-size elements; the bytes are known to exist before anything is allocated.
  template <class T>
  std::vector<T> read_array(std::uint64_t count) {
    if (failed_ || count > remaining() / sizeof(T)) {
      failed_ = true;
      return {};
    }
    std::vector<T> v(static_cast<std::size_t>(count));
    if (count) std::memcpy(v.data(), bytes_.data() + at_, v.size() * sizeof(T));
    at_ += v.size() * sizeof(T);
    return v;
  }

 private:
  static constexpr std::uint64_t max_string = 64u << 20;
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  bool failed_ = false;
};

inline std::optional<array> read_array(cursor& c) {
  const auto type = c.read<std::uint32_t>();
  const auto count = c.read<std::uint64_t>();
  if (c.failed()) return std::nullopt;
  switch (static_cast<value_type>(type)) {
    case value_type::u8:
      return c.read_array<std::uint8_t>(count);
    case value_type::i8:
      return c.read_array<std::int8_t>(count);
    case value_type::u16:
      return c.read_array<std::uint16_t>(count);
    case value_type::i16:
      return c.read_array<std::int16_t>(count);
    case value_type::u32:
      return c.read_array<std::uint32_t>(count);
    case value_type::i32:
      return c.read_array<std::int32_t>(count);
    case value_type::f32:
      return c.read_array<float>(count);
    case value_type::u64:
      return c.read_array<std::uint64_t>(count);
    case value_type::i64:
      return c.read_array<std::int64_t>(count);
    case value_type::f64:
      return c.read_array<double>(count);
    case value_type::boolean: {
      const auto bytes = c.read_array<std::uint8_t>(count);
      return std::vector<bool>(bytes.begin(), bytes.end());
    }
    case value_type::string: {
      if (count > c.remaining() / sizeof(std::uint64_t)) return std::nullopt;
      std::vector<std::string> v;
      for (std::uint64_t i = 0; i < count && !c.failed(); ++i) v.push_back(c.read_string());
      return v;
    }
    default:
      return std::nullopt;  // nested arrays and unknown element types
  }
}

/// Nothing for unknown types, nested arrays and values that run past the end.
inline std::optional<value> read_value(cursor& c) {
  std::optional<value> v;
  switch (static_cast<value_type>(c.read<std::uint32_t>())) {
    case value_type::u8:
      v = c.read<std::uint8_t>();
      break;
    case value_type::i8:
      v = c.read<std::int8_t>();
      break;
    case value_type::u16:
      v = c.read<std::uint16_t>();
      break;
    case value_type::i16:
      v = c.read<std::int16_t>();
      break;
    case value_type::u32:
      v = c.read<std::uint32_t>();
      break;
    case value_type::i32:
      v = c.read<std::int32_t>();
      break;
    case value_type::f32:
      v = c.read<float>();
      break;
    case value_type::boolean:
      v = c.read<std::uint8_t>() != 0;
      break;
    case value_type::string:
      v = c.read_string();
      break;
    case value_type::u64:
      v = c.read<std::uint64_t>();
      break;
    case value_type::i64:
      v = c.read<std::int64_t>();
      break;
    case value_type::f64:
      v = c.read<double>();
      break;
    case value_type::array:
      if (auto a = read_array(c)) v = std::move(*a);
      break;
  }
  if (c.failed()) return std::nullopt;
  return v;
}

/// Names come from files: control characters must not reach a terminal.
inline std::string printable(std::string_view s) {
  std::string out;
  for (const char ch : s.substr(0, 80)) out += static_cast<unsigned char>(ch) < 32 || ch == 127 ? '?' : ch;
  return out;
}

struct shard {
  std::string path;
  mapped_file file;
  metadata meta;
  std::vector<tensor_info> tensors;
  std::uint64_t data_start = 0;
};

}  // namespace detail

class reader final : public model_view {
 public:
  /// Opens a file, or all shards of a split model through its first shard.
  static result<reader> open(const std::filesystem::path& path) {
    reader r;
    auto first = read_shard(path, 0);
    if (!first) return first.error();
    r.shards_.push_back(std::move(*first));
    if (auto more = r.open_other_shards(path); !more) return more.error();
    return r.index_tensors();
  }

  const metadata& meta() const noexcept override { return shards_.front().meta; }
  const std::vector<tensor_info>& tensors() const noexcept override { return tensors_; }
  int shards() const noexcept { return static_cast<int>(shards_.size()); }
  const std::string& path() const noexcept override { return shards_.front().path; }
  const std::string& shard_path(int i) const noexcept { return shards_[static_cast<std::size_t>(i)].path; }

  const tensor_info* find(std::string_view name) const override {
    const auto it = by_name_.find(std::string(name));
    return it == by_name_.end() ? nullptr : &tensors_[it->second];
  }

  /// The tensor's bytes; an error if its type is unknown (its size is then unknown too).
  result<std::span<const std::byte>> data(const tensor_info& t) const {
    const auto& s = shards_[static_cast<std::size_t>(t.shard)];
    if (!find_format(t.type) && !find_plain_type(t.type))
      return error{s.path + ": tensor '" + detail::printable(t.name) + "': unknown " + type_name(t.type)};
    return s.file.bytes().subspan(static_cast<std::size_t>(s.data_start + t.offset),
                                  static_cast<std::size_t>(t.nbytes));
  }

  result<row_source> rows(const tensor_info& t) const override {
    const auto bytes = data(t);
    if (!bytes) return bytes.error();
    const auto n = static_cast<std::uint64_t>(t.rows() * t.slices());
    return row_source(*bytes, n ? bytes->size() / n : 0);
  }

 private:
  static result<detail::shard> read_shard(const std::filesystem::path& path, int number) {
    auto file = mapped_file::open(path);
    if (!file) return file.error();
    detail::shard s;
    s.path = path.string();
    s.file = std::move(*file);
    detail::cursor c(s.file.bytes());
    std::uint64_t n_tensors = 0, n_kv = 0;
    if (auto h = read_header(s, c, n_tensors, n_kv); !h) return h.error();
    if (auto kv = read_metadata(s, c, n_kv); !kv) return kv.error();
    if (auto t = read_tensor_table(s, c, n_tensors, number); !t) return t.error();
    if (auto e = check_ranges(s, c.position()); !e) return e.error();
    return s;
  }

  static result<void> read_header(const detail::shard& s, detail::cursor& c, std::uint64_t& n_tensors,
                                  std::uint64_t& n_kv) {
    const auto magic = c.read<std::uint32_t>();
    const auto version = c.read<std::uint32_t>();
    n_tensors = c.read<std::uint64_t>();
    n_kv = c.read<std::uint64_t>();
    if (magic != 0x46554747u && s.file.bytes().size() >= 4)
      return error{s.path + ": not a GGUF file (bad magic)"};
    if (c.failed()) return error{s.path + ": truncated: shorter than a GGUF header"};
    if ((version & 0xffffu) == 0) return error{s.path + ": big-endian GGUF files are not supported"};
    if (version != 2 && version != 3)
      return error{s.path + ": GGUF version " + std::to_string(version) + " is not supported (2 and 3 are)"};
    // The smallest entry of each kind bounds what the counts can claim.
    if (n_kv > c.remaining() / 13)
      return error{s.path + ": " + std::to_string(n_kv) + " keys do not fit in the file"};
    if (n_tensors > c.remaining() / 24)
      return error{s.path + ": " + std::to_string(n_tensors) + " tensors do not fit in the file"};
    return {};
  }

  static result<void> read_metadata(detail::shard& s, detail::cursor& c, std::uint64_t n_kv) {
    for (std::uint64_t i = 0; i < n_kv; ++i) {
      const std::string key = c.read_string();
      const std::string where = s.path + ": key " + std::to_string(i) + " '" + detail::printable(key) + "'";
      if (c.failed()) return error{s.path + ": key " + std::to_string(i) + ": truncated"};
      if (key.empty()) return error{where + ": empty name"};
      auto v = detail::read_value(c);
      if (!v)
        return error{where +
                     (c.failed() ? ": value truncated or too long" : ": unknown type or nested array")};
      if (s.meta.contains(key)) return error{where + ": duplicate key"};
      s.meta.set(key, std::move(*v));
    }
    return {};
  }

  static result<void> read_tensor_table(detail::shard& s, detail::cursor& c, std::uint64_t n_tensors,
                                        int number) {
    std::unordered_set<std::string> names;
    std::optional<std::int64_t> elements = 0;
    for (std::uint64_t i = 0; i < n_tensors; ++i) {
      tensor_info t;
      t.shard = number;
      t.name = c.read_string();
      const std::string where =
          s.path + ": tensor " + std::to_string(i) + " '" + detail::printable(t.name) + "'";
      const auto n_dims = c.read<std::uint32_t>();
      if (c.failed()) return error{s.path + ": tensor table truncated at tensor " + std::to_string(i)};
      if (n_dims > 4) return error{where + ": " + std::to_string(n_dims) + " dimensions (at most 4)"};
      t.n_dims = static_cast<int>(n_dims);
      for (std::uint32_t d = 0; d < n_dims; ++d) {
        const auto n = c.read<std::uint64_t>();
        if (n > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
          return error{where + ": dimension " + std::to_string(d) + " overflows"};
        t.ne[d] = static_cast<std::int64_t>(n);
      }
      t.type = c.read<std::uint32_t>();
      t.offset = c.read<std::uint64_t>();
      if (c.failed()) return error{where + ": truncated"};
      if (t.name.empty()) return error{where + ": empty name"};
      if (t.name.size() > 63) return error{where + ": name longer than 63 bytes"};
      if (t.name.find('\0') != std::string::npos) return error{where + ": name holds a zero byte"};
      if (!names.insert(t.name).second) return error{where + ": duplicate tensor"};
      const auto its_elements = checked_product(t.ne);
      elements = its_elements ? checked_add(*elements, *its_elements) : its_elements;
      if (!elements) return error{where + ": the number of elements overflows"};
      if (find_format(t.type) || find_plain_type(t.type)) {
        const auto bytes = tensor_bytes(t.type, t.ne);
        if (!bytes)
          return error{where + ": size overflows or " + std::to_string(t.ne[0]) +
                       " columns are not whole blocks of " + type_name(t.type)};
        t.nbytes = *bytes;
      }
      s.tensors.push_back(std::move(t));
    }
    return {};
  }

  static result<void> check_ranges(detail::shard& s, std::size_t table_end) {
    std::uint64_t alignment = default_alignment;
    if (s.meta.contains("general.alignment")) {
      const auto a = s.meta.integer("general.alignment", 1, static_cast<std::int64_t>(max_alignment));
      if (!a) return error{s.path + ": " + a.error().message};
      alignment = static_cast<std::uint64_t>(*a);
      if (alignment & (alignment - 1)) return error{s.path + ": general.alignment is not a power of two"};
    }
    const auto start = checked_round_up(table_end, alignment);
    if (!start) return error{s.path + ": data start overflows"};
    s.data_start = *start;
    const std::uint64_t size = s.file.bytes().size();
    std::vector<std::pair<std::uint64_t, const tensor_info*>> used;
    for (const auto& t : s.tensors) {
      const std::string where = s.path + ": tensor '" + detail::printable(t.name) + "'";
      if (t.offset % alignment != 0) return error{where + ": offset is not a multiple of the alignment"};
      std::uint64_t end;
      if (__builtin_add_overflow(s.data_start, t.offset, &end) ||
          __builtin_add_overflow(end, t.nbytes, &end) || end > size)
        return error{where + ": needs bytes up to " + std::to_string(end) + " of a file of " +
                     std::to_string(size) + " (truncated?)"};
      if (t.nbytes) used.emplace_back(t.offset, &t);
    }
    std::sort(used.begin(), used.end());
    for (std::size_t i = 1; i < used.size(); ++i)
      if (used[i - 1].first + used[i - 1].second->nbytes > used[i].first)
        return error{s.path + ": tensors '" + detail::printable(used[i - 1].second->name) + "' and '" +
                     detail::printable(used[i].second->name) + "' overlap"};
    return {};
  }

  result<void> open_other_shards(const std::filesystem::path& path) {
    const auto& meta = shards_.front().meta;
    if (!meta.contains("split.count")) return {};
    const auto count = meta.integer("split.count", 0, 65535);
    if (!count) return error{path.string() + ": " + count.error().message};
    if (*count <= 1) return {};
    const auto no = meta.integer("split.no");
    if (!no || *no != 0) return error{path.string() + ": not the first shard; open the file with split.no 0"};
    const auto name = [&](std::int64_t i) {
      char suffix[48];
      std::snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", static_cast<int>(i + 1),
                    static_cast<int>(*count));
      return std::string(suffix);
    };
    const std::string full = path.string(), suffix = name(0);
    if (full.size() < suffix.size() || full.compare(full.size() - suffix.size(), suffix.size(), suffix) != 0)
      return error{full + ": says it is the first of " + std::to_string(*count) +
                   " shards but its name does not end in " + suffix};
    const std::string prefix = full.substr(0, full.size() - suffix.size());
    for (std::int64_t i = 1; i < *count; ++i) {
      auto s = read_shard(prefix + name(i), static_cast<int>(i));
      if (!s)
        return error{"shard " + std::to_string(i + 1) + " of " + std::to_string(*count) + ": " +
                     s.error().message};
      const auto its_no = s->meta.integer("split.no"), its_count = s->meta.integer("split.count");
      if (!its_no || *its_no != i) return error{s->path + ": split.no should be " + std::to_string(i)};
      if (!its_count || *its_count != *count)
        return error{s->path + ": split.count should be " + std::to_string(*count)};
      shards_.push_back(std::move(*s));
    }
    return {};
  }

  result<reader> index_tensors() {
    for (const auto& s : shards_)
      for (const auto& t : s.tensors) {
        if (!by_name_.try_emplace(t.name, tensors_.size()).second)
          return error{s.path + ": tensor '" + detail::printable(t.name) + "' is also in another shard"};
        tensors_.push_back(t);
      }
    if (shards_.size() > 1 && meta().contains("split.tensors.count")) {
      const auto want = meta().integer("split.tensors.count");
      if (!want || *want != static_cast<std::int64_t>(tensors_.size()))
        return error{path() + ": the shards hold " + std::to_string(tensors_.size()) +
                     " tensors, split.tensors.count says otherwise"};
    }
    return std::move(*this);
  }

  std::vector<detail::shard> shards_;
  std::vector<tensor_info> tensors_;
  std::unordered_map<std::string, std::size_t> by_name_;
};

}  // namespace quantal::gguf
