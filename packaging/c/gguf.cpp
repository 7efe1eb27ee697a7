// GGUF files of c.h.
#include "quantal/gguf.hpp"

#include <cstring>
#include <iterator>
#include <optional>

#include "failure.hpp"
#include "views.hpp"

struct quantal_gguf {
  quantal::gguf::reader reader;
};

struct quantal_gguf_writer {
  quantal::gguf::metadata keys;
  std::vector<quantal::gguf::tensor_info> tensors;
  std::optional<quantal::gguf::writer> file;  ///< once the plan is fixed
  bool finished = false;
};

namespace {

using namespace quantal;

static_assert(QUANTAL_GGUF_FLOAT64 == static_cast<int>(gguf::value_type::f64) &&
              QUANTAL_GGUF_ARRAY == static_cast<int>(gguf::value_type::array));

constexpr bool booleans[2] = {false, true};

quantal_status missing(const char* function, const std::string& path, const char* what,
                       std::string_view name) {
  return c::fail(QUANTAL_NOT_FOUND, function, path + ": no " + what + " '" + std::string(name) + "'");
}

quantal_status give(const gguf::reader& file, const gguf::tensor_info& t, quantal_gguf_tensor* out) {
  const auto bytes = file.data(t);
  *out = {
      t.name.c_str(), t.type, t.n_dims, {t.ne[0], t.ne[1], t.ne[2], t.ne[3]}, bytes ? bytes->data() : nullptr,
      t.nbytes};
  return QUANTAL_OK;
}

quantal_gguf_type number_of(gguf::value_type t) noexcept { return static_cast<quantal_gguf_type>(t); }

quantal_gguf_value string_value(const std::string& s) noexcept {
  return {QUANTAL_GGUF_STRING, QUANTAL_GGUF_STRING, s.size(), s.c_str()};
}

quantal_gguf_value value_of(const gguf::value& v) noexcept {
  const quantal_gguf_type type = number_of(gguf::type_of(v));
  return std::visit(
      [&]<class T>(const T& x) -> quantal_gguf_value {
        if constexpr (std::is_same_v<T, std::string>) {
          return string_value(x);
        } else if constexpr (std::is_same_v<T, gguf::array>) {
          const quantal_gguf_type element = number_of(gguf::element_type_of(x));
          return std::visit(
              [&]<class E>(const std::vector<E>& all) -> quantal_gguf_value {
                const void* data = nullptr;
                if constexpr (!std::is_same_v<E, bool> && !std::is_same_v<E, std::string>) data = all.data();
                return {type, element, all.size(), data};
              },
              x);
        } else {
          return {type, type, 1, &x};
        }
      },
      v);
}

/// Element `index`, which exists.
quantal_gguf_value element_of(const gguf::array& a, std::size_t index) noexcept {
  const quantal_gguf_type type = number_of(gguf::element_type_of(a));
  return std::visit(
      [&]<class E>(const std::vector<E>& all) -> quantal_gguf_value {
        if constexpr (std::is_same_v<E, std::string>)
          return string_value(all[index]);
        else if constexpr (std::is_same_v<E, bool>)
          return {type, type, 1, &booleans[all[index] ? 1 : 0]};
        else
          return {type, type, 1, &all[index]};
      },
      a);
}

/// Calls use(T{}) with the C++ type of a number or boolean; false for other types.
template <class Use>
bool with_type(quantal_gguf_type type, Use&& use) {
  switch (type) {
    case QUANTAL_GGUF_UINT8:
      return use(std::uint8_t{}), true;
    case QUANTAL_GGUF_INT8:
      return use(std::int8_t{}), true;
    case QUANTAL_GGUF_UINT16:
      return use(std::uint16_t{}), true;
    case QUANTAL_GGUF_INT16:
      return use(std::int16_t{}), true;
    case QUANTAL_GGUF_UINT32:
      return use(std::uint32_t{}), true;
    case QUANTAL_GGUF_INT32:
      return use(std::int32_t{}), true;
    case QUANTAL_GGUF_FLOAT32:
      return use(float{}), true;
    case QUANTAL_GGUF_BOOL:
      return use(bool{}), true;
    case QUANTAL_GGUF_UINT64:
      return use(std::uint64_t{}), true;
    case QUANTAL_GGUF_INT64:
      return use(std::int64_t{}), true;
    case QUANTAL_GGUF_FLOAT64:
      return use(double{}), true;
    default:
      return false;
  }
}

/// Numbers of type T from the caller's memory; a bool is any byte.
template <class T>
std::vector<T> load(const void* values, std::size_t count) {
  using stored = std::conditional_t<std::is_same_v<T, bool>, std::uint8_t, T>;
  static_assert(sizeof(stored) == sizeof(T));
  std::vector<stored> v(count);
  if (count > 0) std::memcpy(v.data(), values, count * sizeof(stored));
  if constexpr (std::is_same_v<T, bool>) {
    std::vector<bool> flags;
    for (const stored b : v) flags.push_back(b != 0);
    return flags;
  } else {
    return v;
  }
}

/// A writer whose plan may still change, and a key.
quantal_status check_planning(const char* function, const quantal_gguf_writer* w, const char* name) {
  if (!w || !name) return c::fail(QUANTAL_NULL_POINTER, function);
  if (!*name) return c::fail(QUANTAL_BAD_ARGUMENT, function, "the name is empty");
  if (w->file || w->finished)
    return c::fail(QUANTAL_BAD_ARGUMENT, function, "the file has been opened: its plan is fixed");
  return QUANTAL_OK;
}

quantal_status check_open(const char* function, const quantal_gguf_writer* w) {
  if (!w) return c::fail(QUANTAL_NULL_POINTER, function);
  if (!w->file) return c::fail(QUANTAL_BAD_ARGUMENT, function, "no file is open");
  return QUANTAL_OK;
}

}  // namespace

