/* quantal for C and for every language that calls C: formats, quantizers, products, importance matrices and GGUF files.
 *
 * Link libquantal (CMake: quantal::c or quantal::c_static, pkg-config: quantal-c). Every arch is inside; the best one of
 * the machine is taken when the process starts.
 *
 * Conventions. Functions that can fail return a quantal_status; quantal_last_error() then says in one sentence what and why,
 * for the calling thread. Memory that a function returns through a `const` pointer belongs to the handle that it came from,
 * until the handle is freed or changed. NULL where a handle or an output is required is an error, not a crash; every free
 * function takes NULL. Handles may be read by several threads at a time, and changed by one that has them alone. Sizes of
 * buffers are checked before anything is written. Strings are UTF-8. Strides of 0 mean rows side by side. */
#ifndef QUANTAL_C_H
#define QUANTAL_C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define QUANTAL_API
#else
#define QUANTAL_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Status -------------------------------------------------------------------------------------------------------- */

typedef enum quantal_status {
  QUANTAL_OK = 0,
  QUANTAL_BAD_SHAPE = 1,       /* a dimension is negative, not a multiple of the block, or beyond 2^30; or shapes differ */
  QUANTAL_BAD_STRIDE = 2,      /* a stride is smaller than what it must step over */
  QUANTAL_BAD_ALIGNMENT = 3,   /* a device pointer is not aligned as the function asks */
  QUANTAL_NULL_POINTER = 4,
  QUANTAL_SMALL_WORKSPACE = 5,
  QUANTAL_BAD_EXPERT_ID = 6,   /* an id lies outside [0, experts) */
  QUANTAL_UNKNOWN_FORMAT = 7,  /* no format has this id or name */
  QUANTAL_UNSUPPORTED = 8,     /* the format exists, this operation of it does not */
  QUANTAL_NOT_FINITE = 9,      /* a weight is NaN or infinite */
  QUANTAL_BAD_IMPORTANCE = 10, /* an importance is NaN, infinite or negative */
  QUANTAL_BAD_MOMENTS = 11,
  QUANTAL_DEVICE_ERROR = 12,
  QUANTAL_OVERLAP = 13,         /* results or the workspace share memory with what the function reads */
  QUANTAL_EXECUTOR_FAILED = 14, /* the executor did not run all tasks; results are unspecified */
  QUANTAL_SHORT_BUFFER = 15,    /* memory is shorter than its extents say */
  QUANTAL_FILE_ERROR = 100,     /* a file is missing, damaged or cannot be written: the message names it and the cause */
  QUANTAL_NOT_FOUND = 101,      /* no tensor, key or entry of this name or index */
  QUANTAL_BAD_ARGUMENT = 102,   /* an argument is outside what the function takes: the message says which */
  QUANTAL_OUT_OF_MEMORY = 103
} quantal_status;

/* "bad shape" and so on; never NULL. */
QUANTAL_API const char* quantal_status_text(quantal_status status);
/* What the last function of this thread that failed had to say; "" before the first. Valid until the next call. */
QUANTAL_API const char* quantal_last_error(void);
/* Sets that text: for executors, and for libraries that build on this one. Cut at 1023 bytes. */
QUANTAL_API void quantal_set_last_error(const char* text);

/* ---- Version and arch ---------------------------------------------------------------------------------------------- */

/* "0.1.0" */
QUANTAL_API const char* quantal_version(void);
/* 10000 * major + 100 * minor + patch */
QUANTAL_API int32_t quantal_version_number(void);
/* The variant that this machine takes: "avx512_vnni", "avx2", "neon64_dotprod", "scalar", ... */
QUANTAL_API const char* quantal_arch(void);
/* All variants in the library, best first, and whether this machine runs one. */
QUANTAL_API size_t quantal_arch_count(void);
QUANTAL_API const char* quantal_arch_at(size_t index); /* NULL past the end */
QUANTAL_API bool quantal_arch_runs(const char* name);

/* ---- Formats ------------------------------------------------------------------------------------------------------- */

