// Launching kernels with attributes, errors returned.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace quantal::cuda::detail {

/// Shared memory of a launch, and the most that any launch of this kernel takes: what a kernel may take is set for
/// all threads of the host, and must not depend on who calls.
struct dynamic_shared {
  int bytes, most;
  dynamic_shared(int every) noexcept : bytes(every), most(every) {}
  dynamic_shared(int now, int at_most) noexcept : bytes(now), most(at_most) {}
};

/// A launch in clusters along x whose prologue may overlap the kernel in front of it: kernels wait for that
/// one's results themselves (ptx::wait_for_prerequisites). Cluster 0: neither, for devices without.
template <class... Params, class... Args>
cudaError_t launch(void (*kernel)(Params...), dim3 grid, int threads, dynamic_shared shared, int cluster,
                   cudaStream_t stream, Args&&... args) noexcept {
  if (shared.most > 48 * 1024)
    if (const auto e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared.most);
        e != cudaSuccess)
      return e;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = static_cast<unsigned>(cluster);
  attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared.bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = static_cast<unsigned>(cluster > 1 ? 2 : cluster);
  return cudaLaunchKernelEx(&config, kernel, static_cast<Args&&>(args)...);
}

}  // namespace quantal::cuda::detail
