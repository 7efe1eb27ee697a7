// The binary interface of c.h and c_cuda.h: types of functions, layouts of structures and numbers of enumerators.
// Nothing here runs: a change that breaks compiled programs does not compile. What is added has a line here
// (symbols.cmake looks for it); what is changed or removed needs a new SOVERSION (docs/versioning.md).
#include <cstddef>
#include <type_traits>

#include "quantal/c.h"
#include "quantal/c_cuda.h"

namespace {

static_assert(sizeof(quantal_format) == 40);
static_assert(offsetof(quantal_format, id) == 0);
static_assert(offsetof(quantal_format, name) == 8);
static_assert(offsetof(quantal_format, block_weights) == 16);
static_assert(offsetof(quantal_format, block_bytes) == 20);
static_assert(offsetof(quantal_format, row_meta_bytes) == 24);
static_assert(offsetof(quantal_format, is_float) == 28);
static_assert(offsetof(quantal_format, is_activation) == 29);
static_assert(offsetof(quantal_format, has_quantizer) == 30);
static_assert(offsetof(quantal_format, bits_per_weight) == 32);

static_assert(sizeof(quantal_executor) == 24);
static_assert(offsetof(quantal_executor, workers) == 0);
static_assert(offsetof(quantal_executor, run) == 8);
static_assert(offsetof(quantal_executor, self) == 16);

static_assert(sizeof(quantal_matrix) == 40);
static_assert(offsetof(quantal_matrix, data) == 0);
static_assert(offsetof(quantal_matrix, size) == 8);
static_assert(offsetof(quantal_matrix, rows) == 16);
static_assert(offsetof(quantal_matrix, cols) == 24);
static_assert(offsetof(quantal_matrix, stride) == 32);

static_assert(sizeof(quantal_weights) == 64);
static_assert(offsetof(quantal_weights, format) == 0);
static_assert(offsetof(quantal_weights, data) == 8);
static_assert(offsetof(quantal_weights, size) == 16);
static_assert(offsetof(quantal_weights, rows) == 24);
static_assert(offsetof(quantal_weights, cols) == 32);
static_assert(offsetof(quantal_weights, stride) == 40);
static_assert(offsetof(quantal_weights, experts) == 48);
static_assert(offsetof(quantal_weights, expert_stride) == 56);

static_assert(sizeof(quantal_slots) == 56);
static_assert(offsetof(quantal_slots, data) == 0);
static_assert(offsetof(quantal_slots, size) == 8);
static_assert(offsetof(quantal_slots, tokens) == 16);
static_assert(offsetof(quantal_slots, slots) == 24);
static_assert(offsetof(quantal_slots, cols) == 32);
static_assert(offsetof(quantal_slots, token_stride) == 40);
static_assert(offsetof(quantal_slots, slot_stride) == 48);

static_assert(sizeof(quantal_error) == 32);
static_assert(offsetof(quantal_error, weighted) == 0);
static_assert(offsetof(quantal_error, weighted_norm) == 8);
static_assert(offsetof(quantal_error, plain) == 16);
static_assert(offsetof(quantal_error, plain_norm) == 24);

static_assert(sizeof(quantal_product_options) == 40);
static_assert(offsetof(quantal_product_options, activation) == 0);
static_assert(offsetof(quantal_product_options, executor) == 8);
static_assert(offsetof(quantal_product_options, workspace) == 16);
static_assert(offsetof(quantal_product_options, workspace_size) == 24);
static_assert(offsetof(quantal_product_options, arch) == 32);

static_assert(sizeof(quantal_imatrix_entry) == 40);
static_assert(offsetof(quantal_imatrix_entry, name) == 0);
static_assert(offsetof(quantal_imatrix_entry, cols) == 8);
static_assert(offsetof(quantal_imatrix_entry, slices) == 16);
static_assert(offsetof(quantal_imatrix_entry, sums) == 24);
static_assert(offsetof(quantal_imatrix_entry, counts) == 32);

static_assert(sizeof(quantal_tensor_shape) == 48);
static_assert(offsetof(quantal_tensor_shape, name) == 0);
static_assert(offsetof(quantal_tensor_shape, cols) == 8);
static_assert(offsetof(quantal_tensor_shape, rows) == 16);
static_assert(offsetof(quantal_tensor_shape, slices) == 24);
static_assert(offsetof(quantal_tensor_shape, heads) == 32);
static_assert(offsetof(quantal_tensor_shape, experts) == 40);

static_assert(sizeof(quantal_importance_view) == 48);
static_assert(offsetof(quantal_importance_view, source) == 0);
static_assert(offsetof(quantal_importance_view, detail) == 8);
static_assert(offsetof(quantal_importance_view, cols) == 16);
static_assert(offsetof(quantal_importance_view, vectors) == 24);
static_assert(offsetof(quantal_importance_view, rows_per_vector) == 32);
static_assert(offsetof(quantal_importance_view, weights) == 40);

static_assert(sizeof(quantal_gguf_tensor) == 64);
static_assert(offsetof(quantal_gguf_tensor, name) == 0);
static_assert(offsetof(quantal_gguf_tensor, type) == 8);
static_assert(offsetof(quantal_gguf_tensor, dimensions) == 12);
static_assert(offsetof(quantal_gguf_tensor, ne) == 16);
static_assert(offsetof(quantal_gguf_tensor, data) == 48);
static_assert(offsetof(quantal_gguf_tensor, size) == 56);

static_assert(sizeof(quantal_gguf_value) == 24);
static_assert(offsetof(quantal_gguf_value, type) == 0);
static_assert(offsetof(quantal_gguf_value, element) == 4);
static_assert(offsetof(quantal_gguf_value, count) == 8);
static_assert(offsetof(quantal_gguf_value, data) == 16);

static_assert(QUANTAL_OK == 0);
static_assert(QUANTAL_BAD_SHAPE == 1);
static_assert(QUANTAL_BAD_STRIDE == 2);
static_assert(QUANTAL_BAD_ALIGNMENT == 3);
static_assert(QUANTAL_NULL_POINTER == 4);
static_assert(QUANTAL_SMALL_WORKSPACE == 5);
static_assert(QUANTAL_BAD_EXPERT_ID == 6);
static_assert(QUANTAL_UNKNOWN_FORMAT == 7);
static_assert(QUANTAL_UNSUPPORTED == 8);
static_assert(QUANTAL_NOT_FINITE == 9);
static_assert(QUANTAL_BAD_IMPORTANCE == 10);
static_assert(QUANTAL_BAD_MOMENTS == 11);
static_assert(QUANTAL_DEVICE_ERROR == 12);
static_assert(QUANTAL_OVERLAP == 13);
static_assert(QUANTAL_EXECUTOR_FAILED == 14);
static_assert(QUANTAL_SHORT_BUFFER == 15);
static_assert(QUANTAL_FILE_ERROR == 100);
static_assert(QUANTAL_NOT_FOUND == 101);
static_assert(QUANTAL_BAD_ARGUMENT == 102);
static_assert(QUANTAL_OUT_OF_MEMORY == 103);
static_assert(QUANTAL_ACTIVATION_Q8 == 0);
static_assert(QUANTAL_ACTIVATION_EXACT == 1);
static_assert(QUANTAL_GGUF_UINT8 == 0);
static_assert(QUANTAL_GGUF_INT8 == 1);
static_assert(QUANTAL_GGUF_UINT16 == 2);
static_assert(QUANTAL_GGUF_INT16 == 3);
static_assert(QUANTAL_GGUF_UINT32 == 4);
static_assert(QUANTAL_GGUF_INT32 == 5);
static_assert(QUANTAL_GGUF_FLOAT32 == 6);
static_assert(QUANTAL_GGUF_BOOL == 7);
static_assert(QUANTAL_GGUF_STRING == 8);
static_assert(QUANTAL_GGUF_ARRAY == 9);
static_assert(QUANTAL_GGUF_UINT64 == 10);
static_assert(QUANTAL_GGUF_INT64 == 11);
static_assert(QUANTAL_GGUF_FLOAT64 == 12);
static_assert(sizeof(quantal_status) == 4 && sizeof(quantal_activation) == 4 &&
              sizeof(quantal_gguf_type) == 4);
static_assert(std::is_same_v<quantal_task, void (*)(void*, int, int)>);
static_assert(std::is_same_v<decltype(quantal_executor::run), int (*)(void*, int, quantal_task, void*)>);

static_assert(std::is_same_v<decltype(quantal_status_text), const char*(quantal_status)>);
static_assert(std::is_same_v<decltype(quantal_last_error), const char*()>);
static_assert(std::is_same_v<decltype(quantal_set_last_error), void(const char*)>);
static_assert(std::is_same_v<decltype(quantal_version), const char*()>);
static_assert(std::is_same_v<decltype(quantal_version_number), int32_t()>);
static_assert(std::is_same_v<decltype(quantal_arch), const char*()>);
static_assert(std::is_same_v<decltype(quantal_arch_count), size_t()>);
static_assert(std::is_same_v<decltype(quantal_arch_at), const char*(size_t)>);
static_assert(std::is_same_v<decltype(quantal_arch_runs), bool(const char*)>);
static_assert(std::is_same_v<decltype(quantal_format_count), size_t()>);
static_assert(std::is_same_v<decltype(quantal_format_at), quantal_status(size_t, quantal_format*)>);
static_assert(std::is_same_v<decltype(quantal_format_by_id), quantal_status(uint32_t, quantal_format*)>);
static_assert(std::is_same_v<decltype(quantal_format_by_name), quantal_status(const char*, quantal_format*)>);
static_assert(std::is_same_v<decltype(quantal_row_bytes), int64_t(uint32_t, int64_t)>);
static_assert(std::is_same_v<decltype(quantal_pool_create), quantal_status(int, quantal_pool**)>);
static_assert(std::is_same_v<decltype(quantal_pool_executor), const quantal_executor*(const quantal_pool*)>);
static_assert(std::is_same_v<decltype(quantal_pool_free), void(quantal_pool*)>);
static_assert(
    std::is_same_v<decltype(quantal_quantize), quantal_status(uint32_t, const quantal_matrix*, const float*,
                                                              void*, size_t, const quantal_executor*)>);
static_assert(
    std::is_same_v<decltype(quantal_dequantize),
                   quantal_status(const quantal_weights*, const quantal_matrix*, const quantal_executor*)>);
static_assert(std::is_same_v<decltype(quantal_measure_error),
                             quantal_status(const quantal_weights*, const quantal_matrix*, const float*,
                                            quantal_error*)>);
static_assert(std::is_same_v<decltype(quantal_nmse), double(const quantal_error*)>);
static_assert(std::is_same_v<decltype(quantal_nmse_weighted), double(const quantal_error*)>);
static_assert(std::is_same_v<decltype(quantal_mul_mat),
                             quantal_status(const quantal_weights*, const quantal_matrix*,
                                            const quantal_matrix*, const quantal_product_options*)>);
static_assert(
    std::is_same_v<decltype(quantal_mul_mat_workspace),
                   size_t(const quantal_weights*, const quantal_matrix*, const quantal_product_options*)>);
static_assert(std::is_same_v<decltype(quantal_mul_mat_id),
                             quantal_status(const quantal_weights*, const quantal_slots*, const int32_t*,
                                            int64_t, const quantal_slots*, const quantal_product_options*)>);
static_assert(std::is_same_v<decltype(quantal_mul_mat_id_workspace),
                             size_t(const quantal_weights*, const quantal_slots*, int64_t,
                                    const quantal_product_options*)>);
static_assert(
    std::is_same_v<decltype(quantal_pack),
                   quantal_status(const quantal_weights*, const quantal_executor*, quantal_packed**)>);
static_assert(std::is_same_v<decltype(quantal_packed_bytes), size_t(const quantal_packed*)>);
static_assert(std::is_same_v<decltype(quantal_packed_free), void(quantal_packed*)>);
static_assert(std::is_same_v<decltype(quantal_packed_mul_mat),
                             quantal_status(const quantal_packed*, const quantal_matrix*,
                                            const quantal_matrix*, const quantal_product_options*)>);
static_assert(std::is_same_v<decltype(quantal_packed_mul_mat_workspace),
                             size_t(const quantal_packed*, const quantal_matrix*)>);
static_assert(std::is_same_v<decltype(quantal_imatrix_create), quantal_status(quantal_imatrix**)>);
static_assert(std::is_same_v<decltype(quantal_imatrix_load), quantal_status(const char*, quantal_imatrix**)>);
static_assert(
    std::is_same_v<decltype(quantal_imatrix_save), quantal_status(const quantal_imatrix*, const char*)>);
static_assert(std::is_same_v<decltype(quantal_imatrix_free), void(quantal_imatrix*)>);
static_assert(
    std::is_same_v<decltype(quantal_imatrix_collect),
                   quantal_status(quantal_imatrix*, const char*, int64_t, int64_t, const quantal_matrix*)>);
static_assert(std::is_same_v<decltype(quantal_imatrix_merge),
                             quantal_status(quantal_imatrix*, const quantal_imatrix*)>);
static_assert(
    std::is_same_v<decltype(quantal_imatrix_add_dataset), quantal_status(quantal_imatrix*, const char*)>);
static_assert(
    std::is_same_v<decltype(quantal_imatrix_set_chunk_size), quantal_status(quantal_imatrix*, int64_t)>);
static_assert(std::is_same_v<decltype(quantal_imatrix_count), size_t(const quantal_imatrix*)>);
static_assert(std::is_same_v<decltype(quantal_imatrix_at),
                             quantal_status(const quantal_imatrix*, size_t, quantal_imatrix_entry*)>);
static_assert(std::is_same_v<decltype(quantal_imatrix_find),
                             quantal_status(const quantal_imatrix*, const char*, quantal_imatrix_entry*)>);
static_assert(std::is_same_v<decltype(quantal_imatrix_lookup),
                             quantal_status(const quantal_imatrix*, const quantal_tensor_shape*,
                                            quantal_importance**)>);
static_assert(std::is_same_v<decltype(quantal_importance_get),
                             quantal_status(const quantal_importance*, quantal_importance_view*)>);
static_assert(std::is_same_v<decltype(quantal_importance_free), void(quantal_importance*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_open), quantal_status(const char*, quantal_gguf**)>);
static_assert(std::is_same_v<decltype(quantal_gguf_close), void(quantal_gguf*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_tensor_count), size_t(const quantal_gguf*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_tensor_at),
                             quantal_status(const quantal_gguf*, size_t, quantal_gguf_tensor*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_tensor_find),
                             quantal_status(const quantal_gguf*, const char*, quantal_gguf_tensor*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_weights),
                             quantal_status(const quantal_gguf*, const char*, quantal_weights*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_key_count), size_t(const quantal_gguf*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_key_at), const char*(const quantal_gguf*, size_t)>);
static_assert(std::is_same_v<decltype(quantal_gguf_get),
                             quantal_status(const quantal_gguf*, const char*, quantal_gguf_value*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_element),
                             quantal_status(const quantal_gguf*, const char*, size_t, quantal_gguf_value*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_get_int64),
                             quantal_status(const quantal_gguf*, const char*, int64_t*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_get_double),
                             quantal_status(const quantal_gguf*, const char*, double*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_writer_create), quantal_status(quantal_gguf_writer**)>);
static_assert(
    std::is_same_v<decltype(quantal_gguf_writer_set),
                   quantal_status(quantal_gguf_writer*, const char*, quantal_gguf_type, const void*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_writer_set_array),
                             quantal_status(quantal_gguf_writer*, const char*, quantal_gguf_type, const void*,
                                            size_t)>);
static_assert(std::is_same_v<decltype(quantal_gguf_writer_copy_keys),
                             quantal_status(quantal_gguf_writer*, const quantal_gguf*)>);
static_assert(
    std::is_same_v<decltype(quantal_gguf_writer_add_tensor),
                   quantal_status(quantal_gguf_writer*, const char*, uint32_t, int32_t, const int64_t*)>);
static_assert(
    std::is_same_v<decltype(quantal_gguf_writer_open), quantal_status(quantal_gguf_writer*, const char*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_writer_append),
                             quantal_status(quantal_gguf_writer*, const void*, size_t)>);
static_assert(std::is_same_v<decltype(quantal_gguf_writer_finish), quantal_status(quantal_gguf_writer*)>);
static_assert(std::is_same_v<decltype(quantal_gguf_writer_free), void(quantal_gguf_writer*)>);

// c_cuda.h: libquantal_cuda.
static_assert(std::is_same_v<decltype(quantal_cuda_has_format), bool(uint32_t)>);
static_assert(std::is_same_v<decltype(quantal_cuda_dequantize),
                             quantal_status(const quantal_weights*, const quantal_matrix*, void*)>);
static_assert(
    std::is_same_v<decltype(quantal_cuda_mul_mat_workspace),
                   size_t(const quantal_weights*, const quantal_matrix*, quantal_cuda_precision, int)>);
static_assert(
    std::is_same_v<decltype(quantal_cuda_mul_mat),
                   quantal_status(const quantal_weights*, const quantal_matrix*, const quantal_matrix*,
                                  quantal_cuda_precision, int, void*, size_t, void*)>);
static_assert(std::is_same_v<decltype(quantal_cuda_mul_mat_id_workspace),
                             size_t(const quantal_weights*, const quantal_slots*, int64_t,
                                    quantal_cuda_precision, int)>);
static_assert(
    std::is_same_v<decltype(quantal_cuda_mul_mat_id),
                   quantal_status(const quantal_weights*, const quantal_slots*, const int32_t*, int64_t,
                                  const quantal_slots*, quantal_cuda_precision, int, void*, size_t, void*)>);
static_assert(QUANTAL_CUDA_BF16 == 0);
static_assert(QUANTAL_CUDA_Q8 == 1);
static_assert(QUANTAL_CUDA_FP8 == 2);

}  // namespace
