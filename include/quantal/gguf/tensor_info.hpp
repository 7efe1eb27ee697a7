// One entry of a GGUF tensor table, and the sizes that follow from its type.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "quantal/checked.hpp"
#include "quantal/formats.hpp"

namespace quantal::gguf {

struct tensor_info {
  std::string name;
  std::uint32_t type = 0;                      ///< GGUF tensor type number
  int n_dims = 0;                              ///< as written in the file
  std::array<std::int64_t, 4> ne{1, 1, 1, 1};  ///< ne[0] is contiguous
  std::uint64_t offset = 0;                    ///< from the start of its shard's data
  std::uint64_t nbytes = 0;                    ///< 0 if the type is unknown
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
inline constexpr plain_type plain_types[] = {
    {24, "i8", 1}, {25, "i16", 2}, {26, "i32", 4}, {27, "i64", 8}, {28, "f64", 8}};

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

using quantal::checked_add;
using quantal::checked_multiply;
using quantal::checked_product;
using quantal::checked_round_up;

/// Bytes of a tensor of this type and shape; nothing if the type is unknown or the size overflows or the columns
/// are not whole blocks.
inline std::optional<std::uint64_t> tensor_bytes(std::uint32_t type,
                                                 const std::array<std::int64_t, 4>& ne) noexcept {
  std::int64_t block = 1, block_bytes = 0, meta = 0;
  if (const auto* f = find_format(type)) {
    block = f->layout.elements, block_bytes = f->layout.bytes, meta = f->layout.row_meta;
  } else if (const auto* p = find_plain_type(type)) {
    block_bytes = p->bytes;
  } else {
    return std::nullopt;
  }
  const auto elements = checked_product(ne);
  if (!elements || ne[0] % block != 0) return std::nullopt;
  if (*elements == 0) return 0;
  const auto blocks = checked_multiply(ne[0] / block, block_bytes);
  const auto row = blocks ? checked_add(*blocks, meta) : blocks;
  const auto all = row ? checked_multiply(*row, *elements / ne[0]) : row;
  return all ? std::optional<std::uint64_t>(static_cast<std::uint64_t>(*all)) : std::nullopt;
}

}  // namespace quantal::gguf
