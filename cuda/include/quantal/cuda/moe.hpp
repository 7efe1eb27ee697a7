// The feed-forward part of a mixture of experts in one call: gate and up, the gated unit, down, the sum over a
// token's experts. Needs no CUDA compiler; moe_ffn.cuh has what it is made of.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "quantal/cuda/device.hpp"
#include "quantal/status.hpp"

namespace quantal::cuda {

/// (u + shift) * g / (1 + exp(-alpha * g)), g being at most `limit` and u between -limit and limit: SwiGLU as
/// it stands here; clamped with a limit; gpt-oss with limit 7, alpha 1.702, shift 1.
struct gated_unit {
  float limit = std::numeric_limits<float>::infinity(), alpha = 1, shift = 0;
};

/// out[t] = sum over j of shares[t][j] * (down[e] h + down_bias[e]), e = ids[t][j],
/// h = unit(gate[e] x + gate_bias[e], up[e] x + up_bias[e]), x = activations[t].
/// All pointers are to device memory; ids outside of the experts make the results of their token NaN.
struct moe_ffn_args {
  const std::byte* gate;  ///< [experts][inner] rows of `width` weights
  const std::byte* up;    ///< likewise; null: each expert's rows of gate are followed by those of up
  const std::byte* down;  ///< [experts][width] rows of `inner` weights
  std::int64_t experts, width, inner;
  std::int64_t gate_row_stride, gate_expert_stride;  ///< bytes, of up too
  std::int64_t down_row_stride, down_expert_stride;
  const float *gate_bias, *up_bias, *down_bias;  ///< [expert][row], or null
  gated_unit unit;
  const float* activations;
  std::int64_t tokens, activation_stride;
  const std::int32_t* ids;
  std::int64_t used, ids_stride;  ///< experts of a token
  const float* shares;
  std::int64_t shares_stride;  ///< floats between tokens
  float* out;
  std::int64_t out_stride;

  std::int64_t pairs() const noexcept { return tokens * used; }
};

/// One half of it for a format: h of every (token, slot), or the results from these.
struct moe_half {
  std::size_t (*workspace)(const moe_ffn_args&, precision, const device_info&) noexcept;
  status (*run)(const moe_ffn_args&, precision, const device_info&, float* hidden, void* workspace,
                std::size_t bytes, cudaStream_t stream) noexcept;
};

namespace detail {

inline std::size_t moe_hidden_bytes(const moe_ffn_args& a) noexcept {
  return (static_cast<std::size_t>(a.pairs()) * static_cast<std::size_t>(a.inner) * sizeof(float) + 255) /
         256 * 256;
}
inline bool moe_sizes_fit(const moe_ffn_args& a) noexcept {
  constexpr std::int64_t most = std::int64_t{1} << 30;
  return a.tokens <= most && a.used <= 1 << 16 && a.inner <= most && a.width <= most;
}

}  // namespace detail

/// Bytes of device memory, aligned to 256, that moe_ffn needs for these shapes, whatever the ids.
inline std::size_t moe_ffn_workspace(const moe_half& hidden, const moe_half& output, const moe_ffn_args& a,
                                     precision policy, const device_info& device) noexcept {
  if (a.tokens <= 0 || a.used <= 0 || a.experts <= 0 || a.inner <= 0 || a.width <= 0) return 0;
  constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
  if (!detail::moe_sizes_fit(a)) return most;
  const std::size_t rest = std::max(hidden.workspace(a, policy, device), output.workspace(a, policy, device));
  return rest == most ? most : detail::moe_hidden_bytes(a) + rest;
}

/// The whole. `hidden` is the half of the format of gate and up, `output` that of the format of down.
inline status moe_ffn(const moe_half& hidden, const moe_half& output, const moe_ffn_args& a, precision policy,
                      const device_info& device, void* workspace, std::size_t bytes,
                      cudaStream_t stream) noexcept {
  if (a.tokens < 0 || a.used < 0 || a.inner <= 0 || a.width <= 0 || !detail::moe_sizes_fit(a))
    return status::bad_shape;
  if (a.tokens == 0 || a.used == 0) return status::ok;
  if (!a.shares || !workspace) return status::null_pointer;
  if (a.tokens > 1 && a.shares_stride < a.used) return status::bad_stride;
  if (moe_ffn_workspace(hidden, output, a, policy, device) > bytes) return status::small_workspace;
  auto* h = static_cast<float*>(workspace);
  const std::size_t used = detail::moe_hidden_bytes(a);
  auto* rest = static_cast<std::byte*>(workspace) + used;
  const status s = hidden.run(a, policy, device, h, rest, bytes - used, stream);
  return s == status::ok ? output.run(a, policy, device, h, rest, bytes - used, stream) : s;
}

}  // namespace quantal::cuda
