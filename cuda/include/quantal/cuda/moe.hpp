// The feed-forward part of a mixture of experts in one call: gate and up, the gated unit, down, the sum over a
// token's experts. Needs no CUDA compiler; moe_ffn.cuh has what it is made of.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "quantal/checks.hpp"
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
/// All pointers are to device memory, those of weights aligned to 16 bytes (status::bad_alignment); ids outside of
/// the experts make the results of their token NaN.
struct moe_ffn_args {
  const std::byte* gate;  ///< [experts][inner] rows of `width` weights
  /// Likewise; null: each expert's rows of gate are followed by those of up, inner * gate_row_stride bytes behind
  /// them, a multiple of 16, and gate_expert_stride is that of both.
  const std::byte* up;
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

/// One half of it for a format: h of every (token, slot), or the results from these. moe_ffn() asks `check` before
/// anything else, and whether what it writes is `apart` from the half's weights.
struct moe_half {
  status (*check)(const moe_ffn_args&, const device_info&) noexcept;
  bool (*apart)(const moe_ffn_args&, const checks::region& written) noexcept;
  std::size_t (*workspace)(const moe_ffn_args&, precision, const device_info&) noexcept;
  status (*run)(const moe_ffn_args&, precision, const device_info&, float* hidden, void* workspace,
                cudaStream_t stream) noexcept;
};

namespace detail {

inline std::size_t moe_hidden_bytes(const moe_ffn_args& a) noexcept {
  return (static_cast<std::size_t>(a.pairs()) * static_cast<std::size_t>(a.inner) * sizeof(float) + 255) /
         256 * 256;
}
/// Everything but weights and workspace.
inline status check_moe_vectors(const moe_ffn_args& a) noexcept {
  if (!a.activations || !a.ids || !a.shares || !a.out) return status::null_pointer;
  const auto fits = [](std::int64_t stride, std::int64_t least) { return checks::stride(stride, least); };
  return a.tokens == 1 || (fits(a.activation_stride, a.width) && fits(a.ids_stride, a.used) &&
                           fits(a.shares_stride, a.used) && fits(a.out_stride, a.width))
             ? status::ok
             : status::bad_stride;
}
/// Is `written` apart from all that is read, and addressable?
inline bool moe_apart(const moe_half& hidden, const moe_half& output, const moe_ffn_args& a,
                      const checks::region& written) noexcept {
  const auto of_tokens = [&](const void* data, std::int64_t stride) {
    return checks::region{data, 1, 0, a.tokens, a.tokens > 1 ? 4 * stride : 0, 4 * a.used};
  };
  const auto biases = [&](const float* data, std::int64_t rows) {
    return checks::region{data, 1, 0, a.experts, 4 * rows, 4 * rows};
  };
  for (const checks::region& read :
       {checks::vectors(a.activations, a.tokens, a.activation_stride, a.width),
        of_tokens(a.ids, a.ids_stride), of_tokens(a.shares, a.shares_stride), biases(a.gate_bias, a.inner),
        biases(a.up_bias, a.inner), biases(a.down_bias, a.width)})
    if (!read.addressable() || checks::overlap(written, read)) return false;
  return written.addressable() && hidden.apart(a, written) && output.apart(a, written);
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
  if (a.tokens == 0) return status::ok;
  if (a.used == 0) return status::bad_shape;  // nothing that results could be the sum of
  if (const status s = detail::check_moe_vectors(a); s != status::ok) return s;
  for (const moe_half* half : {&hidden, &output})
    if (const status s = half->check(a, device); s != status::ok) return s;
  const std::size_t needed = moe_ffn_workspace(hidden, output, a, policy, device);
  if (needed == std::numeric_limits<std::size_t>::max()) return status::bad_shape;
  if (needed > bytes) return status::small_workspace;
  if (!workspace) return status::null_pointer;
  const checks::region out = checks::vectors(a.out, a.tokens, a.out_stride, a.width),
                       work{workspace, 1, 0, 1, 0, static_cast<std::int64_t>(needed)};
  if (checks::overlap(out, work) || !detail::moe_apart(hidden, output, a, out) ||
      !detail::moe_apart(hidden, output, a, work))
    return status::overlap;
  auto* h = static_cast<float*>(workspace);
  auto* rest = static_cast<std::byte*>(workspace) + detail::moe_hidden_bytes(a);
  const status s = hidden.run(a, policy, device, h, rest, stream);
  return s == status::ok ? output.run(a, policy, device, h, rest, stream) : s;
}

}  // namespace quantal::cuda
