/* As overhead.c, for libquantal_cuda: kernels are launched on the default stream and not waited for. */
#define _POSIX_C_SOURCE 199309L
#include <time.h>

#include "quantal/c_cuda.h"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

double time_cuda_mul_mat(uint32_t format, const void* data, int64_t rows, int64_t cols, const float* x, int64_t n, float* out,
                         void* workspace, int64_t workspace_size, int64_t calls) {
  const quantal_weights w = {
      .format = format, .data = data, .size = (size_t)(rows * quantal_row_bytes(format, cols)), .rows = rows, .cols = cols};
  const quantal_matrix from = {.data = (float*)x, .size = (size_t)(n * cols), .rows = n, .cols = cols};
  const quantal_matrix to = {.data = out, .size = (size_t)(n * rows), .rows = n, .cols = rows};
  if (quantal_cuda_mul_mat_workspace(&w, &from, QUANTAL_CUDA_Q8, 0) > (size_t)workspace_size) return -2;
  const double began = now();
  for (int64_t i = 0; i < calls; ++i)
    if (quantal_cuda_mul_mat(&w, &from, &to, QUANTAL_CUDA_Q8, 0, workspace, (size_t)workspace_size, NULL) != QUANTAL_OK)
      return -1;
  return (now() - began) / (double)calls;
}