typedef struct quantal_format {
  uint32_t id;             /* tensor type number in GGUF files */
  const char* name;        /* "q4_K" */
  int32_t block_weights;   /* weights per block: rows are whole blocks */
  int32_t block_bytes;     /* stored bytes per block */
  int32_t row_meta_bytes;  /* bytes in front of every row's blocks */
  bool is_float;           /* f32, f16, bf16 */
  bool is_activation;      /* never stored in files */
  bool has_quantizer;
  double bits_per_weight;  /* of the blocks alone */
} quantal_format;

QUANTAL_API size_t quantal_format_count(void);
QUANTAL_API quantal_status quantal_format_at(size_t index, quantal_format* out);
QUANTAL_API quantal_status quantal_format_by_id(uint32_t id, quantal_format* out);
/* Upper and lower case are the same. */
QUANTAL_API quantal_status quantal_format_by_name(const char* name, quantal_format* out);
/* Bytes of a row of `cols` weights, a multiple of the block; 0 for unknown formats and other lengths. */
QUANTAL_API int64_t quantal_row_bytes(uint32_t format, int64_t cols);

/* ---- Threads ------------------------------------------------------------------------------------------------------- */

/* One piece of a loop: `task` in [0, tasks), `worker` in [0, workers). */
typedef void (*quantal_task)(void* context, int task, int worker);

/* A scheduler of the caller's. `run` calls body(context, t, w) once for every t in [0, tasks), on any threads, returns when
 * all calls have returned, and answers 0; where it cannot it answers another number, with no call running or to come. No two
 * calls that run at the same time have the same worker. Where a function takes an executor, NULL is the calling thread. */
typedef struct quantal_executor {
  int workers;
  int (*run)(void* self, int tasks, quantal_task body, void* context);
  void* self;
} quantal_executor;

/* A fixed set of threads, the caller's own counted in. One loop at a time has them; a loop that another thread starts
 * meanwhile, or a forked process, works alone. */
typedef struct quantal_pool quantal_pool;
QUANTAL_API quantal_status quantal_pool_create(int threads, quantal_pool** out);
QUANTAL_API const quantal_executor* quantal_pool_executor(const quantal_pool* pool); /* NULL for NULL */
QUANTAL_API void quantal_pool_free(quantal_pool* pool);

/* ---- Matrices ------------------------------------------------------------------------------------------------------ */

/* `rows` rows of `cols` float32 values; row r begins at data + r * stride. */
typedef struct quantal_matrix {
  float* data; /* read only where the function takes a pointer to const */
  size_t size; /* values that the memory holds */
  int64_t rows, cols;
  int64_t stride; /* values between rows; 0: cols */
} quantal_matrix;

/* A weight matrix as GGUF stores it, or for mul_mat_id a stack of `experts` of them. */
typedef struct quantal_weights {
  uint32_t format;
  const void* data;
  size_t size; /* bytes that the memory holds */
  int64_t rows, cols;
  int64_t stride;        /* bytes between rows; 0: side by side */
  int64_t experts;       /* 0 counts as 1 */
  int64_t expert_stride; /* bytes between matrices; 0: side by side */
} quantal_weights;

/* `slots` vectors of `cols` values for each of `tokens` tokens. */
typedef struct quantal_slots {
  float* data;
  size_t size; /* values that the memory holds */
  int64_t tokens, slots, cols;
  int64_t token_stride, slot_stride; /* values; 0: side by side */
} quantal_slots;

/* Quantizes x into rows that lie side by side in `out` (out_size bytes; rows * quantal_row_bytes are needed). `importance`:
 * one weight per column, or NULL. The bytes do not depend on threads or arch. A weight that is not finite is refused, and
 * the message names its row; `out` is unspecified then. */
QUANTAL_API quantal_status quantal_quantize(uint32_t format, const quantal_matrix* x, const float* importance, void* out,
                                            size_t out_size, const quantal_executor* executor);
/* Decodes weights (one matrix) into out, of the same rows and cols. */
QUANTAL_API quantal_status quantal_dequantize(const quantal_weights* weights, const quantal_matrix* out,
                                              const quantal_executor* executor);

