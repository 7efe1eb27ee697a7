#include "metadata.hpp"

#include <array>
#include <limits>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

namespace quantal::python {
namespace {

using gguf::value_type;

/// Names of types, by their numbers.
constexpr std::array<std::string_view, 13> type_names{"u8",   "i8",  "u16",   "i16", "u32", "i32", "f32",
                                                      "bool", "str", "array", "u64", "i64", "f64"};

std::string name_of(value_type t) { return std::string(type_names[static_cast<std::size_t>(t)]); }

/// "u32", or "[u32]" for arrays.
std::string type_of(const gguf::value& v) {
  const auto* a = std::get_if<gguf::array>(&v);
  return a ? "[" + name_of(gguf::element_type_of(*a)) + "]" : name_of(gguf::type_of(v));
}

/// Text of files need not be UTF-8.
nb::object text_to_python(const std::string& s) {
  return nb::steal(PyUnicode_DecodeUTF8(s.data(), static_cast<Py_ssize_t>(s.size()), "surrogateescape"));
}
std::string text_from_python(nb::handle h) {
  const nb::object bytes = nb::steal(PyUnicode_AsEncodedString(h.ptr(), "utf-8", "surrogateescape"));
  if (!bytes.is_valid()) throw nb::python_error();
  const auto b = nb::borrow<nb::bytes>(bytes);
  return {b.c_str(), b.size()};
}

template <class T>
nb::object array_to_python(const std::vector<T>& values) {
  if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, bool>) {
    nb::list out;
    for (const auto& v : values)
      if constexpr (std::is_same_v<T, bool>)
        out.append(nb::bool_(static_cast<bool>(v)));
      else
        out.append(text_to_python(v));
    return out;
  } else {
    auto copy = uninitialized<T>(static_cast<std::int64_t>(values.size()));
    std::copy(values.begin(), values.end(), copy.get());
    return numpy_array(std::move(copy), {static_cast<std::int64_t>(values.size())});
  }
}

nb::object to_python(const gguf::value& v) {
  return std::visit(
      [](const auto& x) -> nb::object {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, std::string>)
          return text_to_python(x);
        else if constexpr (std::is_same_v<T, gguf::array>)
          return std::visit([](const auto& a) { return array_to_python(a); }, x);
        else if constexpr (std::is_same_v<T, bool>)
          return nb::bool_(x);
        else if constexpr (std::is_floating_point_v<T>)
          return nb::float_(static_cast<double>(x));
        else
          return nb::int_(x);
      },
      v);
}

std::optional<value_type> type_named(std::string_view name) noexcept {
  for (std::size_t i = 0; i < type_names.size(); ++i)
    if (type_names[i] == name && i != static_cast<std::size_t>(value_type::array))
      return static_cast<value_type>(i);
  return std::nullopt;
}

[[noreturn]] void misfit(const std::string& key, nb::handle given, const std::string& type) {
  std::string shown = nb::cast<std::string>(nb::repr(given));
  if (shown.size() > 80) shown = shown.substr(0, 77) + "...";
  bad_value("key '" + key + "': " + shown + " is no value of type " + type);
}

/// An integer of Python or numpy, within the range of T.
template <class T>
T integer_of(const std::string& key, nb::handle h, const std::string& type) {
  T out{};
  if (nb::isinstance<nb::bool_>(h) || !PyIndex_Check(h.ptr())) misfit(key, h, type);
  const nb::object index = nb::steal(PyNumber_Index(h.ptr()));
  if (!index.is_valid()) throw nb::python_error();
  if (!nb::try_cast(index, out)) misfit(key, h, type);
  return out;
}

template <class T>
T scalar_of(const std::string& key, nb::handle h, const std::string& type) {
  if constexpr (std::is_same_v<T, std::string>) {
    if (!nb::isinstance<nb::str>(h)) misfit(key, h, type);
    return text_from_python(h);
  } else if constexpr (std::is_same_v<T, bool>) {
    const int truth = PyObject_IsTrue(h.ptr());
    if (truth < 0) throw nb::python_error();
    return truth == 1;
  } else if constexpr (std::is_floating_point_v<T>) {
    const double v = PyFloat_AsDouble(h.ptr());
    if (v == -1.0 && PyErr_Occurred()) throw nb::python_error();
    return static_cast<T>(v);
  } else {
    return integer_of<T>(key, h, type);
  }
}

