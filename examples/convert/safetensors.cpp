#include "safetensors.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "impostor.hpp"
#include "quantal/gguf/tensor_info.hpp"
#include "strict_json.hpp"
#include "text.hpp"

namespace quantal::hf {
namespace {

/// What the reference implementation of the format allows.
constexpr std::uint64_t max_header = 100'000'000;
constexpr std::size_t max_dimensions = 8;

struct type_row {
  std::string_view name;
  std::int64_t bits;
};
/// In the order of `dtype`.
constexpr auto types = std::to_array<type_row>({{"BF16", 16},
                                                {"F16", 16},
                                                {"F32", 32},
                                                {"F8_E4M3", 8},
                                                {"F8_E8M0", 8},
                                                {"F4", 4},
                                                {"F64", 64},
                                                {"F8_E5M2", 8},
                                                {"I8", 8},
                                                {"U8", 8},
                                                {"I16", 16},
                                                {"U16", 16},
                                                {"I32", 32},
                                                {"U32", 32},
                                                {"I64", 64},
                                                {"U64", 64},
                                                {"BOOL", 8}});

const type_row& row_of(dtype t) noexcept { return types[static_cast<std::size_t>(t)]; }

/// A non-negative integer that fits 63 bits.
std::optional<std::int64_t> natural(const document& d) {
  if (!d.is_number_unsigned()) return std::nullopt;
  const auto v = d.get<std::uint64_t>();
  return v >> 63 ? std::nullopt : std::optional(static_cast<std::int64_t>(v));
}

/// The JSON text; the tensor bytes begin behind it.
result<std::string_view> header_text(const std::string& path, std::span<const std::byte> file) {
  const std::string_view start(reinterpret_cast<const char*>(file.data()),
                               std::min<std::size_t>(file.size(), 256));
  if (const auto what = impostor(start); !what.empty()) return error{path + ": " + what};
  if (file.size() < 8)
    return error{path + ": truncated: " + std::to_string(file.size()) + " bytes hold no header length"};
  std::uint64_t n = 0;
  std::memcpy(&n, file.data(), 8);
  if (n > max_header)
    return error{path + ": header length " + std::to_string(n) + " is absurd; not a safetensors file?"};
  if (n > file.size() - 8)
    return error{path + ": truncated: the header should have " + std::to_string(n) + " bytes, the file has " +
                 std::to_string(file.size() - 8) + " behind its length"};
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, static_cast<std::size_t>(n));
  if (text.empty() || text.front() != '{') return error{path + ": the header does not begin with '{'"};
  return text;
}

result<std::vector<std::int64_t>> read_shape(const document& entry, const std::string& where) {
  const auto* shape = member(entry, "shape");
  if (!shape || !shape->is_array()) return error{where + ": 'shape' is missing or no array"};
  if (shape->size() > max_dimensions)
    return error{where + ": " + std::to_string(shape->size()) + " dimensions (at most " +
                 std::to_string(max_dimensions) + ")"};
  std::vector<std::int64_t> out;
  for (const auto& d : *shape) {
    const auto n = natural(d);
    if (!n) return error{where + ": a dimension of 'shape' is no natural number"};
    out.push_back(*n);
  }
  return out;
}

/// Bytes that dtype and shape imply; nothing on overflow.
std::optional<std::int64_t> implied_bytes(const stored_tensor& t) {
  std::optional<std::int64_t> bits = bits_of(t.type);
  for (const auto d : t.shape) bits = bits ? gguf::checked_multiply(*bits, d) : bits;
  return bits ? std::optional(*bits / 8 + (*bits % 8 != 0)) : std::nullopt;
}

result<stored_tensor> read_entry(const std::string& name, const document& entry, const std::string& where,
                                 std::span<const std::byte> data) {
  stored_tensor t;
  t.name = name;
  if (name.empty()) return error{where + ": empty name"};
  if (!entry.is_object()) return error{where + ": its entry is no object"};
  const auto* type = member(entry, "dtype");
  if (!type || !type->is_string()) return error{where + ": 'dtype' is missing or no string"};
  const auto known = find_dtype(type->get_ref<const std::string&>());
  if (!known) return error{where + ": unknown dtype " + text::in_quotes(type->get_ref<const std::string&>())};
  t.type = *known;
  auto shape = read_shape(entry, where);
  if (!shape) return shape.error();
  t.shape = std::move(*shape);
  const auto* offsets = member(entry, "data_offsets");
  if (!offsets || !offsets->is_array() || offsets->size() != 2)
    return error{where + ": 'data_offsets' is missing or no pair"};
  const auto begin = natural((*offsets)[0]), end = natural((*offsets)[1]);
  if (!begin || !end || *begin > *end)
    return error{where + ": 'data_offsets' are no ascending natural numbers"};
  if (static_cast<std::uint64_t>(*end) > data.size())
    return error{where + ": its bytes end at " + std::to_string(*end) + ", the file's data at " +
                 std::to_string(data.size()) + " (truncated?)"};
  const auto want = implied_bytes(t);
  if (!want) return error{where + ": the size of " + t.shape_text() + " overflows"};
  if (*want != *end - *begin)
    return error{where + ": " + t.shape_text() + " of " + std::string(to_string(t.type)) + " are " +
                 std::to_string(*want) + " bytes, 'data_offsets' span " + std::to_string(*end - *begin)};
  t.bytes = data.subspan(static_cast<std::size_t>(*begin), static_cast<std::size_t>(*want));
  return t;
}

/// Tensors sorted by their bytes must cover the data without overlap and holes, as the format demands.
result<void> check_cover(const std::string& path, const std::vector<stored_tensor>& sorted,
                         std::span<const std::byte> data) {
  std::size_t at = 0;
  for (const auto& t : sorted) {
    const auto begin = static_cast<std::size_t>(t.bytes.data() - data.data());
    if (begin < at)
      return error{path + ": tensor " + text::in_quotes(t.name) + ": its bytes overlap another tensor's"};
    if (begin > at)
      return error{path + ": tensor " + text::in_quotes(t.name) + ": " + std::to_string(begin - at) +
                   " bytes before it belong to no tensor"};
    at = begin + t.bytes.size();
  }
  if (at != data.size())
    return error{path + ": " + std::to_string(data.size() - at) + " bytes at the end belong to no tensor"};
  return {};
}

}  // namespace