extern "C" {

quantal_status quantal_gguf_open(const char* path, quantal_gguf** out) {
  if (!path) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::new_handle(__func__, out, [&] { return gguf::reader::open(path); });
}

void quantal_gguf_close(quantal_gguf* file) { delete file; }

size_t quantal_gguf_tensor_count(const quantal_gguf* file) {
  return file ? file->reader.tensors().size() : 0;
}

quantal_status quantal_gguf_tensor_at(const quantal_gguf* file, size_t index, quantal_gguf_tensor* out) {
  if (!file || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__] {
    const auto& all = file->reader.tensors();
    if (index >= all.size())
      return missing(function, file->reader.path(), "tensor of index", std::to_string(index));
    return give(file->reader, all[index], out);
  });
}

quantal_status quantal_gguf_tensor_find(const quantal_gguf* file, const char* name,
                                        quantal_gguf_tensor* out) {
  if (!file || !name || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__] {
    const gguf::tensor_info* const t = file->reader.find(name);
    return t ? give(file->reader, *t, out) : missing(function, file->reader.path(), "tensor", name);
  });
}

quantal_status quantal_gguf_weights(const quantal_gguf* file, const char* name, quantal_weights* out) {
  if (!file || !name || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    const gguf::tensor_info* const t = file->reader.find(name);
    if (!t) return missing(function, file->reader.path(), "tensor", name);
    const auto bytes = file->reader.data(*t);
    if (!bytes) return c::file_error(function, bytes.error());
    if (!find_format(t->type))
      return c::fail(
          QUANTAL_UNSUPPORTED, function,
          file->reader.path() + ": tensor '" + t->name + "' is of type " + gguf::type_name(t->type));
    *out = {t->type, bytes->data(), bytes->size(), t->rows(), t->cols(), 0, t->slices(), 0};
    return QUANTAL_OK;
  });
}

size_t quantal_gguf_key_count(const quantal_gguf* file) { return file ? file->reader.meta().size() : 0; }

const char* quantal_gguf_key_at(const quantal_gguf* file, size_t index) {
  return file && index < file->reader.meta().size() ? file->reader.meta().items()[index].first.c_str()
                                                    : nullptr;
}

quantal_status quantal_gguf_get(const quantal_gguf* file, const char* key, quantal_gguf_value* out) {
  if (!file || !key || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    const gguf::value* const v = file->reader.meta().find(key);
    if (!v) return missing(function, file->reader.path(), "key", key);
    *out = value_of(*v);
    return QUANTAL_OK;
  });
}

quantal_status quantal_gguf_element(const quantal_gguf* file, const char* key, size_t index,
                                    quantal_gguf_value* out) {
  quantal_gguf_value all;
  if (const quantal_status s = quantal_gguf_get(file, key, &all); s != QUANTAL_OK) return s;
  if (!out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    if (all.type != QUANTAL_GGUF_ARRAY)
      return c::fail(QUANTAL_BAD_ARGUMENT, function,
                     file->reader.path() + ": key '" + key + "' is not an array");
    if (index >= all.count)
      return missing(function, file->reader.path(), "element",
                     std::string(key) + "[" + std::to_string(index) + "]");
    *out = element_of(*std::get_if<gguf::array>(file->reader.meta().find(key)), index);
    return QUANTAL_OK;
  });
}

quantal_status quantal_gguf_get_int64(const quantal_gguf* file, const char* key, int64_t* out) {
  if (!file || !key || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    if (!file->reader.meta().contains(key)) return missing(function, file->reader.path(), "key", key);
    const auto n = file->reader.meta().integer(key);
    if (!n) return c::fail(QUANTAL_BAD_ARGUMENT, function, file->reader.path() + ": " + n.error().message);
    *out = *n;
    return QUANTAL_OK;
  });
}

quantal_status quantal_gguf_get_double(const quantal_gguf* file, const char* key, double* out) {
  if (!file || !key || !out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    if (!file->reader.meta().contains(key)) return missing(function, file->reader.path(), "key", key);
    const auto n = file->reader.meta().number(key);
    if (!n) return c::fail(QUANTAL_BAD_ARGUMENT, function, file->reader.path() + ": " + n.error().message);
    *out = *n;
    return QUANTAL_OK;
  });
}

quantal_status quantal_gguf_writer_create(quantal_gguf_writer** out) {
  if (!out) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return c::guarded(__func__, [&] {
    *out = nullptr;
    *out = new quantal_gguf_writer;
    return QUANTAL_OK;
  });
}