/// Calls f with a value of the type that the number names.
template <class F>
gguf::value with_type(value_type t, F f) {
  switch (t) {
    case value_type::u8:
      return f(std::uint8_t{});
    case value_type::i8:
      return f(std::int8_t{});
    case value_type::u16:
      return f(std::uint16_t{});
    case value_type::i16:
      return f(std::int16_t{});
    case value_type::u32:
      return f(std::uint32_t{});
    case value_type::i32:
      return f(std::int32_t{});
    case value_type::f32:
      return f(float{});
    case value_type::boolean:
      return f(bool{});
    case value_type::string:
      return f(std::string{});
    case value_type::u64:
      return f(std::uint64_t{});
    case value_type::i64:
      return f(std::int64_t{});
    default:
      return f(double{});
  }
}

gguf::value scalar(const std::string& key, nb::handle h, value_type t) {
  return with_type(t, [&]<class T>(T) -> gguf::value { return scalar_of<T>(key, h, name_of(t)); });
}
gguf::value array(const std::string& key, nb::handle h, value_type t) {
  return with_type(t, [&]<class T>(T) -> gguf::value {
    std::vector<T> out;
    for (const nb::handle item : h) out.push_back(scalar_of<T>(key, item, name_of(t)));
    return gguf::array(std::move(out));
  });
}

/// The type of an array's dtype or of numpy's scalars; nothing for objects of Python.
std::optional<value_type> numpy_type(nb::handle h) {
  if (!nb::hasattr(h, "dtype")) return std::nullopt;
  const auto dtype = shown(h.attr("dtype"));
  static constexpr std::array<std::pair<std::string_view, value_type>, 11> known{
      {{"uint8", value_type::u8},
       {"int8", value_type::i8},
       {"uint16", value_type::u16},
       {"int16", value_type::i16},
       {"uint32", value_type::u32},
       {"int32", value_type::i32},
       {"float32", value_type::f32},
       {"bool", value_type::boolean},
       {"uint64", value_type::u64},
       {"int64", value_type::i64},
       {"float64", value_type::f64}}};
  for (const auto& [name, type] : known)
    if (name == dtype) return type;
  return std::nullopt;
}

/// The usual type of a Python object: what engines expect of counts (u32), of numbers (f32), of tokens (i32).
value_type usual_type(const std::string& key, nb::handle h, bool in_array) {
  if (const auto t = numpy_type(h)) return *t;
  if (nb::isinstance<nb::bool_>(h)) return value_type::boolean;
  if (nb::isinstance<nb::str>(h)) return value_type::string;
  if (nb::isinstance<nb::float_>(h)) return value_type::f32;
  if (!PyIndex_Check(h.ptr()))
    bad_type("key '" + key + "': " + nb::cast<std::string>(nb::repr(nb::handle(h.type()))) +
             " is no value of GGUF files");
  std::int64_t n = 0;
  if (!nb::try_cast(nb::steal(PyNumber_Index(h.ptr())), n)) return value_type::u64;
  const bool fits_i32 =
      n >= std::numeric_limits<std::int32_t>::min() && n <= std::numeric_limits<std::int32_t>::max();
  if (in_array || n < 0) return fits_i32 ? value_type::i32 : value_type::i64;
  return n <= std::numeric_limits<std::uint32_t>::max() ? value_type::u32 : value_type::i64;
}

bool is_sequence(nb::handle h) {
  if (nb::isinstance<nb::str>(h) || nb::isinstance<nb::bytes>(h) || nb::isinstance<nb::dict>(h)) return false;
  return nb::hasattr(h, "ndim") ? nb::cast<int>(h.attr("ndim")) == 1 : PySequence_Check(h.ptr()) == 1;
}