std::string_view to_string(dtype t) noexcept { return row_of(t).name; }
std::int64_t bits_of(dtype t) noexcept { return row_of(t).bits; }
std::optional<dtype> find_dtype(std::string_view name) noexcept {
  for (std::size_t i = 0; i < types.size(); ++i)
    if (types[i].name == name) return static_cast<dtype>(i);
  return std::nullopt;
}

std::int64_t stored_tensor::elements() const noexcept {
  return 8 * static_cast<std::int64_t>(bytes.size()) / bits_of(type);
}

std::string stored_tensor::shape_text() const {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

result<safetensors_file> safetensors_file::open(const std::filesystem::path& path) {
  safetensors_file f;
  f.path_ = path;
  auto mapped = gguf::mapped_file::open(path);
  if (!mapped) return mapped.error();
  f.file_ = std::move(*mapped);
  const auto json = header_text(path.string(), f.file_.bytes());
  if (!json) return json.error();
  const auto header = parse_json(*json, path.string() + ": header");
  if (!header) return header.error();
  const auto data = f.file_.bytes().subspan(8 + json->size());
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") continue;
    auto t = read_entry(name, entry, path.string() + ": tensor " + text::in_quotes(name), data);
    if (!t) return t.error();
    f.tensors_.push_back(std::move(*t));
  }
  // Empty tensors share their offset with the next one and come first.
  std::stable_sort(f.tensors_.begin(), f.tensors_.end(), [](const stored_tensor& a, const stored_tensor& b) {
    return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
  });
  if (auto ok = check_cover(path.string(), f.tensors_, data); !ok) return ok.error();
  for (std::size_t i = 0; i < f.tensors_.size(); ++i) f.by_name_.emplace(f.tensors_[i].name, i);
  return f;
}

const stored_tensor* safetensors_file::find(std::string_view name) const {
  const auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

}  // namespace quantal::hf
