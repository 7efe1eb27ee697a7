// What products are asked for, and on what device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace quantal::cuda {

/// What becomes of the activations.
enum class precision : std::uint8_t {
  bf16,  ///< rounded to bf16, as are the weights; float32 sums. Relative error of the result: about 3e-3.
  q8,    ///< rounded to int8 with a scale per 256 values where that is faster (few vectors): about 1e-2; bf16
         ///< elsewhere
  fp8,   ///< both rounded to e4m3 with a scale per row and per vector where that is faster (many vectors):
         ///< about 4e-2; bf16 elsewhere
};

/// What the plans need to know of a device.
struct device_info {
  int multiprocessors = 0;
  int major = 0;  ///< compute capability

  /// Has wgmma, bulk copies and clusters (compute capability 9.0); others, from 8.0 on, use mma.sync.
  bool hopper() const noexcept { return major == 9; }

  /// Of device `ordinal`; multiprocessors is 0 if it cannot be asked.
  static device_info of(int ordinal) noexcept {
    device_info d;
    if (cudaDeviceGetAttribute(&d.multiprocessors, cudaDevAttrMultiProcessorCount, ordinal) != cudaSuccess)
      return {};
    if (cudaDeviceGetAttribute(&d.major, cudaDevAttrComputeCapabilityMajor, ordinal) != cudaSuccess)
      return {};
    return d;
  }
};

}  // namespace quantal::cuda