/// Wider types for items that the first one's does not hold.
value_type usual_element_type(const std::string& key, nb::handle h) {
  if (const auto t = numpy_type(h)) return *t;
  std::optional<value_type> type;
  for (const nb::handle item : h) {
    const value_type t = usual_type(key, item, true);
    const bool wider = type == value_type::i32 && (t == value_type::i64 || t == value_type::f32);
    if (!type || wider) type = t;
  }
  return type.value_or(value_type::i32);
}

gguf::value usual_value(const std::string& key, nb::handle h) {
  if (is_sequence(h)) return array(key, h, usual_element_type(key, h));
  return scalar(key, h, usual_type(key, h, false));
}

/// A key keeps its type where the new value is of the same kind and fits.
gguf::value value_for(const gguf::metadata& meta, const std::string& key, nb::handle h) {
  const gguf::value* const before = meta.find(key);
  if (!before || numpy_type(h)) return usual_value(key, h);
  const auto* const before_array = std::get_if<gguf::array>(before);
  if (is_sequence(h) != (before_array != nullptr)) return usual_value(key, h);
  try {
    return before_array ? array(key, h, gguf::element_type_of(*before_array))
                        : scalar(key, h, gguf::type_of(*before));
  } catch (const nb::builtin_exception&) {
    return usual_value(key, h);
  }
}

gguf::value typed_value(const std::string& key, nb::handle h, const std::string& type) {
  const bool list = type.size() > 2 && type.front() == '[' && type.back() == ']';
  const auto t =
      type_named(list ? std::string_view(type).substr(1, type.size() - 2) : std::string_view(type));
  if (!t)
    bad_value("key '" + key + "': '" + type +
              "' is no type; types are u8, i8, ..., f64, bool, str and [u8], ...");
  if (list != is_sequence(h)) misfit(key, h, type);
  return list ? array(key, h, *t) : scalar(key, h, *t);
}

void check_key(const std::string& key) {
  if (key.empty()) bad_value("a key of metadata is not empty");
}

void set(gguf::metadata& meta, const std::string& key, nb::handle h,
         const std::optional<std::string>& type = {}) {
  check_key(key);
  meta.set(key, type ? typed_value(key, h, *type) : value_for(meta, key, h));
}

[[noreturn]] void no_key(const std::string& key) { raise(PyExc_KeyError, key); }

const gguf::value& found(const metadata_map& m, const std::string& key) {
  const gguf::value* const v = m.get().find(key);
  if (!v) no_key(key);
  return *v;
}

template <class F>
nb::list listed(const metadata_map& m, F f) {
  nb::list out;
  for (const auto& [key, v] : m.get().items()) out.append(f(key, v));
  return out;
}

nb::list keys_of(const metadata_map& m) {
  return listed(m, [](const std::string& key, const gguf::value&) { return text_to_python(key); });
}

void update(gguf::metadata& meta, nb::handle mapping) {
  if (nb::isinstance<metadata_map>(mapping)) {
    const auto other = nb::cast<const metadata_map&>(mapping);
    for (const auto& [key, v] : other.get().items()) meta.set(key, v);
    return;
  }
  if (!nb::hasattr(mapping, "keys")) bad_type("metadata: not a mapping of keys to values");
  for (const nb::handle key : mapping.attr("keys")()) {
    if (!nb::isinstance<nb::str>(key)) bad_type("metadata: a key is not a str");
    set(meta, text_from_python(key), nb::object(mapping[key]));
  }
}

}  // namespace

gguf::metadata& metadata_map::own() {
  if (!own_) bad_type("the metadata of a file is read-only; copy() can be changed");
  return *own_;
}

metadata_map metadata_map::copy() const {
  metadata_map out;
  *out.own_ = *shared_;
  return out;
}

gguf::metadata metadata_of(nb::handle given) {
  gguf::metadata out;
  if (!given.is_none()) update(out, given);
  return out;
}

