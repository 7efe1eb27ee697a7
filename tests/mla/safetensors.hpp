// The golden files: a JSON header and raw little-endian arrays.
#pragma once

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace quantal::test {

class safetensors {
 public:
  explicit safetensors(const std::string& path) {
    std::ifstream f(path, std::ios::binary);
    std::uint64_t n = 0;
    f.read(reinterpret_cast<char*>(&n), 8);
    std::string header(n, ' ');
    f.read(header.data(), static_cast<std::streamsize>(n));
    if (!f) throw std::runtime_error("cannot read " + path);
    header_ = nlohmann::json::parse(header);
    data_.assign(std::istreambuf_iterator<char>(f), {});
  }

  template <class T>
  std::vector<T> get(const std::string& key) const {
    const auto range = header_.at(key).at("data_offsets");
    const std::size_t first = range[0], last = range[1];
    std::vector<T> v((last - first) / sizeof(T));
    std::memcpy(v.data(), data_.data() + first, last - first);
    return v;
  }

 private:
  nlohmann::json header_;
  std::vector<char> data_;
};

}  // namespace quantal::test
