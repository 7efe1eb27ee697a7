// Writes safetensors files for tests, with no help from the code under test.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "support/temp_dir.hpp"

namespace quantal::test {

struct raw_tensor {
  std::string name, dtype;
  std::vector<std::int64_t> shape;
  std::string bytes;
};

/// The JSON entry of a tensor of `size` bytes at `begin`.
inline std::string header_entry(const raw_tensor& t, std::size_t begin, std::size_t size) {
  std::string shape;
  for (const auto d : t.shape) shape += (shape.empty() ? "" : ",") + std::to_string(d);
  return "\"" + t.name + "\":{\"dtype\":\"" + t.dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(begin + size) + "]}";
}

/// A file from its JSON and data, padded to 8 bytes as writers do.
inline std::string safetensors_bytes(std::string header, const std::string& data) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::uint64_t n = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &n, 8);
  return out + header + data;
}

inline std::string safetensors_bytes(const std::vector<raw_tensor>& tensors) {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}", data;
  for (const auto& t : tensors) {
    header += "," + header_entry(t, data.size(), t.bytes.size());
    data += t.bytes;
  }
  return safetensors_bytes(header + "}", data);
}

/// model.safetensors.index.json for (file, its tensors).
inline std::string index_json(const std::vector<std::pair<std::string, std::vector<raw_tensor>>>& shards) {
  std::string map;
  std::size_t total = 0;
  for (const auto& [file, tensors] : shards)
    for (const auto& t : tensors) {
      map += (map.empty() ? "" : ",") + ("\"" + t.name + "\":\"" + file + "\"");
      total += t.bytes.size();
    }
  return "{\"metadata\":{\"total_size\":" + std::to_string(total) + "},\"weight_map\":{" + map + "}}";
}

/// As tiktoken files have it.
inline std::string base64(const std::string& s) {
  static const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < s.size(); i += 3) {
    std::uint32_t v = 0;
    for (std::size_t k = 0; k < 3; ++k)
      v = v << 8 | (i + k < s.size() ? static_cast<unsigned char>(s[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k) out += i + k <= s.size() ? digits[v >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

}  // namespace quantal::test