/* Sums of squared error and of squared weights. Matrices may be added up by passing the same struct again. */
typedef struct quantal_error {
  double weighted, weighted_norm; /* times importance */
  double plain, plain_norm;
} quantal_error;
/* Adds what `weights` lose of `original` to *error. `importance`: one weight per column, or NULL. */
QUANTAL_API quantal_status quantal_measure_error(const quantal_weights* weights, const quantal_matrix* original,
                                                 const float* importance, quantal_error* error);
/* Normalised mean squared errors; NaN for NULL. */
QUANTAL_API double quantal_nmse(const quantal_error* error);
QUANTAL_API double quantal_nmse_weighted(const quantal_error* error);

/* ---- Products ------------------------------------------------------------------------------------------------------ */

typedef enum quantal_activation {
  QUANTAL_ACTIVATION_Q8 = 0,   /* activations are rounded to 8 bits per block: fastest */
  QUANTAL_ACTIVATION_EXACT = 1 /* float32 */
} quantal_activation;

typedef struct quantal_product_options {
  int activation;                   /* a quantal_activation */
  const quantal_executor* executor; /* NULL: the calling thread */
  void* workspace;                  /* NULL: allocated for the call */
  size_t workspace_size;
  const char* arch; /* NULL: the best one */
} quantal_product_options;

/* out[t][r] = sum over c of weights[r][c] * x[t][c]: x is n x cols, out is n x rows. `options`: NULL for all zeros. */
QUANTAL_API quantal_status quantal_mul_mat(const quantal_weights* weights, const quantal_matrix* x, const quantal_matrix* out,
                                           const quantal_product_options* options);
/* Bytes of workspace that the product above wants; 0 for what it refuses. */
QUANTAL_API size_t quantal_mul_mat_workspace(const quantal_weights* weights, const quantal_matrix* x,
                                             const quantal_product_options* options);

/* out[t][j][r] = sum over c of weights[ids[t][j]][r][c] * x[t][j][c]. ids: x->tokens x out->slots, rows ids_stride apart (0:
 * side by side). x has one slot per token that all slots share, or as many as out. */
QUANTAL_API quantal_status quantal_mul_mat_id(const quantal_weights* weights, const quantal_slots* x, const int32_t* ids,
                                              int64_t ids_stride, const quantal_slots* out,
                                              const quantal_product_options* options);
QUANTAL_API size_t quantal_mul_mat_id_workspace(const quantal_weights* weights, const quantal_slots* x, int64_t slots,
                                                const quantal_product_options* options);

/* Weights decoded once, for products of 16 or more columns again and again; they need 8.25 to 12 bits per weight. */
typedef struct quantal_packed quantal_packed;
QUANTAL_API quantal_status quantal_pack(const quantal_weights* weights, const quantal_executor* executor,
                                        quantal_packed** out);
QUANTAL_API size_t quantal_packed_bytes(const quantal_packed* packed);
QUANTAL_API void quantal_packed_free(quantal_packed* packed);
/* As quantal_mul_mat; the activation is QUANTAL_ACTIVATION_Q8, and options->arch is not read. */
QUANTAL_API quantal_status quantal_packed_mul_mat(const quantal_packed* packed, const quantal_matrix* x,
                                                  const quantal_matrix* out, const quantal_product_options* options);
QUANTAL_API size_t quantal_packed_mul_mat_workspace(const quantal_packed* packed, const quantal_matrix* x);

/* ---- Importance matrices ------------------------------------------------------------------------------------------- */

typedef struct quantal_imatrix quantal_imatrix;

typedef struct quantal_imatrix_entry {
  const char* name; /* of the weight tensor */
  int64_t cols, slices;
  const double* sums;    /* slices x cols: sum of x^2 */
  const int64_t* counts; /* slices: activation rows seen */
} quantal_imatrix_entry;