void bind_metadata(nb::module_& m) {
  nb::class_<metadata_map>(m, "Metadata",
                           R"(Keys and values of a GGUF file, in order, with their types: a mutable mapping.

Values are int, float, bool, str; arrays of numbers are numpy arrays (copies), others lists. What is set keeps the type
that the key has; new keys get u32 (i32, i64, u64 where that does not hold them), f32, bool, str, arrays of integers
i32 or i64; numpy's scalars and arrays bring their own. set() says the type.)")
      .def(
          "__init__",
          [](metadata_map* self, nb::handle mapping) {
            new (self) metadata_map();
            if (!mapping.is_none()) update(self->own(), mapping);
          },
          nb::arg("mapping") = nb::none(),
          nb::sig("def __init__(self, mapping: MetadataLike | None = None) -> None"))
      .def(
          "__getitem__",
          [](const metadata_map& s, const std::string& key) { return to_python(found(s, key)); },
          nb::arg("key"), nb::sig("def __getitem__(self, key: str) -> MetadataValue"))
      .def(
          "__setitem__", [](metadata_map& s, const std::string& key, nb::handle v) { set(s.own(), key, v); },
          nb::arg("key"), nb::arg("value"), nb::sig("def __setitem__(self, key: str, value: object) -> None"))
      .def(
          "__delitem__",
          [](metadata_map& s, const std::string& key) {
            if (!s.own().contains(key)) no_key(key);
            s.own().erase(key);
          },
          nb::arg("key"))
      .def(
          "get",
          [](const metadata_map& s, const std::string& key, nb::object otherwise) {
            const gguf::value* const v = s.get().find(key);
            return v ? to_python(*v) : otherwise;
          },
          nb::arg("key"), nb::arg("default") = nb::none(),
          nb::sig("def get(self, key: str, default: Any = None) -> Any"), "The value, or `default`.")
      .def(
          "set",
          [](metadata_map& s, const std::string& key, nb::handle v, const std::string& type) {
            set(s.own(), key, v, type);
          },
          nb::arg("key"), nb::arg("value"), nb::arg("type"),
          nb::sig("def set(self, key: str, value: object, type: str) -> None"),
          "Sets a key with a type: u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 bool str, or an array of it: "
          "\"[i32]\".")
      .def(
          "type", [](const metadata_map& s, const std::string& key) { return type_of(found(s, key)); },
          nb::arg("key"), "The type of a key: \"u32\", \"[str]\".")
      .def(
          "update", [](metadata_map& s, nb::handle mapping) { update(s.own(), mapping); }, nb::arg("mapping"),
          nb::sig("def update(self, mapping: MetadataLike) -> None"), "Sets all keys of a mapping.")
      .def("copy", &metadata_map::copy, "A copy that can be changed.")
      .def("keys", &keys_of, nb::sig("def keys(self) -> list[str]"), "The keys, in the order of the file.")
      .def(
          "values",
          [](const metadata_map& s) {
            return listed(s, [](const std::string&, const gguf::value& v) { return to_python(v); });
          },
          nb::sig("def values(self) -> list[MetadataValue]"), "The values, in the order of the file.")
      .def(
          "items",
          [](const metadata_map& s) {
            return listed(s, [](const std::string& key, const gguf::value& v) {
              return nb::make_tuple(text_to_python(key), to_python(v));
            });
          },
          nb::sig("def items(self) -> list[tuple[str, MetadataValue]]"), "Keys with their values.")
      .def(
          "__iter__", [](const metadata_map& s) { return nb::iter(keys_of(s)); },
          nb::sig("def __iter__(self) -> Iterator[str]"))
      .def("__len__", [](const metadata_map& s) { return s.get().size(); })
      .def(
          "__contains__",
          [](const metadata_map& s, nb::handle key) {
            return nb::isinstance<nb::str>(key) && s.get().contains(text_from_python(key));
          },
          nb::arg("key"), nb::sig("def __contains__(self, key: object) -> bool"))
      .def("__repr__",
           [](const metadata_map& s) { return "Metadata(" + std::to_string(s.get().size()) + " keys)"; });
}

}  // namespace quantal::python
