// The commands of quantal-blocks: raw arrays of rows to and from any format.
#pragma once

#include <filesystem>
#include <string>

#include "quantal/result.hpp"

namespace quantal::blocks {

struct options {
  std::string format;
  std::int64_t cols = 0;
  std::filesystem::path importance, scale, in, out;
  int threads = 1;
  bool json = false;
};

/// Every format with its layout, on stdout.
result<void> list(const options&);
/// Blocks to float32.
result<void> dequantize(const options&);
/// Float32 to blocks.
result<void> quantize(const options&);
/// Quantizes, decodes and prints the normalised mean squared errors, weighted by importance and plain.
result<void> measure_error(const options&);

}  // namespace quantal::blocks
