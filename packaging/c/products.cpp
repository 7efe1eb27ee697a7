// Threads, quantizers, errors and products of c.h.
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "executor.hpp"
#include "failure.hpp"
#include "quantal/quantize/error.hpp"
#include "views.hpp"

struct quantal_pool {
  explicit quantal_pool(int threads) : pool(threads) { executor = {pool.workers(), &run, this}; }
  static int run(void* self, int tasks, quantal_task body, void* context) {
    struct call {
      quantal_task body;
      void* context;
    } c{body, context};
    static_cast<quantal_pool*>(self)->pool.run(
        tasks,
        [](void* at, int task, int worker) noexcept {
          const call& wanted = *static_cast<call*>(at);
          wanted.body(wanted.context, task, worker);
        },
        &c);
    return 0;
  }

  quantal::thread_pool pool;
  quantal_executor executor;
};

struct quantal_packed {
  std::unique_ptr<std::byte[]> memory;
  std::size_t bytes = 0;
  quantal::runtime::packed_matrix matrix;
};

namespace {

using namespace quantal;

constexpr quantal_product_options default_options{};

const quantal_product_options& or_default(const quantal_product_options* o) noexcept {
  return o ? *o : default_options;
}
std::optional<runtime::dispatcher> variant_of(const quantal_product_options& o) noexcept {
  return o.arch ? runtime::dispatcher::named(o.arch) : runtime::best_variant();
}
bool known(int a) noexcept { return a == QUANTAL_ACTIVATION_Q8 || a == QUANTAL_ACTIVATION_EXACT; }
activation policy_of(const quantal_product_options& o) noexcept {
  return o.activation == QUANTAL_ACTIVATION_EXACT ? activation::exact : activation::q8;
}

/// Calls product(variant, options) with what the caller's options say.
template <class Size, class Product, class... Operands>
quantal_status run_product(const char* function, const quantal_product_options* options, Size&& size,
                           Product&& product, const Operands&... operands) noexcept {
  return c::guarded(function, [&]() -> quantal_status {
    const quantal_product_options& o = or_default(options);
    const auto variant = variant_of(o);
    if (!variant)
      return c::fail(QUANTAL_BAD_ARGUMENT, function,
                     "this machine does not run the arch '" + std::string(o.arch) + "'");
    if (!known(o.activation)) return c::fail(QUANTAL_BAD_ARGUMENT, function, "no such activation");
    c::executor_adapter executor(o.executor);
    if (!executor.usable()) return c::fail(QUANTAL_BAD_ARGUMENT, function, c::executor_adapter::unusable);
    std::span<std::byte> workspace(static_cast<std::byte*>(o.workspace), o.workspace ? o.workspace_size : 0);
    std::unique_ptr<std::byte[]> own;
    if (!o.workspace) {
      const std::size_t bytes = size(*variant);
      if (bytes > std::numeric_limits<std::size_t>::max() / 2)
        return c::answer(status::bad_shape, function, operands...);
      own.reset(new std::byte[bytes]);
      workspace = {own.get(), bytes};
    }
    return c::answer(product(*variant, product_options{policy_of(o), executor, workspace}), function,
                     operands...);
  });
}

/// Rows that a task of a quantizer takes.
constexpr std::int64_t rows_per_task = 8;

/// Calls row(r) for every row until one fails; the first row that failed, whatever the threads, and its status.
template <class Row>
quantal_status for_rows(const char* function, const quantal_executor* e, std::int64_t rows, Row&& row) {
  c::executor_adapter executor(e);
  if (!executor.usable()) return c::fail(QUANTAL_BAD_ARGUMENT, function, c::executor_adapter::unusable);
  std::atomic<std::int64_t> failed{rows};
  const auto tasks = static_cast<int>((rows + rows_per_task - 1) / rows_per_task);
  const bool ran = executor_ref(executor).for_each(tasks, [&](int task, int) {
    const std::int64_t first = task * rows_per_task, last = std::min(first + rows_per_task, rows);
    for (std::int64_t r = first; r < last && r < failed.load(); ++r) {
      if (row(r) == status::ok) continue;
      std::int64_t before = failed.load();
      while (r < before && !failed.compare_exchange_weak(before, r)) {
      }
    }
  });
  if (!ran) return c::fail(QUANTAL_EXECUTOR_FAILED, function);
  const std::int64_t bad = failed.load();
  if (bad == rows) return QUANTAL_OK;
  const status s = row(bad);
  return c::fail(static_cast<quantal_status>(s), function,
                 std::string(to_string(s)) + " in row " + std::to_string(bad));
}

}  // namespace

