// Device functions of c_cuda.h.
#include <string>

#include "failure.hpp"
#include "quantal/c_cuda.h"
#include "quantal/cuda/operations.hpp"
#include "views.hpp"

namespace {

using namespace quantal;

/// Finds the operations of a format, or tells why there are none.
quantal_status find(const char* function, std::uint32_t format, const cuda::operations*& found) {
  found = cuda::find_operations(format);
  if (found) return QUANTAL_OK;
  const format_info* const f = find_format(format);
  return f ? c::fail(QUANTAL_UNSUPPORTED, function, cuda::missing_format(f->name))
           : c::fail(QUANTAL_UNKNOWN_FORMAT, function);
}
bool known(quantal_cuda_precision p) noexcept {
  return p == QUANTAL_CUDA_BF16 || p == QUANTAL_CUDA_Q8 || p == QUANTAL_CUDA_FP8;
}
cuda::precision precision_of(quantal_cuda_precision p) noexcept {
  return p == QUANTAL_CUDA_Q8    ? cuda::precision::q8
         : p == QUANTAL_CUDA_FP8 ? cuda::precision::fp8
                                 : cuda::precision::bf16;
}
cudaStream_t stream_of(void* s) noexcept { return static_cast<cudaStream_t>(s); }

/// A status, with what the device says of it.
template <class... Operands>
quantal_status answer(status s, const char* function, const Operands&... operands) {
  if (s != status::device_error) return c::answer(s, function, operands...);
  const std::string device = cudaGetErrorString(cudaPeekAtLastError());
  return c::refuse(s, function, std::string(to_string(s)) + " (" + device + ")", operands...);
}

/// A product's device, precision and format; calls launch(operations, device).
template <class Launch>
quantal_status on_device(const char* function, std::uint32_t format, quantal_cuda_precision precision,
                         int device, Launch&& launch) noexcept {
  return c::guarded(function, [&]() -> quantal_status {
    if (!known(precision)) return c::fail(QUANTAL_BAD_ARGUMENT, function, "no such precision");
    const cuda::operations* o;
    if (const quantal_status s = find(function, format, o); s != QUANTAL_OK) return s;
    const cuda::device_info info = cuda::device_info::of(device);
    if (info.multiprocessors == 0)
      return c::fail(QUANTAL_DEVICE_ERROR, function, "there is no device " + std::to_string(device));
    return launch(*o, info);
  });
}

}  // namespace

extern "C" {

bool quantal_cuda_has_format(uint32_t format) { return cuda::find_operations(format) != nullptr; }

quantal_status quantal_cuda_dequantize(const quantal_weights* weights, const quantal_matrix* out,
                                       void* stream) {
  if (!weights || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    const cuda::operations* o;
    if (const quantal_status s = find(function, weights->format, o); s != QUANTAL_OK) return s;
    const auto w = c::view_of(*weights);
    const auto to = c::view_of<float>(*out);
    if (const status s = runtime::detail::check_views(w); s != status::ok)
      return answer(s, function, *weights);
    if (const status s = checks::check_view(to); s != status::ok) return answer(s, function, *out);
    if (w.rows != to.rows || w.cols != to.cols) return answer(status::bad_shape, function, *weights, *out);
    const status s =
        o->dequantize(w.data.data(), w.rows, w.cols, w.stride, to.data.data(), to.stride, stream_of(stream));
    return answer(s, function, *weights, *out);
  });
}

size_t quantal_cuda_mul_mat_workspace(const quantal_weights* weights, const quantal_matrix* x,
                                      quantal_cuda_precision precision, int device) {
  if (!weights || !x || !known(precision)) return 0;
  const cuda::operations* const o = cuda::find_operations(weights->format);
  const auto args = args_of(c::view_of(*weights), c::view_of<const float>(*x), matrix_view<float>{});
  return o ? o->mul_mat_workspace(args, precision_of(precision), cuda::device_info::of(device)) : 0;
}

quantal_status quantal_cuda_mul_mat(const quantal_weights* weights, const quantal_matrix* x,
                                    const quantal_matrix* out, quantal_cuda_precision precision, int device,
                                    void* workspace, size_t workspace_size, void* stream) {
  if (!weights || !x || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return on_device(__func__, weights->format, precision, device,
                   [&, function = __func__](const cuda::operations& o, const cuda::device_info& info) {
                     const auto w = c::view_of(*weights);
                     const auto from = c::view_of<const float>(*x);
                     const auto to = c::view_of<float>(*out);
                     status s = runtime::detail::check_views(w, from, to);
                     if (s == status::ok)
                       s = o.mul_mat(args_of(w, from, to), precision_of(precision), info, workspace,
                                     workspace_size, stream_of(stream));
                     return answer(s, function, *weights, *x, *out);
                   });
}

size_t quantal_cuda_mul_mat_id_workspace(const quantal_weights* weights, const quantal_slots* x,
                                         int64_t slots, quantal_cuda_precision precision, int device) {
  if (!weights || !x || !known(precision)) return 0;
  const cuda::operations* const o = cuda::find_operations(weights->format);
  const auto args = args_of(c::stack_of(*weights), c::view_of<const float>(*x),
                            matrix_view<const std::int32_t>{{}, x->tokens, slots}, slots_view<float>{});
  return o ? o->mul_mat_id_workspace(args, precision_of(precision), cuda::device_info::of(device)) : 0;
}

quantal_status quantal_cuda_mul_mat_id(const quantal_weights* weights, const quantal_slots* x,
                                       const int32_t* ids, int64_t ids_stride, const quantal_slots* out,
                                       quantal_cuda_precision precision, int device, void* workspace,
                                       size_t workspace_size, void* stream) {
  if (!weights || !x || !ids || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return on_device(
      __func__, weights->format, precision, device,
      [&, function = __func__](const cuda::operations& o, const cuda::device_info& info) -> quantal_status {
        const auto chosen = c::ids_of(ids, ids_stride, *x, *out);
        if (!chosen) return c::fail(QUANTAL_BAD_STRIDE, function, c::bad_ids);
        const auto w = c::stack_of(*weights);
        const auto from = c::view_of<const float>(*x);
        const auto to = c::view_of<float>(*out);
        status s = runtime::detail::check_views(w, from, *chosen, to);
        if (s == status::ok)
          s = o.mul_mat_id(args_of(w, from, *chosen, to), precision_of(precision), info, workspace,
                           workspace_size, stream_of(stream));
        return answer(s, function, *weights, *x, *out);
      });
}

}  // extern "C"
