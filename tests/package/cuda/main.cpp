// Says which formats the installed library has; decodes on a device where there is one.
#include <cstdio>
#include <quantal/cuda.hpp>

quantal::status decode(const std::byte* weights, std::int64_t cols, float* out);

int main() {
  const auto all = quantal::cuda::all_operations();
  for (const auto* o : all) std::printf("%.*s\n", static_cast<int>(o->name.size()), o->name.data());
  const auto* q4_k = quantal::cuda::find_operations(12);
  if (!q4_k || q4_k->name != "q4_K") return std::puts("no q4_K"), 1;
  std::puts(quantal::cuda::missing_format("q3_K").c_str());
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return 0;
  void *weights = nullptr, *out = nullptr;
  if (cudaMalloc(&weights, 144) != cudaSuccess || cudaMalloc(&out, 1024) != cudaSuccess) return 1;
  cudaMemset(weights, 0, 144);
  const quantal::status s = decode(static_cast<const std::byte*>(weights), 256, static_cast<float*>(out));
  return s == quantal::status::ok && cudaDeviceSynchronize() == cudaSuccess ? 0 : 1;
}
