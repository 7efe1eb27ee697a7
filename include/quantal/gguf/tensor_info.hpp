// One entry of a GGUF tensor table, and the sizes that follow from its type.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "quantal/formats.hpp"

namespace quantal::gguf {

struct tensor_info {
  std::string name;
  std::uint32_t type = 0;                     ///< GGUF tensor type number
  int n_dims = 0;                             ///< as written in the file
  std::array<std::int64_t, 4> ne{1, 1, 1, 1};  ///< ne[0] is contiguous
  std::uint64_t offset = 0;                   ///< from the start of its shard's data
  std::uint64_t nbytes = 0;                   ///< 0 if the type is unknown
  int shard = 0;

  std::int64_t cols() const noexcept { return ne[0]; }
  std::int64_t rows() const noexcept { return ne[1]; }
  std::int64_t slices() const noexcept { return ne[2] * ne[3]; }
  std::int64_t elements() const noexcept { return ne[0] * ne[1] * ne[2] * ne[3]; }
};

/// Integer and f64 tensors: readers size and copy them, nothing else.
struct plain_type {
  std::uint32_t id;
  const char* name;
  int bytes;
};
inline constexpr plain_type plain_types[] = {{24, "i8", 1}, {25, "i16", 2}, {26, "i32", 4}, {27, "i64", 8}, {28, "f64", 8}};

constexpr const plain_type* find_plain_type(std::uint32_t id) noexcept {
  for (const auto& t : plain_types)
    if (t.id == id) return &t;
  return nullptr;
}

/// "q4_K", "i32", or "type 77".
inline std::string type_name(std::uint32_t id) {
  if (const auto* f = find_format(id)) return std::string(f->name);
  if (const auto* p = find_plain_type(id)) return p->name;
  return "type " + std::to_string(id);
}

/// a * b, or nothing on overflow or negative input.
inline std::optional<std::int64_t> checked_multiply(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t r;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &r)) return std::nullopt;
  return r;
}

/// x rounded up to a multiple of a power of two, or nothing on overflow.
inline std::optional<std::uint64_t> checked_round_up(std::uint64_t x, std::uint64_t alignment) noexcept {
  std::uint64_t r;
  if (__builtin_add_overflow(x, alignment - 1, &r)) return std::nullopt;
  return r & ~(alignment - 1);
}

/// Bytes of a tensor of this type and shape; nothing if the type is unknown or the size overflows or the columns
/// are not whole blocks.
inline std::optional<std::uint64_t> tensor_bytes(std::uint32_t type, const std::array<std::int64_t, 4>& ne) noexcept {
  std::int64_t elements = 1, block = 1, block_bytes = 0, meta = 0;
  if (const auto* f = find_format(type)) {
    block = f->layout.elements, block_bytes = f->layout.bytes, meta = f->layout.row_meta;
  } else if (const auto* p = find_plain_type(type)) {
    block_bytes = p->bytes;
  } else {
    return std::nullopt;
  }
  for (const auto n : ne) {
    const auto e = checked_multiply(elements, n);
    if (!e) return std::nullopt;
    elements = *e;
  }
  if (ne[0] % block != 0) return std::nullopt;
  if (elements == 0) return 0;
  const auto row = checked_multiply(ne[0] / block, block_bytes);
  if (!row || *row > std::numeric_limits<std::int64_t>::max() - meta) return std::nullopt;
  const auto all = checked_multiply(*row + meta, elements / ne[0]);
  return all ? std::optional<std::uint64_t>(static_cast<std::uint64_t>(*all)) : std::nullopt;
}

}  // namespace quantal::gguf