/* An empty one, to be collected into. */
QUANTAL_API quantal_status quantal_imatrix_create(quantal_imatrix** out);
/* Either file form; names are made canonical. */
QUANTAL_API quantal_status quantal_imatrix_load(const char* path, quantal_imatrix** out);
/* A path that ends in .dat is written in the legacy form, any other as GGUF. The file appears whole or not at all. */
QUANTAL_API quantal_status quantal_imatrix_save(const quantal_imatrix* imatrix, const char* path);
QUANTAL_API void quantal_imatrix_free(quantal_imatrix* imatrix);

/* Adds the squares of activations that meet slice `slice` (expert or head) out of `slices` of a weight tensor. */
QUANTAL_API quantal_status quantal_imatrix_collect(quantal_imatrix* imatrix, const char* tensor, int64_t slices,
                                                   int64_t slice, const quantal_matrix* x);
/* Sums and counts add up; on failure `into` is as it was. */
QUANTAL_API quantal_status quantal_imatrix_merge(quantal_imatrix* into, const quantal_imatrix* other);
QUANTAL_API quantal_status quantal_imatrix_add_dataset(quantal_imatrix* imatrix, const char* name);
QUANTAL_API quantal_status quantal_imatrix_set_chunk_size(quantal_imatrix* imatrix, int64_t tokens);

QUANTAL_API size_t quantal_imatrix_count(const quantal_imatrix* imatrix);
/* By name, in order. */
QUANTAL_API quantal_status quantal_imatrix_at(const quantal_imatrix* imatrix, size_t index, quantal_imatrix_entry* out);
QUANTAL_API quantal_status quantal_imatrix_find(const quantal_imatrix* imatrix, const char* tensor,
                                                quantal_imatrix_entry* out);

/* A tensor that wants importance. */
typedef struct quantal_tensor_shape {
  const char* name;
  int64_t cols, rows, slices;
  int64_t heads, experts; /* of the model; 0: unknown */
} quantal_tensor_shape;

/* `vectors` vectors of `cols` weights; each serves rows_per_vector consecutive rows, counted through all slices. */
typedef struct quantal_importance quantal_importance;
typedef struct quantal_importance_view {
  const char* source; /* "own entry", "same-input alias", "layout adaptation", "pooled", "proxy", "none" */
  const char* detail; /* the entry that was used */
  int64_t cols, vectors, rows_per_vector;
  const float* weights; /* vectors x cols; NULL where the source is "none" */
} quantal_importance_view;
/* No data is not an error: the source is "none". Data that does not fit is. */
QUANTAL_API quantal_status quantal_imatrix_lookup(const quantal_imatrix* imatrix, const quantal_tensor_shape* tensor,
                                                  quantal_importance** out);
QUANTAL_API quantal_status quantal_importance_get(const quantal_importance* importance, quantal_importance_view* out);
QUANTAL_API void quantal_importance_free(quantal_importance* importance);

/* ---- GGUF files ---------------------------------------------------------------------------------------------------- */

typedef enum quantal_gguf_type {
  QUANTAL_GGUF_UINT8 = 0,
  QUANTAL_GGUF_INT8 = 1,
  QUANTAL_GGUF_UINT16 = 2,
  QUANTAL_GGUF_INT16 = 3,
  QUANTAL_GGUF_UINT32 = 4,
  QUANTAL_GGUF_INT32 = 5,
  QUANTAL_GGUF_FLOAT32 = 6,
  QUANTAL_GGUF_BOOL = 7,
  QUANTAL_GGUF_STRING = 8,
  QUANTAL_GGUF_ARRAY = 9,
  QUANTAL_GGUF_UINT64 = 10,
  QUANTAL_GGUF_INT64 = 11,
  QUANTAL_GGUF_FLOAT64 = 12
} quantal_gguf_type;

typedef struct quantal_gguf quantal_gguf;

typedef struct quantal_gguf_tensor {
  const char* name;
  uint32_t type; /* a format's id, or a type that no product takes */
  int32_t dimensions;
  int64_t ne[4];    /* ne[0] is contiguous */
  const void* data; /* mapped; NULL where the type is unknown */
  uint64_t size;    /* bytes */
} quantal_gguf_tensor;

