// Engines include quantal beside ggml: names and macros of its kind in the global namespace must not disturb,
// and quantal must leave no macros but its own behind.
#include <cstddef>
#include <cstdint>

#define QK_K 256
#define QK4_0 32
#define K_SCALE_SIZE 12
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define SWAP(x, y, T) \
  do {                \
    T swapped = x;    \
    (x) = y;          \
    (y) = swapped;    \
  } while (0)
#define UNUSED(x) (void)(x)
#define GGML_TYPE(x) GGML_TYPE_##x
#define GGML_FP16_TO_FP32(x) ggml_fp16_to_fp32(x)

extern "C" {
typedef std::uint16_t ggml_fp16_t;
enum ggml_type { GGML_TYPE_F32 = 0, GGML_TYPE_F16 = 1, GGML_TYPE_Q4_0 = 2 };
enum ggml_status { GGML_STATUS_SUCCESS = 0 };
struct ggml_tensor {
  enum ggml_type type;
  std::int64_t ne[4];
};
struct gguf_context;
typedef struct {
  ggml_fp16_t d;
  std::uint8_t qs[16];
} block_q4_0;
typedef block_q4_0 q4_0, q8_0, q4_K;
typedef float f32, f16, bf16;
float ggml_fp16_to_fp32(ggml_fp16_t);
void dequantize_row(const void*, float*, std::int64_t);
void quantize_row(const float*, void*, std::int64_t);
void mul_mat(const struct ggml_tensor*, const struct ggml_tensor*);
typedef int status, reader, format, result;
}

#include "quantal/gguf/writer.hpp"
#include "quantal/imatrix/io.hpp"
#include "quantal/quantize/quantize.hpp"
#include "quantal/runtime/variant.hpp"

namespace {
static_assert(quantal::find_format(GGML_TYPE_Q4_0)->layout.bytes == sizeof(block_q4_0));
static_assert(quantal::row_bytes<quantal::q4_0>(64) == 2 * sizeof(::q4_0));
static_assert(sizeof(::status) == sizeof(int) && MIN(QK_K, QK4_0) == 32);
}  // namespace
