/* Times calls of libquantal in the process of overhead.py: the C++ call without Python. Each returns nanoseconds per call. */
#define _POSIX_C_SOURCE 199309L
#include <time.h>

#include "quantal/c.h"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

static quantal_weights weights_of(uint32_t format, const void* data, int64_t rows, int64_t cols) {
  const quantal_weights w = {
      .format = format, .data = data, .size = (size_t)(rows * quantal_row_bytes(format, cols)), .rows = rows, .cols = cols};
  return w;
}
static quantal_matrix matrix_of(const float* data, int64_t rows, int64_t cols) {
  const quantal_matrix m = {.data = (float*)data, .size = (size_t)(rows * cols), .rows = rows, .cols = cols};
  return m;
}

double time_mul_mat(uint32_t format, const void* data, int64_t rows, int64_t cols, const float* x, int64_t n, float* out,
                    int64_t calls) {
  const quantal_weights w = weights_of(format, data, rows, cols);
  const quantal_matrix from = matrix_of(x, n, cols), to = matrix_of(out, n, rows);
  const double began = now();
  for (int64_t i = 0; i < calls; ++i)
    if (quantal_mul_mat(&w, &from, &to, NULL) != QUANTAL_OK) return -1;
  return (now() - began) / (double)calls;
}

double time_dequantize(uint32_t format, const void* data, int64_t rows, int64_t cols, float* out, int64_t calls) {
  const quantal_weights w = weights_of(format, data, rows, cols);
  const quantal_matrix to = matrix_of(out, rows, cols);
  const double began = now();
  for (int64_t i = 0; i < calls; ++i)
    if (quantal_dequantize(&w, &to, NULL) != QUANTAL_OK) return -1;
  return (now() - began) / (double)calls;
}

double time_quantize(uint32_t format, const float* x, int64_t rows, int64_t cols, void* out, int64_t calls) {
  const quantal_matrix from = matrix_of(x, rows, cols);
  const size_t size = (size_t)(rows * quantal_row_bytes(format, cols));
  const double began = now();
  for (int64_t i = 0; i < calls; ++i)
    if (quantal_quantize(format, &from, NULL, out, size, NULL) != QUANTAL_OK) return -1;
  return (now() - began) / (double)calls;
}