typedef struct quantal_gguf_value {
  quantal_gguf_type type;
  quantal_gguf_type element; /* of an array; else as type */
  size_t count;              /* elements of an array, bytes of a string without its final zero, else 1 */
  /* One value of `type` (bool for BOOL), the bytes of a string and a zero, or the elements of an array of numbers. NULL for
   * arrays of strings and booleans: see quantal_gguf_element. */
  const void* data;
} quantal_gguf_value;

/* Maps a file, or all shards of a split model through its first. */
QUANTAL_API quantal_status quantal_gguf_open(const char* path, quantal_gguf** out);
QUANTAL_API void quantal_gguf_close(quantal_gguf* file);
QUANTAL_API size_t quantal_gguf_tensor_count(const quantal_gguf* file);
QUANTAL_API quantal_status quantal_gguf_tensor_at(const quantal_gguf* file, size_t index, quantal_gguf_tensor* out);
QUANTAL_API quantal_status quantal_gguf_tensor_find(const quantal_gguf* file, const char* name, quantal_gguf_tensor* out);
/* A two-dimensional tensor, or a stack of them, as the products take it. */
QUANTAL_API quantal_status quantal_gguf_weights(const quantal_gguf* file, const char* name, quantal_weights* out);
QUANTAL_API size_t quantal_gguf_key_count(const quantal_gguf* file);
QUANTAL_API const char* quantal_gguf_key_at(const quantal_gguf* file, size_t index); /* NULL past the end */
QUANTAL_API quantal_status quantal_gguf_get(const quantal_gguf* file, const char* key, quantal_gguf_value* out);
/* One element of an array, as a value of its own. */
QUANTAL_API quantal_status quantal_gguf_element(const quantal_gguf* file, const char* key, size_t index,
                                                quantal_gguf_value* out);
/* Any type of number that holds the value exactly; files in the wild store one key with different types. */
QUANTAL_API quantal_status quantal_gguf_get_int64(const quantal_gguf* file, const char* key, int64_t* out);
QUANTAL_API quantal_status quantal_gguf_get_double(const quantal_gguf* file, const char* key, double* out);

/* A file is planned first (keys and tensors, in order), then opened, then filled. */
typedef struct quantal_gguf_writer quantal_gguf_writer;
QUANTAL_API quantal_status quantal_gguf_writer_create(quantal_gguf_writer** out);
/* `value` points to one value of `type`; for a string it is the string itself. Setting a key again replaces it. */
QUANTAL_API quantal_status quantal_gguf_writer_set(quantal_gguf_writer* writer, const char* key, quantal_gguf_type type,
                                                   const void* value);
/* `values` points to `count` numbers or bools, or to `count` strings (const char* const*). */
QUANTAL_API quantal_status quantal_gguf_writer_set_array(quantal_gguf_writer* writer, const char* key,
                                                         quantal_gguf_type element, const void* values, size_t count);
/* All keys of a file. */
QUANTAL_API quantal_status quantal_gguf_writer_copy_keys(quantal_gguf_writer* writer, const quantal_gguf* from);
QUANTAL_API quantal_status quantal_gguf_writer_add_tensor(quantal_gguf_writer* writer, const char* name, uint32_t type,
                                                          int32_t dimensions, const int64_t* ne);
/* Fixes the plan and begins the file. */
QUANTAL_API quantal_status quantal_gguf_writer_open(quantal_gguf_writer* writer, const char* path);
/* The next bytes of the tensors, in order and in any number of pieces. */
QUANTAL_API quantal_status quantal_gguf_writer_append(quantal_gguf_writer* writer, const void* data, size_t size);
/* The file takes its name. Before that nothing of it is seen, and a file of that name is as it was. */
QUANTAL_API quantal_status quantal_gguf_writer_finish(quantal_gguf_writer* writer);
QUANTAL_API void quantal_gguf_writer_free(quantal_gguf_writer* writer);

#ifdef __cplusplus
}
#endif

#endif
