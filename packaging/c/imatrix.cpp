// Importance matrices of c.h.
#include "quantal/imatrix.hpp"

#include <cstring>
#include <iterator>

#include "failure.hpp"
#include "views.hpp"

struct quantal_imatrix {
  quantal::imatrix::store store;
};
struct quantal_importance {
  quantal::imatrix::importance found;
};

namespace {

using namespace quantal;

quantal_status no_entry(const char* function, std::string_view name) noexcept {
  return c::guarded(
      function, [&] { return c::fail(QUANTAL_NOT_FOUND, function, "no entry '" + std::string(name) + "'"); });
}

quantal_status give(const std::pair<const std::string, imatrix::entry>& e,
                    quantal_imatrix_entry* out) noexcept {
  *out = {e.first.c_str(), e.second.cols, e.second.slices, e.second.sums.data(), e.second.counts.data()};
  return QUANTAL_OK;
}

/// The squares of x's rows, added to a slice. False, and nothing added, where a sum would not be finite.
bool add_squares(imatrix::entry& e, std::int64_t slice, const matrix_view<const float>& x) {
  const auto cols = static_cast<std::size_t>(x.cols);
  auto sums = std::span(e.sums).subspan(static_cast<std::size_t>(slice) * cols, cols);
  std::vector<double> added(sums.begin(), sums.end());
  for (std::int64_t r = 0; r < x.rows; ++r) {
    const float* const row = x.data.data() + r * x.stride;
    for (std::size_t i = 0; i < cols; ++i) added[i] += double{row[i]} * row[i];
  }
  for (const double v : added)
    if (!is_finite(v)) return false;
  std::copy(added.begin(), added.end(), sums.begin());
  e.counts[static_cast<std::size_t>(slice)] += x.rows;
  return true;
}

}  // namespace

extern "C" {

quantal_status quantal_imatrix_create(quantal_imatrix** out) {
  return c::new_handle(__func__, out, [] { return result<imatrix::store>(imatrix::store{}); });
}

quantal_status quantal_imatrix_load(const char* path, quantal_imatrix** out) {
  if (!path) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::new_handle(__func__, out, [&] { return imatrix::load(path); });
}

quantal_status quantal_imatrix_save(const quantal_imatrix* im, const char* path) {
  if (!im || !path) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__] {
    const bool legacy = std::string_view(path).ends_with(".dat");
    const auto saved = legacy ? imatrix::save_dat(im->store, path) : imatrix::save_gguf(im->store, path);
    return saved ? QUANTAL_OK : c::file_error(function, saved.error());
  });
}

void quantal_imatrix_free(quantal_imatrix* im) { delete im; }

quantal_status quantal_imatrix_collect(quantal_imatrix* im, const char* tensor, int64_t slices, int64_t slice,
                                       const quantal_matrix* x) {
  if (!im || !tensor || !x) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    const auto view = c::view_of<const float>(*x);
    if (const status s = checks::check_view(view); s != status::ok)
      return c::fail(static_cast<quantal_status>(s), function,
                     std::string(to_string(s)) + ": " + c::describe(*x));
    if (!*tensor || x->cols == 0 || slices < 1 || slices > checks::largest_dimension || slice < 0 ||
        slice >= slices)
      return c::fail(QUANTAL_BAD_ARGUMENT, function,
                     "tensor '" + std::string(tensor) + "': slice " + std::to_string(slice) + " of " +
                         std::to_string(slices) + ", " + std::to_string(x->cols) + " columns");
    auto& entries = im->store.entries;
    auto it = entries.find(tensor);
    if (it != entries.end() && (it->second.cols != x->cols || it->second.slices != slices))
      return c::fail(QUANTAL_BAD_SHAPE, function,
                     "tensor '" + std::string(tensor) + "' has " +
                         c::shape(it->second.slices, it->second.cols) + " sums, not " +
                         c::shape(slices, x->cols));
    const bool added = it == entries.end();
    if (added) it = entries.try_emplace(tensor, x->cols, slices).first;
    if (add_squares(it->second, slice, view)) return QUANTAL_OK;
    if (added) entries.erase(it);
    return c::fail(QUANTAL_NOT_FINITE, function,
                   "tensor '" + std::string(tensor) + "': an activation is not finite");
  });
}

quantal_status quantal_imatrix_merge(quantal_imatrix* into, const quantal_imatrix* other) {
  if (!into || !other) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__] {
    const auto merged = imatrix::merge(into->store, other->store);
    return merged ? QUANTAL_OK : c::fail(QUANTAL_BAD_SHAPE, function, merged.error().message);
  });
}

quantal_status quantal_imatrix_add_dataset(quantal_imatrix* im, const char* name) {
  if (!im || !name) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&] {
    im->store.datasets.emplace_back(name);
    return QUANTAL_OK;
  });
}

quantal_status quantal_imatrix_set_chunk_size(quantal_imatrix* im, int64_t tokens) {
  if (!im) return c::fail(QUANTAL_NULL_POINTER, __func__);
  if (tokens < 1 || tokens > (1 << 30))
    return c::fail(QUANTAL_BAD_ARGUMENT, __func__, "tokens: 1 to 2^30 are possible");
  im->store.chunk_size = tokens;
  return QUANTAL_OK;
}

size_t quantal_imatrix_count(const quantal_imatrix* im) { return im ? im->store.entries.size() : 0; }

quantal_status quantal_imatrix_at(const quantal_imatrix* im, size_t index, quantal_imatrix_entry* out) {
  if (!im || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  if (index >= im->store.entries.size()) return no_entry(__func__, "of this index");
  return give(*std::next(im->store.entries.begin(), static_cast<std::ptrdiff_t>(index)), out);
}

quantal_status quantal_imatrix_find(const quantal_imatrix* im, const char* tensor,
                                    quantal_imatrix_entry* out) {
  if (!im || !tensor || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__] {
    const auto it = im->store.entries.find(tensor);
    return it == im->store.entries.end() ? no_entry(function, tensor) : give(*it, out);
  });
}

quantal_status quantal_imatrix_lookup(const quantal_imatrix* im, const quantal_tensor_shape* tensor,
                                      quantal_importance** out) {
  if (!im || !tensor || !tensor->name) return c::fail(QUANTAL_NULL_POINTER, __func__);
  if (!checks::dimension(tensor->cols) || !checks::dimension(tensor->rows) ||
      !checks::dimension(tensor->slices))
    return c::fail(QUANTAL_BAD_SHAPE, __func__);
  if (!out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  *out = nullptr;
  return c::guarded(__func__, [&, function = __func__] {
    const imatrix::tensor_shape shape{tensor->name, tensor->cols, tensor->rows, tensor->slices};
    const imatrix::model_shape model{.heads = tensor->heads, .experts = tensor->experts};
    auto found = imatrix::resolve(im->store, shape, model);
    if (!found) return c::fail(QUANTAL_BAD_SHAPE, function, found.error().message);
    *out = new quantal_importance{std::move(*found)};
    return QUANTAL_OK;
  });
}

quantal_status quantal_importance_get(const quantal_importance* importance, quantal_importance_view* out) {
  if (!importance || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  const imatrix::importance& i = importance->found;
  *out = {to_string(i.from).data(),      i.detail.c_str(), i.cols, i.vectors, i.rows_per_vector,
          i ? i.weights.data() : nullptr};
  return QUANTAL_OK;
}

void quantal_importance_free(quantal_importance* importance) { delete importance; }

}  // extern "C"
