/* quantal's device functions for C: link libquantal_cuda (CMake: quantal::c_cuda; built with QUANTAL_CUDA=ON) beside
 * libquantal. Conventions are those of c.h; errors are told by quantal_last_error(). All pointers to data are device
 * pointers. Calls launch kernels on the stream, take the caller's workspace, and may be captured in a graph. */
#ifndef QUANTAL_C_CUDA_H
#define QUANTAL_C_CUDA_H

#include "quantal/c.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum quantal_cuda_precision {
  QUANTAL_CUDA_BF16 = 0, /* activations and weights are rounded to bf16: relative error about 3e-3 */
  QUANTAL_CUDA_Q8 = 1,   /* activations are rounded to int8 where that is faster (few vectors): about 1e-2 */
  QUANTAL_CUDA_FP8 = 2   /* both are rounded to e4m3 where that is faster (many vectors): about 4e-2 */
} quantal_cuda_precision;

/* Whether the library holds the format: it may be built for some of them. */
QUANTAL_API bool quantal_cuda_has_format(uint32_t format);

/* A CUDA stream is passed as a pointer (cudaStream_t); NULL is the default stream. */
QUANTAL_API quantal_status quantal_cuda_dequantize(const quantal_weights* weights, const quantal_matrix* out, void* stream);

/* Bytes of device memory that the product below wants on this device; 0 for what it refuses. */
QUANTAL_API size_t quantal_cuda_mul_mat_workspace(const quantal_weights* weights, const quantal_matrix* x,
                                                  quantal_cuda_precision precision, int device);
/* out[t][r] = sum over c of weights[r][c] * x[t][c]: x is n x cols, out is n x rows. */
QUANTAL_API quantal_status quantal_cuda_mul_mat(const quantal_weights* weights, const quantal_matrix* x,
                                                const quantal_matrix* out, quantal_cuda_precision precision, int device,
                                                void* workspace, size_t workspace_size, void* stream);

/* As quantal_mul_mat_id; ids is a device pointer, and ids outside [0, experts) give NaN results. */
QUANTAL_API size_t quantal_cuda_mul_mat_id_workspace(const quantal_weights* weights, const quantal_slots* x, int64_t slots,
                                                     quantal_cuda_precision precision, int device);
QUANTAL_API quantal_status quantal_cuda_mul_mat_id(const quantal_weights* weights, const quantal_slots* x,
                                                   const int32_t* ids, int64_t ids_stride, const quantal_slots* out,
                                                   quantal_cuda_precision precision, int device, void* workspace,
                                                   size_t workspace_size, void* stream);

#ifdef __cplusplus
}
#endif

#endif