extern "C" {

quantal_status quantal_pool_create(int threads, quantal_pool** out) {
  if (!out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  *out = nullptr;
  if (threads < 1 || threads > 4096)
    return c::fail(QUANTAL_BAD_ARGUMENT, __func__,
                   std::to_string(threads) + " threads: 1 to 4096 are possible");
  return c::guarded(__func__, [&] {
    *out = new quantal_pool(threads);
    return QUANTAL_OK;
  });
}

const quantal_executor* quantal_pool_executor(const quantal_pool* pool) {
  return pool ? &pool->executor : nullptr;
}

void quantal_pool_free(quantal_pool* pool) { delete pool; }

quantal_status quantal_quantize(uint32_t format, const quantal_matrix* x, const float* importance, void* out,
                                size_t out_size, const quantal_executor* executor) {
  if (!x) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    const auto encode = runtime::best_variant().find_quantizer(format);
    const quantal_weights as_weights{format, out, out_size, x->rows, x->cols, 0, 1, 0};
    if (!encode)
      return c::answer(format_index(format) ? status::unsupported : status::unknown_format, function,
                       as_weights);
    const auto view = c::view_of<const float>(*x);
    if (const status s = checks::check_view(view); s != status::ok) return c::answer(s, function, *x);
    const auto weights = c::view_of(as_weights);
    if (const status s = runtime::detail::check_views(weights); s != status::ok)
      return c::answer(s, function, as_weights, *x);
    auto* const to = static_cast<std::byte*>(out);
    return for_rows(function, executor, x->rows, [&](std::int64_t r) {
      return encode(view.data.data() + r * view.stride, importance, to + r * weights.stride, view.cols);
    });
  });
}

quantal_status quantal_dequantize(const quantal_weights* weights, const quantal_matrix* out,
                                  const quantal_executor* executor) {
  if (!weights || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    const auto w = c::view_of(*weights);
    const auto to = c::view_of<float>(*out);
    if (w.rows != to.rows || w.cols != to.cols) return c::answer(status::bad_shape, function, *weights, *out);
    if (const status s = runtime::detail::check_views(w); s != status::ok)
      return c::answer(s, function, *weights, *out);
    if (const status s = checks::check_view(to); s != status::ok)
      return c::answer(s, function, *weights, *out);
    const checks::row_layout layout = checks::rows_of(find_format(w.gguf_id)->layout);
    if (const status s = checks::check_decoding(layout, checks::stack_of(w), to.data.data(), to.stride);
        s != status::ok)
      return c::answer(s, function, *weights, *out);
    const auto decode = runtime::best_variant().find(w.gguf_id)->dequantize_row;
    return for_rows(function, executor, w.rows, [&](std::int64_t r) {
      decode(w.data.data() + r * w.stride, to.data.data() + r * to.stride, w.cols);
      return status::ok;
    });
  });
}

quantal_status quantal_measure_error(const quantal_weights* weights, const quantal_matrix* original,
                                     const float* importance, quantal_error* error) {
  if (!weights || !original || !error) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    const auto w = c::view_of(*weights);
    const auto x = c::view_of<const float>(*original);
    if (const status s = runtime::detail::check_views(w); s != status::ok)
      return c::answer(s, function, *weights);
    if (const status s = checks::check_view(x); s != status::ok) return c::answer(s, function, *original);
    if (w.rows != x.rows || w.cols != x.cols)
      return c::answer(status::bad_shape, function, *weights, *original);
    std::vector<float> decoded(static_cast<std::size_t>(w.cols));
    quantization_error sum{error->weighted, error->weighted_norm, error->plain, error->plain_norm};
    const auto decode = runtime::best_variant().find(w.gguf_id)->dequantize_row;
    const float_environment settings;
    for (std::int64_t r = 0; r < w.rows; ++r) {
      decode(w.data.data() + r * w.stride, decoded.data(), w.cols);
      sum.add(x.data.data() + r * x.stride, decoded.data(), importance, w.cols);
    }
    *error = {sum.weighted, sum.weighted_norm, sum.plain, sum.plain_norm};
    return QUANTAL_OK;
  });
}

double quantal_nmse(const quantal_error* e) {
  if (!e) return std::numeric_limits<double>::quiet_NaN();
  return quantization_error{e->weighted, e->weighted_norm, e->plain, e->plain_norm}.nmse_plain();
}
double quantal_nmse_weighted(const quantal_error* e) {
  if (!e) return std::numeric_limits<double>::quiet_NaN();
  return quantization_error{e->weighted, e->weighted_norm, e->plain, e->plain_norm}.nmse_weighted();
}