quantal_status quantal_gguf_writer_set(quantal_gguf_writer* w, const char* key, quantal_gguf_type type,
                                       const void* value) {
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    if (const quantal_status s = check_planning(function, w, key); s != QUANTAL_OK) return s;
    if (!value) return c::fail(QUANTAL_NULL_POINTER, function);
    if (type == QUANTAL_GGUF_STRING) {
      w->keys.set(key, std::string(static_cast<const char*>(value)));
      return QUANTAL_OK;
    }
    const bool known =
        with_type(type, [&]<class T>(T) { w->keys.set(key, static_cast<T>(load<T>(value, 1)[0])); });
    if (known) return QUANTAL_OK;
    return c::fail(QUANTAL_BAD_ARGUMENT, function,
                   "key '" + std::string(key) + "': not the type of one value");
  });
}

quantal_status quantal_gguf_writer_set_array(quantal_gguf_writer* w, const char* key,
                                             quantal_gguf_type element, const void* values, size_t count) {
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    if (const quantal_status s = check_planning(function, w, key); s != QUANTAL_OK) return s;
    if (!values && count > 0) return c::fail(QUANTAL_NULL_POINTER, function);
    if (element == QUANTAL_GGUF_STRING) {
      const auto* const texts = static_cast<const char* const*>(values);
      std::vector<std::string> strings;
      for (size_t i = 0; i < count; ++i) {
        if (!texts[i])
          return c::fail(QUANTAL_NULL_POINTER, function, "string " + std::to_string(i) + " is NULL");
        strings.emplace_back(texts[i]);
      }
      w->keys.set(key, gguf::array(std::move(strings)));
      return QUANTAL_OK;
    }
    const bool known =
        with_type(element, [&]<class T>(T) { w->keys.set(key, gguf::array(load<T>(values, count))); });
    if (known) return QUANTAL_OK;
    return c::fail(QUANTAL_BAD_ARGUMENT, function,
                   "key '" + std::string(key) + "': not the type of an element");
  });
}

quantal_status quantal_gguf_writer_copy_keys(quantal_gguf_writer* w, const quantal_gguf* from) {
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    if (const quantal_status s = check_planning(function, w, "keys"); s != QUANTAL_OK) return s;
    if (!from) return c::fail(QUANTAL_NULL_POINTER, function);
    for (const auto& [key, v] : from->reader.meta().items()) w->keys.set(key, v);
    return QUANTAL_OK;
  });
}

quantal_status quantal_gguf_writer_add_tensor(quantal_gguf_writer* w, const char* name, uint32_t type,
                                              int32_t dimensions, const int64_t* ne) {
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    if (const quantal_status s = check_planning(function, w, name); s != QUANTAL_OK) return s;
    if (!ne) return c::fail(QUANTAL_NULL_POINTER, function);
    if (dimensions < 1 || dimensions > 4)
      return c::fail(QUANTAL_BAD_SHAPE, function,
                     "tensor '" + std::string(name) + "': " + std::to_string(dimensions) +
                         " dimensions, 1 to 4 are possible");
    gguf::tensor_info t;
    t.name = name, t.type = type, t.n_dims = dimensions;
    std::copy(ne, ne + dimensions, t.ne.begin());
    if (!gguf::tensor_bytes(type, t.ne))
      return c::fail(
          find_format(type) || gguf::find_plain_type(type) ? QUANTAL_BAD_SHAPE : QUANTAL_UNKNOWN_FORMAT,
          function,
          "tensor '" + std::string(name) + "': " + gguf::type_name(type) + " cannot hold this shape");
    w->tensors.push_back(std::move(t));
    return QUANTAL_OK;
  });
}

quantal_status quantal_gguf_writer_open(quantal_gguf_writer* w, const char* path) {
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    if (const quantal_status s = check_planning(function, w, path); s != QUANTAL_OK) return s;
    auto file = gguf::writer::create(path, w->keys, w->tensors);
    if (!file) return c::file_error(function, file.error());
    w->file.emplace(std::move(*file));
    return QUANTAL_OK;
  });
}

quantal_status quantal_gguf_writer_append(quantal_gguf_writer* w, const void* data, size_t size) {
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    if (const quantal_status s = check_open(function, w); s != QUANTAL_OK) return s;
    if (!data && size > 0) return c::fail(QUANTAL_NULL_POINTER, function);
    const auto done = w->file->append({static_cast<const std::byte*>(data), size});
    return done ? QUANTAL_OK : c::file_error(function, done.error());
  });
}

quantal_status quantal_gguf_writer_finish(quantal_gguf_writer* w) {
  return c::guarded(__func__, [&, function = __func__]() -> quantal_status {
    if (const quantal_status s = check_open(function, w); s != QUANTAL_OK) return s;
    const auto done = w->file->finish();
    if (!done) return c::file_error(function, done.error());
    w->file.reset();
    w->finished = true;
    return QUANTAL_OK;
  });
}

void quantal_gguf_writer_free(quantal_gguf_writer* w) { delete w; }

}  // extern "C"
