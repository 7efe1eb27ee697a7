#include "arrays.hpp"

#include <cstring>
#include <vector>

#include "device.hpp"
#include "quantal/checked.hpp"
#include "quantal/format/bf16.hpp"
#include "quantal/format/f16.hpp"

namespace quantal::python {
namespace {

constexpr int bytes_of(number n) noexcept { return n == number::f64 ? 8 : n == number::f32 ? 4 : 2; }

std::optional<number> number_of(nb::dlpack::dtype t) noexcept {
  const auto code = static_cast<nb::dlpack::dtype_code>(t.code);
  if (t.lanes != 1) return std::nullopt;
  if (code == nb::dlpack::dtype_code::Bfloat && t.bits == 16) return number::bf16;
  if (code != nb::dlpack::dtype_code::Float) return std::nullopt;
  if (t.bits == 16) return number::f16;
  if (t.bits == 32) return number::f32;
  return t.bits == 64 ? std::optional(number::f64) : std::nullopt;
}

std::string type_of(nb::handle h) { return shown(h.type().attr("__name__")); }

std::string dtype_of(nb::handle h) {
  return nb::hasattr(h, "dtype") ? shown(h.attr("dtype")) : "unknown dtype";
}

/// Arrays that do not import as they are: bfloat16 of ml_dtypes, tensors with gradients, __array_interface__ alone.
/// The second value tells that the elements are the bits of bfloat16.
std::pair<nb::object, bool> prepared(nb::handle source) {
  const nb::object prepare = nb::module_::import_("quantal._arrays").attr("prepare");
  const auto answer = nb::cast<nb::tuple>(prepare(source));
  return {nb::object(answer[0]), nb::cast<bool>(answer[1])};
}

template <class T>
T load(const std::byte* p) noexcept {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class Convert>
void convert_row(const std::byte* from, std::int64_t stride, std::int64_t cols, float* out,
                 Convert convert) noexcept {
  for (std::int64_t c = 0; c < cols; ++c) out[c] = convert(from + c * stride);
}

float narrowed(const std::byte* p) noexcept { return static_cast<float>(load<double>(p)); }

}  // namespace

void raise(PyObject* type, const std::string& message) {
  const nb::gil_scoped_acquire held;
  const auto size = static_cast<Py_ssize_t>(message.size());
  const nb::object text = nb::steal(PyUnicode_DecodeUTF8(message.data(), size, "backslashreplace"));
  if (text.is_valid()) PyErr_SetObject(type, text.ptr());
  throw nb::python_error();
}

void bad_value(const std::string& message) { raise(PyExc_ValueError, message); }
void bad_type(const std::string& message) { raise(PyExc_TypeError, message); }

void extents::push(std::int64_t n) {
  if (count_ == most) bad_value("arrays have at most " + std::to_string(most) + " dimensions here");
  sizes_[static_cast<std::size_t>(count_++)] = n;
}

extents extents::without_first(int n) const {
  extents out;
  for (int i = n; i < count_; ++i) out.push((*this)[i]);
  return out;
}

extents extents::with_last(std::int64_t n) const {
  extents out = *this;
  out[count_ - 1] = n;
  return out;
}

std::int64_t extents::rows() const {
  std::optional<std::int64_t> n = 1;
  for (int i = 0; i + 1 < count_ && n; ++i) n = checked_multiply(*n, (*this)[i]);
  if (!n) bad_value("shape " + text(*this) + " is too large");
  return *n;
}

std::int64_t extents::elements() const {
  const auto n = checked_multiply(rows(), count_ ? back() : 1);
  if (!n) bad_value("shape " + text(*this) + " is too large");
  return *n;
}

nb::tuple extents::tuple() const {
  nb::list out;
  for (int i = 0; i < count_; ++i) out.append((*this)[i]);
  return nb::tuple(out);
}

std::string text(const extents& e) {
  std::string out = "(";
  for (int i = 0; i < e.count(); ++i) out += (i ? ", " : "") + std::to_string(e[i]);
  return out + (e.count() == 1 ? ",)" : ")");
}

std::string shown(nb::handle h) {
  const nb::object text = nb::steal(PyObject_Str(h.ptr()));
  if (!text.is_valid()) throw nb::python_error();
  return nb::cast<std::string>(text);
}

std::string text_of(nb::handle h, const std::string& role) {
  if (!nb::isinstance<nb::str>(h)) bad_type(role + ": " + type_of(h) + " is no text");
  std::string out;
  if (!nb::try_cast(h, out))
    bad_value(role + ": " + nb::cast<std::string>(nb::repr(h)) + " is no text that UTF-8 has");
  return out;
}

extents extents_of(nb::handle shape) {
  extents out;
  const auto push = [&](nb::handle n) {
    const nb::object index = PyIndex_Check(n.ptr()) ? nb::steal(PyNumber_Index(n.ptr())) : nb::object();
    std::int64_t value = 0;
    if (!index.is_valid() || !nb::try_cast(index, value) || value < 0)
      bad_value("shape: " + nb::cast<std::string>(nb::repr(n)) + " is no size");
    out.push(value);
  };
  if (PyIndex_Check(shape.ptr()))
    push(shape);
  else
    for (const nb::handle n : shape) push(n);
  return out;
}

void bad_dtype(const std::string& role, nb::handle array) {
  bad_type(role + ": dtype " + dtype_of(array) + " is not float32, float16, bfloat16 or float64");
}

number_array number_array::of(nb::handle source, const char* role) {
  number_array a;
  bool bits = false;
  if (!nb::try_cast(source, a.memory_, false)) {
    const auto [made, is_bits] = prepared(source);
    bits = is_bits;
    if (made.is_none() || !nb::try_cast(nb::handle(made), a.memory_, false))
      bad_type(std::string(role) + ": " + type_of(source) + " of " + dtype_of(source) +
               " is not an array of numbers");
  }
  if (a.memory_.device_type() != nb::device::cpu::value)
    bad_type(std::string(role) + ": lies on another device, where this does not work: use .cpu()");
  const auto kind = bits ? std::optional(number::bf16) : number_of(a.memory_.dtype());
  if (!kind) bad_dtype(role, source);
  if (a.memory_.ndim() == 0) bad_value(std::string(role) + ": a 0-dimensional array has no rows");
  a.kind_ = *kind;
  for (std::size_t i = 0; i < a.memory_.ndim(); ++i) {
    a.shape_.push(static_cast<std::int64_t>(a.memory_.shape(i)));
    a.strides_.push(a.memory_.stride(i) * bytes_of(a.kind_));
  }
  a.rows_ = a.shape_.rows();
  static_cast<void>(a.shape_.elements());
  a.data_ = reinterpret_cast<const std::byte*>(a.memory_.data());
  const bool dense = a.cols() <= 1 || a.strides_.back() == static_cast<std::int64_t>(sizeof(float));
  bool aligned = reinterpret_cast<std::uintptr_t>(a.data_) % alignof(float) == 0;
  for (int i = 0; i < a.strides_.count(); ++i)
    aligned = aligned && a.strides_[i] % static_cast<int>(alignof(float)) == 0;
  a.in_place_ = a.kind_ == number::f32 && dense && aligned;
  if (const auto stride = a.row_stride()) a.step_ = *stride * static_cast<std::int64_t>(sizeof(float));
  return a;
}

const std::byte* number_array::start_of(std::int64_t r) const noexcept {
  if (step_) return data_ + r * step_;
  const std::byte* p = data_;
  for (int i = shape_.count() - 2; i >= 0; --i) {
    p += r % shape_[i] * strides_[i];
    r /= shape_[i];
  }
  return p;
}

std::optional<std::int64_t> number_array::row_stride() const noexcept {
  return in_place_ ? row_stride_of(shape_, strides_) : std::nullopt;
}

std::optional<std::int64_t> row_stride_of(const extents& shape, const extents& strides) noexcept {
  const std::int64_t cols = shape.back();
  std::int64_t stride = 0, steps = 1;  // of the innermost dimension that has steps, and rows within
  for (int i = shape.count() - 2; i >= 0; --i) {
    if (shape[i] == 1) continue;
    if (shape[i] == 0) return cols;
    if (steps == 1) stride = strides[i];
    if (strides[i] != stride * steps) return std::nullopt;
    steps *= shape[i];
  }
  if (steps == 1) return cols;
  stride /= static_cast<std::int64_t>(sizeof(float));
  return stride >= cols ? std::optional(stride) : std::nullopt;
}

const float* number_array::row(std::int64_t r, float* scratch) const noexcept {
  const std::byte* const from = start_of(r);
  if (in_place_) return reinterpret_cast<const float*>(from);
  const std::int64_t stride = strides_.back();
  switch (kind_) {
    case number::f32:
      convert_row(from, stride, cols(), scratch, load<float>);
      break;
    case number::f64:
      convert_row(from, stride, cols(), scratch, narrowed);
      break;
    case number::f16:
      convert_row(from, stride, cols(), scratch,
                  [](const std::byte* p) noexcept { return f16::value(load<f16::block>(p)); });
      break;
    case number::bf16:
      convert_row(from, stride, cols(), scratch,
                  [](const std::byte* p) noexcept { return bf16::value(load<bf16::block>(p)); });
      break;
  }
  return scratch;
}

void number_array::copy_to(float* out) const noexcept {
  for (std::int64_t r = 0; r < rows_; ++r, out += cols())
    if (const float* const from = row(r, out); from != out)
      std::memcpy(out, from, static_cast<std::size_t>(cols()) * sizeof(float));
}

namespace {

bool is_torch(nb::handle h) {
  const nb::object torch = nb::steal(PyImport_GetModule(nb::str("torch").ptr()));
  return torch.is_valid() && nb::hasattr(torch, "Tensor") && nb::isinstance(h, torch.attr("Tensor"));
}
bool is_cupy(nb::handle h) {
  const nb::object cupy = nb::steal(PyImport_GetModule(nb::str("cupy").ptr()));
  return cupy.is_valid() && nb::hasattr(cupy, "ndarray") && nb::isinstance(h, cupy.attr("ndarray"));
}

/// "<f4" and so on; nothing for big-endian values and structures.
std::optional<nb::dlpack::dtype> dtype_named(const std::string& name) {
  using code = nb::dlpack::dtype_code;
  if (name.size() != 3 || name[0] == '>' || name[2] < '1' || name[2] > '8') return std::nullopt;
  const auto made = [&](code c) {
    return nb::dlpack::dtype{static_cast<std::uint8_t>(c), static_cast<std::uint8_t>(8 * (name[2] - '0')), 1};
  };
  switch (name[1]) {
    case 'f':
      return made(code::Float);
    case 'i':
      return made(code::Int);
    case 'u':
      return made(code::UInt);
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<device_array> device_array::of(nb::handle source) {
  if (is_torch(source)) {
    if (!nb::cast<bool>(source.attr("is_cuda"))) return std::nullopt;
    return from_torch(source);
  }
  if (is_cupy(source)) return from_dlpack(source, array_library::cupy);
  if (nb::hasattr(source, "__cuda_array_interface__")) return from_interface(source);
  if (!nb::hasattr(source, "__dlpack_device__")) return std::nullopt;
  const auto device = nb::cast<nb::tuple>(source.attr("__dlpack_device__")());
  const int type = nb::cast<int>(nb::int_(device[0]));
  if (type != nb::device::cuda::value && type != nb::device::cuda_managed::value) return std::nullopt;
  return from_dlpack(source, array_library::none);
}

nb::object device_helper(const char* name) {
  // Kept: a call has microseconds. The import may let go of the GIL, where the guard of a static object would be held.
  static PyObject* module = nullptr;
  if (!module) {
    nb::object imported = nb::module_::import_("quantal._device");
    if (!module) module = imported.release().ptr();
  }
  return nb::handle(module).attr(name);
}

device_array device_array::from_torch(nb::handle source) {
  const auto said = nb::cast<nb::tuple>(device_helper("torch_memory")(source));
  const extents shape = extents_of(nb::object(said[1])), strides = extents_of(nb::object(said[2]));
  std::array<std::size_t, extents::most> sizes{};
  std::array<std::int64_t, extents::most> steps{};
  for (int i = 0; i < shape.count(); ++i) {
    sizes[static_cast<std::size_t>(i)] = static_cast<std::size_t>(shape[i]);
    steps[static_cast<std::size_t>(i)] = strides[i];
  }
  device_array a;
  a.where_ = {nb::cast<int>(nb::object(said[3])), array_library::torch};
  const nb::dlpack::dtype dtype{nb::cast<std::uint8_t>(nb::object(said[4])),
                                nb::cast<std::uint8_t>(nb::object(said[5])), 1};
  a.memory_ = nb::ndarray<>(reinterpret_cast<void*>(nb::cast<std::uintptr_t>(nb::object(said[0]))),
                            static_cast<std::size_t>(shape.count()), sizes.data(), source, steps.data(),
                            dtype, nb::device::cuda::value, a.where_.cuda);
  return a;
}

std::optional<device_array> device_array::from_dlpack(nb::handle source, array_library library) {
  // -1: the launch is on the stream that the producer works on, so that nothing has to wait. Others are told the default one.
  constexpr int default_stream = 1;
  const bool unknown = library == array_library::none;
  const int stream = unknown ? default_stream : -1;
  const nb::object capsule = source.attr("__dlpack__")(nb::arg("stream") = stream);
  device_array a;
  if (!nb::try_cast(capsule, a.memory_, false)) return std::nullopt;
  a.where_ = {a.memory_.device_id(), library};
  if (unknown) a.stream_ = default_stream;
  return a;
}

std::optional<device_array> device_array::from_interface(nb::handle source) {
  const auto described = nb::cast<nb::dict>(source.attr("__cuda_array_interface__"));
  const auto given = [&](const char* key) {
    return described.contains(key) && !nb::object(described[key]).is_none();
  };
  if (given("mask")) bad_type("an array on a CUDA device: it has a mask, and all elements are wanted");
  const auto dtype = dtype_named(nb::cast<std::string>(described["typestr"]));
  if (!dtype)
    bad_type("an array on a CUDA device: its typestr " + shown(described["typestr"]) + " is no number");
  const extents shape = extents_of(described["shape"]);
  static_cast<void>(shape.elements());
  std::vector<std::size_t> sizes;
  for (int i = 0; i < shape.count(); ++i) sizes.push_back(static_cast<std::size_t>(shape[i]));
  std::vector<std::int64_t> strides;
  if (given("strides")) {
    for (const nb::handle s : nb::object(described["strides"])) {
      const auto bytes = nb::cast<std::int64_t>(s);
      if (bytes % (dtype->bits / 8) != 0)
        bad_value("an array on a CUDA device: its strides are not whole elements");
      strides.push_back(bytes / (dtype->bits / 8));
    }
    if (strides.size() != sizes.size())
      bad_value("an array on a CUDA device: " + std::to_string(strides.size()) + " strides, and shape " +
                text(shape));
  }
  device_array a;
  const nb::object data_pair = described["data"];
  auto* const data = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(nb::object(data_pair[0])));
  a.writable_ = !nb::cast<bool>(nb::object(data_pair[1]));
  a.where_ = {device_of(data), array_library::none};
  if (given("stream")) a.stream_ = nb::cast<std::intptr_t>(nb::object(described["stream"]));
  a.memory_ =
      nb::ndarray<>(data, sizes.size(), sizes.data(), source, strides.empty() ? nullptr : strides.data(),
                    *dtype, nb::device::cuda::value, a.where_.cuda);
  return a;
}

extents device_array::shape() const {
  extents out;
  for (std::size_t i = 0; i < memory_.ndim(); ++i) out.push(static_cast<std::int64_t>(memory_.shape(i)));
  return out;
}

extents device_array::strides() const {
  extents out;
  for (std::size_t i = 0; i < memory_.ndim(); ++i)
    out.push(memory_.stride(i) * static_cast<std::int64_t>(memory_.itemsize()));
  return out;
}

bool device_array::is_float32() const noexcept { return number_of(memory_.dtype()) == number::f32; }
bool device_array::is_floating() const noexcept { return number_of(memory_.dtype()).has_value(); }

bool device_array::is_contiguous() const {
  std::int64_t dense = static_cast<std::int64_t>(memory_.itemsize());
  const extents sizes = shape(), steps = strides();
  for (int i = sizes.count() - 1; i >= 0; --i) {
    if (sizes[i] > 1 && steps[i] != dense) return false;
    dense *= sizes[i];
  }
  return true;
}

float_matrix::float_matrix(const number_array& from) {
  if (const auto stride = from.row_stride()) {
    stride_ = *stride;
    const std::int64_t values = from.rows() ? (from.rows() - 1) * stride_ + from.cols() : 0;
    values_ = {reinterpret_cast<const float*>(from.data()), static_cast<std::size_t>(values)};
    return;
  }
  const std::int64_t values = from.shape().elements();
  copy_ = uninitialized<float>(values);
  from.copy_to(copy_.get());
  stride_ = from.cols();
  values_ = {copy_.get(), static_cast<std::size_t>(values)};
}

float_output::float_output(nb::handle given, const extents& shape) : shape_(shape), stride_(shape.back()) {
  if (!given.is_none()) {
    use(given);
    return;
  }
  own_ = uninitialized<float>(shape.elements());
  data_ = own_.get();
}

void float_output::use(nb::handle given) {
  if (!nb::try_cast(given, memory_, false))
    bad_type("out: " + type_of(given) + " of " + dtype_of(given) +
             " is not a writable float32 array on the CPU");
  const number_array a = number_array::of(given, "out");
  if (!(a.shape() == shape_)) bad_value("out: shape " + text(a.shape()) + ", wanted " + text(shape_));
  const auto stride = a.row_stride();
  if (!stride) bad_value("out: its rows do not lie one behind another in memory");
  data_ = memory_.data();
  stride_ = *stride;
  given_ = nb::borrow(given);
}

std::span<float> float_output::values() noexcept {
  const std::int64_t rows = shape_.rows();
  return {data_, static_cast<std::size_t>(rows ? (rows - 1) * stride_ + shape_.back() : 0)};
}

nb::object float_output::result(nb::handle like) && {
  if (given_.is_valid()) return std::move(given_);
  nb::object array = numpy_array(std::move(own_), shape_);
  return is_torch(like) ? nb::module_::import_("torch").attr("from_numpy")(array) : array;
}

}  // namespace quantal::python