quantal_status quantal_mul_mat(const quantal_weights* weights, const quantal_matrix* x,
                               const quantal_matrix* out, const quantal_product_options* options) {
  if (!weights || !x || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  const auto w = c::view_of(*weights);
  const auto from = c::view_of<const float>(*x);
  const auto to = c::view_of<float>(*out);
  return run_product(
      __func__, options,
      [&](const runtime::dispatcher& d) {
        return runtime::mul_mat_workspace(w, from, policy_of(or_default(options)), d);
      },
      [&](const runtime::dispatcher& d, const product_options& o) {
        return runtime::mul_mat(w, from, to, o, d);
      },
      *weights, *x, *out);
}

size_t quantal_mul_mat_workspace(const quantal_weights* weights, const quantal_matrix* x,
                                 const quantal_product_options* options) {
  const quantal_product_options& o = or_default(options);
  const auto variant = variant_of(o);
  if (!weights || !x || !variant || !known(o.activation)) return 0;
  return runtime::mul_mat_workspace(c::view_of(*weights), c::view_of<const float>(*x), policy_of(o),
                                    *variant);
}

quantal_status quantal_mul_mat_id(const quantal_weights* weights, const quantal_slots* x, const int32_t* ids,
                                  int64_t ids_stride, const quantal_slots* out,
                                  const quantal_product_options* options) {
  if (!weights || !x || !ids || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  const auto w = c::stack_of(*weights);
  const auto from = c::view_of<const float>(*x);
  const auto to = c::view_of<float>(*out);
  const auto chosen = c::ids_of(ids, ids_stride, *x, *out);
  if (!chosen) return c::fail(QUANTAL_BAD_STRIDE, __func__, c::bad_ids);
  return run_product(
      __func__, options,
      [&](const runtime::dispatcher& d) {
        return runtime::mul_mat_id_workspace(w, from, out->slots, policy_of(or_default(options)), d);
      },
      [&](const runtime::dispatcher& d, const product_options& o) {
        return runtime::mul_mat_id(w, from, *chosen, to, o, d);
      },
      *weights, *x, *out);
}

size_t quantal_mul_mat_id_workspace(const quantal_weights* weights, const quantal_slots* x, int64_t slots,
                                    const quantal_product_options* options) {
  const quantal_product_options& o = or_default(options);
  const auto variant = variant_of(o);
  if (!weights || !x || !variant || !known(o.activation)) return 0;
  return runtime::mul_mat_id_workspace(c::stack_of(*weights), c::view_of<const float>(*x), slots,
                                       policy_of(o), *variant);
}

quantal_status quantal_pack(const quantal_weights* weights, const quantal_executor* executor,
                            quantal_packed** out) {
  if (!out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  *out = nullptr;
  if (!weights) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    const auto w = c::view_of(*weights);
    if (const status s = runtime::detail::check_views(w); s != status::ok)
      return c::answer(s, function, *weights);
    c::executor_adapter threads(executor);
    if (!threads.usable()) return c::fail(QUANTAL_BAD_ARGUMENT, function, c::executor_adapter::unusable);
    auto packed = std::make_unique<quantal_packed>();
    packed->bytes = runtime::best_variant().find(w.gguf_id)->packed_bytes(w.rows, w.cols);
    if (packed->bytes == 0 && w.rows > 0) return c::answer(status::unsupported, function, *weights);
    packed->memory.reset(new std::byte[packed->bytes]);
    const status s = runtime::pack(w, {packed->memory.get(), packed->bytes}, threads, packed->matrix);
    if (s == status::ok) *out = packed.release();
    return c::answer(s, function, *weights);
  });
}

size_t quantal_packed_bytes(const quantal_packed* packed) { return packed ? packed->bytes : 0; }

void quantal_packed_free(quantal_packed* packed) { delete packed; }

quantal_status quantal_packed_mul_mat(const quantal_packed* packed, const quantal_matrix* x,
                                      const quantal_matrix* out, const quantal_product_options* options) {
  if (!packed || !x || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  quantal_product_options o = or_default(options);
  o.arch = nullptr;
  const auto from = c::view_of<const float>(*x);
  const auto to = c::view_of<float>(*out);
  return run_product(
      __func__, &o,
      [&](const runtime::dispatcher&) { return runtime::mul_mat_workspace(packed->matrix, from); },
      [&](const runtime::dispatcher&, const product_options& p) {
        return runtime::mul_mat(packed->matrix, from, to, p);
      },
      *x, *out);
}

size_t quantal_packed_mul_mat_workspace(const quantal_packed* packed, const quantal_matrix* x) {
  return packed && x ? runtime::mul_mat_workspace(packed->matrix, c::view_of<const float>(*x)) : 0;
}

}  // extern "C"
