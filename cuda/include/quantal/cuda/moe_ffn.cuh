// The two halves of the feed-forward part of a mixture of experts (moe.hpp) for the formats of their weights.
//
// Few (token, slot) pairs: each half is one kernel (gemv_part). Others: products of mul_mat_id, and a kernel
// that puts them together.
#pragma once

#include "quantal/cuda/moe.hpp"
#include "quantal/cuda/mul_mat.cuh"

namespace quantal::cuda {
namespace detail {

inline mul_mat_id_args gate_product(const moe_ffn_args& a, float* out) noexcept {
  return {a.gate,
          a.experts,
          a.inner,
          a.width,
          a.gate_row_stride,
          a.gate_expert_stride,
          a.activations,
          a.tokens,
          a.activation_stride,
          0,
          a.ids,
          a.used,
          a.ids_stride,
          out,
          a.used * a.inner,
          a.inner};
}
inline mul_mat_id_args up_product(const moe_ffn_args& a, float* out) noexcept {
  mul_mat_id_args p = gate_product(a, out);
  p.weights = a.up ? a.up : a.gate + a.inner * a.gate_row_stride;
  return p;
}
inline mul_mat_id_args down_product(const moe_ffn_args& a, const float* hidden, float* out) noexcept {
  return {a.down,
          a.experts,
          a.width,
          a.inner,
          a.down_row_stride,
          a.down_expert_stride,
          hidden,
          a.tokens,
          a.used * a.inner,
          a.inner,
          a.ids,
          a.used,
          a.ids_stride,
          out,
          a.used * a.width,
          a.width};
}

/// hidden = unit(hidden + bias, up + bias): blockIdx.x is a (token, slot) pair.
template <int Threads>
__global__ void __launch_bounds__(Threads) unite(const moe_ffn_args a, float* hidden, const float* up) {
  ptx::wait_for_prerequisites();
  ptx::launch_dependents();
  const std::int64_t pair = blockIdx.x, first = pair * a.inner;
  const int expert = a.ids[pair / a.used * a.ids_stride + pair % a.used];
  const bool biased = expert >= 0 && expert < a.experts;
  for (std::int64_t i = threadIdx.x; i < a.inner; i += Threads) {
    const float g = biased && a.gate_bias ? a.gate_bias[expert * a.inner + i] : 0.0f;
    const float u = biased && a.up_bias ? a.up_bias[expert * a.inner + i] : 0.0f;
    hidden[first + i] = gated(a.unit, hidden[first + i] + g, up[first + i] + u);
  }
}

/// out = the weighted sum of results[slot]: blockIdx.x is a token.
template <int Threads>
__global__ void __launch_bounds__(Threads) mix_slots(const moe_ffn_args a, const float* results) {
  ptx::wait_for_prerequisites();
  ptx::launch_dependents();
  const std::int64_t token = blockIdx.x, step = static_cast<std::int64_t>(gridDim.y) * Threads;
  for (std::int64_t i = blockIdx.y * static_cast<std::int64_t>(Threads) + threadIdx.x; i < a.width;
       i += step) {
    float sum = 0;
    for (std::int64_t j = 0; j < a.used; ++j) {
      const int expert = a.ids[token * a.ids_stride + j];
      float r = results[(token * a.used + j) * a.width + i];
      if (a.down_bias && expert >= 0 && expert < a.experts) r += a.down_bias[expert * a.width + i];
      sum += a.shares[token * a.shares_stride + j] * r;
    }
    a.out[token * a.out_stride + i] = sum;
  }
}

/// What both halves ask of gemv_kernel.
inline gemv_args moe_gemv(const moe_ffn_args& a) noexcept {
  gemv_args g{};
  g.n = 1;
  g.ids = a.ids, g.experts = static_cast<int>(a.experts), g.used = static_cast<int>(a.used);
  g.ids_stride = a.ids_stride;
  g.unit = a.unit;
  g.shares = a.shares, g.shares_stride = a.shares_stride;
  return g;
}

/// The plan of gemv_kernel for a half, if it takes it.
template <block_format F>
gemv_plan fit_moe(const mul_mat_id_args& a, precision policy, const device_info& device,
                  const gemv_load& load) noexcept {
  if (policy != precision::q8 || a.tokens * a.used > max_gemv_pairs<F>) return {};
  return fit_gemv<F, 1>(
      {a.weights, a.rows, a.cols, a.weight_row_stride, a.expert_stride, {}, {}, nullptr, device}, load);
}

template <any_format F>
cudaError_t moe_hidden(const moe_ffn_args& a, float* hidden, precision policy, const device_info& device,
                       arena& memory, bool run, cudaStream_t stream) noexcept {
  const mul_mat_id_args gate = gate_product(a, hidden), up = up_product(a, nullptr);
  if constexpr (block_format<F>) {
    const gemv_load load{a.pairs(), 1, 2};
    gemv_args g = moe_gemv(a);
    g.plan = fit_moe<F>(gate, policy, device, load);
    if (g.plan.stages) {  // up is laid out as gate is, and as aligned
      if (!run) return cudaSuccess;
      g.weights = gate.weights, g.up = up.weights;
      g.row_stride = a.gate_row_stride, g.expert_stride = a.gate_expert_stride;
      g.rows = static_cast<int>(a.inner), g.cols = static_cast<int>(a.width);
      g.bias = a.gate_bias, g.up_bias = a.up_bias;
      g.x = a.activations, g.token_stride = a.activation_stride;
      g.out = hidden, g.out_token_stride = a.used * a.inner, g.out_slot_stride = a.inner;
      if constexpr (gemv_pays<F>) return launch_gemv<F, 1, gemv_part::glu>(g, load, stream);
    }
  }
  mul_mat_id_args second = up;
  second.out = memory.take<float>(a.pairs() * a.inner);
  // Both products may use the same memory.
  arena first = memory;
  if (const auto e = mul_mat_id<F>(gate, policy, device, first, run, stream); e != cudaSuccess) return e;
  if (const auto e = mul_mat_id<F>(second, policy, device, memory, run, stream); e != cudaSuccess) return e;
  if (!run) return cudaSuccess;
  return launch(&unite<256>, dim3(static_cast<unsigned>(a.pairs())), 256, 0, device.hopper() ? 1 : 0, stream,
                a, hidden, static_cast<const float*>(second.out));
}

template <any_format F>
cudaError_t moe_output(const moe_ffn_args& a, const float* hidden, precision policy,
                       const device_info& device, arena& memory, bool run, cudaStream_t stream) noexcept {
  mul_mat_id_args down = down_product(a, hidden, nullptr);
  if constexpr (block_format<F>) {
    const int used = static_cast<int>(std::min<std::int64_t>(a.used, 1 << 16));
    const gemv_load load{a.tokens, used, used};
    gemv_args g = moe_gemv(a);
    g.plan = fit_moe<F>(down, policy, device, load);
    if (g.plan.stages) {
      if (!run) return cudaSuccess;
      g.weights = a.down;
      g.row_stride = a.down_row_stride, g.expert_stride = a.down_expert_stride;
      g.rows = static_cast<int>(a.width), g.cols = static_cast<int>(a.inner);
      g.bias = a.down_bias;
      g.x = hidden, g.token_stride = a.used * a.inner, g.slot_stride = a.inner;
      g.out = a.out, g.out_token_stride = a.out_stride;
      if constexpr (gemv_pays<F>) return launch_gemv<F, 1, gemv_part::mix>(g, load, stream);
    }
  }
  down.out = memory.take<float>(a.pairs() * a.width);
  if (const auto e = mul_mat_id<F>(down, policy, device, memory, run, stream); e != cudaSuccess) return e;
  if (!run) return cudaSuccess;
  const auto columns = static_cast<unsigned>(std::min<std::int64_t>((a.width + 255) / 256, 65535));
  return launch(&mix_slots<256>, dim3(static_cast<unsigned>(a.tokens), columns), 256, 0,
                device.hopper() ? 1 : 0, stream, a, static_cast<const float*>(down.out));
}

/// Bytes of workspace that a half takes: `half` is moe_hidden<F> or moe_output<F>.
template <auto half>
std::size_t moe_half_workspace(const moe_ffn_args& a, precision policy, const device_info& device) noexcept {
  if (!countable(gate_product(a, nullptr))) return std::numeric_limits<std::size_t>::max();
  arena count(nullptr);
  half(a, nullptr, policy, device, count, false, nullptr);
  return count.used();
}
template <auto half>
status run_moe_half(const moe_ffn_args& a, precision policy, const device_info& device, float* hidden,
                    void* workspace, cudaStream_t stream) noexcept {
  arena memory(workspace);
  return half(a, hidden, policy, device, memory, true, stream) == cudaSuccess ? status::ok
                                                                              : status::device_error;
}

/// Weights of gate, of up where they are apart, of down.
inline checks::weight_stack gates_of(const moe_ffn_args& a) noexcept {
  return {a.gate, a.experts, a.up ? a.inner : 2 * a.inner, a.width, a.gate_row_stride, a.gate_expert_stride};
}
inline checks::weight_stack ups_of(const moe_ffn_args& a) noexcept {
  return {a.up, a.experts, a.inner, a.width, a.gate_row_stride, a.gate_expert_stride};
}
inline checks::weight_stack downs_of(const moe_ffn_args& a) noexcept {
  return {a.down, a.experts, a.width, a.inner, a.down_row_stride, a.down_expert_stride};
}

template <any_format F>
status check_moe_weights(const checks::weight_stack& w, const device_info& device) noexcept {
  const status s = checks::check_weights(checks::row_layout_of<F>, w);
  return s == status::ok ? check_on_device<F>(w, device) : s;
}
template <any_format F>
status check_moe_hidden(const moe_ffn_args& a, const device_info& device) noexcept {
  if (const status s = check_moe_weights<F>(gates_of(a), device); s != status::ok) return s;
  if (a.up) return check_moe_weights<F>(ups_of(a), device);
  return a.inner * a.gate_row_stride % 16 ? status::bad_alignment : status::ok;
}
template <any_format F>
status check_moe_output(const moe_ffn_args& a, const device_info& device) noexcept {
  return check_moe_weights<F>(downs_of(a), device);
}
template <any_format F>
bool moe_hidden_apart(const moe_ffn_args& a, const checks::region& written) noexcept {
  return !checks::overlap(written, gates_of(a).memory(checks::row_layout_of<F>)) &&
         !checks::overlap(written, ups_of(a).memory(checks::row_layout_of<F>));
}
template <any_format F>
bool moe_output_apart(const moe_ffn_args& a, const checks::region& written) noexcept {
  return !checks::overlap(written, downs_of(a).memory(checks::row_layout_of<F>));
}

}  // namespace detail

template <any_format F>
inline constexpr moe_half moe_hidden{&detail::check_moe_hidden<F>, &detail::moe_hidden_apart<F>,
                                     &detail::moe_half_workspace<&detail::moe_hidden<F>>,
                                     &detail::run_moe_half<&detail::moe_hidden<F>>};
template <any_format F>
inline constexpr moe_half moe_output{&detail::check_moe_output<F>, &detail::moe_output_apart<F>,
                                     &detail::moe_half_workspace<&detail::moe_output<F>>,
                                     &detail::run_moe_half<&detail::moe_output<F>>};

}  // namespace quantal::cuda
