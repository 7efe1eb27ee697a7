#include "quantized.hpp"

#include <cstring>
#include <optional>

#include "device.hpp"
#include "operations.hpp"
#include "paths.hpp"
#include "quantal/gguf.hpp"

namespace quantal::python {
namespace {

/// The tensor of files that QuantizedArray.save writes.
constexpr const char* saved_name = "array";

std::string known_formats() {
  std::string out;
  for (const auto& f : format_table) out += (out.empty() ? "" : ", ") + std::string(f.name);
  return out;
}

/// GGUF counts dimensions from the innermost, and always has four.
std::array<std::int64_t, 4> gguf_shape(const extents& e) noexcept {
  std::array<std::int64_t, 4> out{1, 1, 1, 1};
  for (int i = 0; i < e.count(); ++i) out[static_cast<std::size_t>(i)] = e[e.count() - 1 - i];
  return out;
}

void save(const quantized& q, const nb::object& path) {
  const gguf::tensor_info t{saved_name, q.format().gguf_id, q.shape().count(), gguf_shape(q.shape())};
  gguf::metadata meta;
  meta.set("general.type", std::string("array"));
  meta.set("quantal.shape", gguf::array([&] {
             std::vector<std::int64_t> shape;
             for (int i = 0; i < q.shape().count(); ++i) shape.push_back(q.shape()[i]);
             return shape;
           }()));
  const auto where = path_of(path);
  const nb::gil_scoped_release released;
  auto w = gguf::writer::create(where, meta, {t});
  if (!w) failed_output(w.error());
  if (auto done = w->append(q.bytes()); !done) failed_output(done.error());
  if (auto done = w->finish(); !done) failed_output(done.error());
}

quantized load(const nb::object& path) {
  const auto where = readable_path(path);
  auto opened = [&] {
    const nb::gil_scoped_release released;
    return gguf::reader::open(where);
  }();
  if (!opened) bad_value(opened.error().message);
  const auto file = std::make_shared<const gguf::reader>(std::move(*opened));
  const gguf::tensor_info* const t = file->find(saved_name);
  const auto shape = file->meta().integers("quantal.shape");
  if (!t || !shape || !find_format(t->type))
    bad_value(file->path() + ": holds no array that QuantizedArray.save wrote; quantal.GGUF reads models");
  extents e;
  for (const auto n : *shape) e.push(n);
  if (e.count() < 1 || e.count() > 4 || gguf_shape(e) != t->ne)
    bad_value(file->path() + ": quantal.shape does not fit its tensor");
  return {*find_format(t->type), e, file->data(*t)->data(), file};
}

quantized on_cpu(const quantized& q) { return q.where().on_device() ? copy_of_device(q) : q; }

nb::object data_of(const quantized& q) {
  return numpy_view<std::uint8_t>(q.bytes().data(), q.shape().with_last(q.row_bytes()), q.owner());
}

nb::object matmul(const quantized& q, nb::handle x, bool transpose) {
  if (!nb::hasattr(x, "ndim") || !nb::hasattr(x, "swapaxes")) return nb::borrow(Py_NotImplemented);
  if (!transpose || nb::cast<int>(x.attr("ndim")) < 2) return mul_mat(q, x, nb::none(), "q8", std::nullopt);
  return mul_mat(q, x.attr("swapaxes")(-1, -2), nb::none(), "q8", std::nullopt).attr("swapaxes")(-1, -2);
}

/// The right operand of x @ q.T.
struct transposed {
  quantized of;
};

nb::object no_elements() {
  bad_type("a QuantizedArray has no elements to convert: dequantize() gives float32, .data the bytes");
}

constexpr const char* class_doc =
    R"(Weights of one format: rows of blocks that lie side by side. Immutable; shares its memory.

q @ x multiplies like numpy (x: (cols,), or (..., cols, n)); x @ q.T is the product of a linear layer. Slices of rows
share the memory: q[3], q[2:10], q[expert, 2:10]. Pickles, copies of them, and save() hold the bytes as they are.)";

void bind_transposed(nb::module_& m) {
  nb::class_<transposed>(m, "TransposedArray", "The right operand of x @ q.T.")
      .def_prop_ro(
          "T", [](const transposed& t) { return t.of; }, "The array itself.")
      .def_prop_ro(
          "shape", [](const transposed& t) { return nb::make_tuple(t.of.shape()[1], t.of.shape()[0]); },
          nb::sig("def shape(self) -> tuple[int, int]"), "(cols, rows).")
      .def(
          "__rmatmul__", [](const transposed& t, nb::handle x) { return matmul(t.of, x, false); },
          nb::arg("x"), nb::sig("def __rmatmul__(self, x: A) -> A"),
          "x: (..., cols); the product is (..., rows), as mul_mat gives it.")
      .attr("__array_ufunc__") = nb::none();
}

}  // namespace

const format_info& format_of(nb::handle given) {
  if (nb::isinstance<format_info>(given)) return *find_format(nb::cast<const format_info&>(given).gguf_id);
  if (nb::isinstance<nb::str>(given)) {
    const auto name = text_of(given, "format");
    if (const auto* f = find_format(std::string_view(name))) return *f;
    bad_value("unknown format '" + name + "'; known: " + known_formats());
  }
  std::uint32_t id = 0;
  if (!PyIndex_Check(given.ptr()) || !nb::try_cast(nb::steal(PyNumber_Index(given.ptr())), id))
    bad_type("format: " + nb::cast<std::string>(nb::repr(given)) + " is neither a name nor a type number");
  if (const auto* f = find_format(id)) return *f;
  bad_value("no format has the type number " + std::to_string(id));
}

std::int64_t bytes_for(const format_info& f, const extents& shape) {
  if (shape.count() < 1 || shape.count() > 4)
    bad_value("shape " + text(shape) + ": quantized arrays have 1 to 4 dimensions");
  if (shape.back() < 1) bad_value("shape " + text(shape) + ": rows have no columns");
  if (shape.back() % f.layout.elements != 0)
    bad_value("shape " + text(shape) + ": " + std::to_string(shape.back()) +
              " columns are not whole blocks of " + std::string(f.name) + ", which have " +
              std::to_string(f.layout.elements));
  const auto bytes = gguf::tensor_bytes(f.gguf_id, gguf_shape(shape));
  if (!bytes || shape.back() > std::int64_t{1} << 30) bad_value("shape " + text(shape) + " is too large");
  return static_cast<std::int64_t>(*bytes);
}

std::string quantized::description() const { return std::string(format_->name) + " " + text(shape_); }

quantized quantized::part(std::int64_t first, std::int64_t count, bool drop) const {
  if (shape_.count() < 2) throw nb::index_error("one row of blocks has no parts");
  extents shape = drop ? shape_.without_first(1) : shape_;
  if (!drop) shape[0] = count;
  const std::int64_t one = shape_[0] ? size_ / shape_[0] : 0;
  return {*format_, shape, bytes_ + first * one, owner_, where_};
}

quantized quantized::at(nb::handle index) const {
  if (nb::isinstance<nb::tuple>(index)) {
    const auto parts = nb::borrow<nb::tuple>(index);
    quantized out = *this;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (i > 0 && PySlice_Check(nb::object(parts[i - 1]).ptr()))
        throw nb::index_error(
            "behind a slice the rows do not lie side by side: only the last index may be one");
      out = out.at(parts[i]);
    }
    return out;
  }
  const std::int64_t n = shape_[0];
  if (PySlice_Check(index.ptr())) {
    Py_ssize_t first = 0, last = 0, step = 0;
    if (PySlice_Unpack(index.ptr(), &first, &last, &step) != 0) throw nb::python_error();
    const Py_ssize_t count = PySlice_AdjustIndices(n, &first, &last, step);
    if (step != 1) throw nb::index_error("slices of a QuantizedArray have step 1");
    return part(first, count, false);
  }
  if (!PyIndex_Check(index.ptr())) bad_type("a QuantizedArray is indexed by integers and slices");
  const Py_ssize_t given = PyNumber_AsSsize_t(index.ptr(), PyExc_IndexError);
  if (given == -1 && PyErr_Occurred()) throw nb::python_error();
  if (given < -n || given >= n)
    throw nb::index_error(("index " + std::to_string(given) + " is outside " + text(shape_)).c_str());
  return part(given < 0 ? given + n : given, 1, true);
}

quantized from_buffer(nb::handle data, nb::handle format, nb::handle shape) {
  const format_info& f = format_of(format);
  const extents e = extents_of(shape);
  const auto wanted = static_cast<std::size_t>(bytes_for(f, e));
  const auto check_size = [&](std::size_t bytes) {
    if (bytes != wanted)
      bad_value("data: " + std::to_string(bytes) + " bytes, and " + std::string(f.name) + " " + text(e) +
                " has " + std::to_string(wanted));
  };
  if (auto there = device_array::of(data)) {
    if (!there->is_contiguous()) bad_type("data: not contiguous memory");
    check_size(there->memory().nbytes());
    const place where = there->where();
    const auto* const start = static_cast<const std::byte*>(there->memory().data());
    if (!begins_aligned(start))
      bad_value("data: " + std::string(f.name) + " " + text(e) + " on " + where.name() +
                " does not begin at a multiple of 16 bytes, as the kernels want it: a copy does "
                "(tensor.clone(), cupy's array.copy())");
    require_cuda(f);
    wait_for_producer(*there);
    return {f, e, start, std::make_shared<device_array>(std::move(*there)), where};
  }
  nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu> memory;
  if (!nb::try_cast(data, memory, false)) bad_type("data: not contiguous memory on the CPU or a CUDA device");
  check_size(memory.nbytes());
  const auto* const start = static_cast<const std::byte*>(static_cast<const void*>(memory.data()));
  if (reinterpret_cast<std::uintptr_t>(start) % alignof(std::uint64_t) == 0)
    return {f, e, start, std::make_shared<decltype(memory)>(std::move(memory))};
  std::shared_ptr<std::byte[]> copy(uninitialized<std::byte>(static_cast<std::int64_t>(wanted)).release());
  std::memcpy(copy.get(), start, wanted);
  const std::byte* const aligned = copy.get();
  return {f, e, aligned, std::move(copy)};
}

void bind_formats(nb::module_& m) {
  nb::class_<format_info>(m, "Format", "What is known about a format.")
      .def_prop_ro(
          "name", [](const format_info& f) { return std::string(f.name); }, "\"q4_K\".")
      .def_prop_ro(
          "gguf_id", [](const format_info& f) { return f.gguf_id; }, "Type number in GGUF files.")
      .def_prop_ro(
          "block", [](const format_info& f) { return f.layout.elements; }, "Weights per block.")
      .def_prop_ro(
          "block_bytes", [](const format_info& f) { return f.layout.bytes; }, "Bytes per block.")
      .def_prop_ro(
          "row_meta", [](const format_info& f) { return f.layout.row_meta; },
          "Bytes in front of the blocks of a row.")
      .def_prop_ro(
          "bits_per_weight", [](const format_info& f) { return 8.0 * f.layout.bytes / f.layout.elements; },
          "Bits per weight, without row_meta.")
      .def_prop_ro(
          "is_float", [](const format_info& f) { return f.is_float; }, "f32, f16 and bf16.")
      .def_prop_ro(
          "is_weight", [](const format_info& f) { return f.usage == role::weight; },
          "Stored in model files; else a format of activations.")
      .def(
          "row_bytes",
          [](const format_info& f, std::int64_t cols) {
            if (cols < 0) bad_value("row_bytes: " + std::to_string(cols) + " columns");
            return bytes_for(f, {cols});
          },
          nb::arg("cols"), "Bytes of a row of `cols` weights; ValueError where they are not whole blocks.")
      .def(
          "__eq__",
          [](const format_info& f, nb::handle o) {
            return nb::isinstance<format_info>(o) && nb::cast<const format_info&>(o).gguf_id == f.gguf_id;
          },
          nb::arg("other"), nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__", [](const format_info& f) { return static_cast<Py_hash_t>(f.gguf_id); })
      .def(
          "__reduce__",
          [](const format_info& f) {
            return nb::make_tuple(nb::module_::import_("quantal._arrays").attr("restore_format"),
                                  nb::make_tuple(f.gguf_id));
          },
          nb::sig("def __reduce__(self) -> tuple[object, ...]"))
      .def("__repr__", [](const format_info& f) { return "Format('" + std::string(f.name) + "')"; });
  m.def(
      "formats",
      [] {
        nb::list out;
        for (const auto& f : format_table) out.append(nb::cast(f, nb::rv_policy::copy));
        return nb::tuple(out);
      },
      nb::sig("def formats() -> tuple[Format, ...]"), "All formats.");
  m.def(
      "format", [](nb::handle f) { return nb::cast(format_of(f), nb::rv_policy::copy); }, nb::arg("format"),
      nb::sig("def format(format: FormatLike) -> Format"),
      "The format of a name, in any case, or of a type number of GGUF files; ValueError for others.");
  m.def("cuda_formats", &cuda_formats, nb::sig("def cuda_formats() -> tuple[str, ...]"),
        "Names of the formats that this build works with on CUDA devices; none in a build without CUDA.");
  m.def(
      "arch", [] { return std::string(runtime::best_variant().arch()); },
      "The instruction set that this process uses: \"avx2\", \"avx512_vnni\", ...");
  m.def(
      "archs",
      [] {
        nb::list out;
        for (const auto a : runtime::dispatcher::compiled()) out.append(nb::str(a.data(), a.size()));
        return nb::tuple(out);
      },
      nb::sig("def archs() -> tuple[str, ...]"), "The instruction sets that this build carries, best first.");
}

void bind_quantized(nb::module_& m) {
  nb::class_<quantized> c(m, "QuantizedArray", class_doc);
  c.def_static(
       "from_buffer", &from_buffer, nb::arg("data"), nb::arg("format"), nb::arg("shape"),
       nb::sig(
           "def from_buffer(data: Buffer, format: FormatLike, shape: int | Sequence[int]) -> QuantizedArray"),
       R"(Raw blocks as an array, without copying (memory that is not aligned to 8 bytes is copied).

data: bytes or any contiguous memory of exactly the bytes that format and shape say, on a CUDA device too where the build
    has CUDA: products and dequantize() work there then, on the current stream of the library that made the memory. It
    begins at a multiple of 16 bytes there. A stream that __cuda_array_interface__ names is waited for.
shape: (..., rows, cols) in weights, 1 to 4 dimensions.)")
      .def_static("load", &load, nb::arg("path"), nb::sig("def load(path: PathLike) -> QuantizedArray"),
                  "Maps a file that save() wrote; the mapping lives as long as arrays of it.")
      .def("save", &save, nb::arg("path"), nb::sig("def save(self, path: PathLike) -> None"),
           "Writes a GGUF file of one tensor; it appears whole or not at all.")
      .def_prop_ro("format", &quantized::format, nb::rv_policy::copy, "The format.")
      .def_prop_ro(
          "shape", [](const quantized& q) { return q.shape().tuple(); },
          nb::sig("def shape(self) -> tuple[int, ...]"), "(..., rows, cols) in weights.")
      .def_prop_ro(
          "ndim", [](const quantized& q) { return q.shape().count(); }, "Number of dimensions.")
      .def_prop_ro(
          "nbytes", [](const quantized& q) { return q.device_bytes().size(); }, "Bytes of the blocks.")
      .def_prop_ro(
          "device", [](const quantized& q) { return q.where().name(); },
          "Where the blocks lie: \"cpu\", \"cuda:0\".")
      .def("cpu", &on_cpu, "The array itself, or where it lies on a device a copy of it.")
      .def_prop_ro("data", &data_of, nb::sig("def data(self) -> numpy.typing.NDArray[numpy.uint8]"),
                   "The blocks as a read-only array (..., rows, bytes of a row), without copying.")
      .def(
          "tobytes", [](const quantized& q) { return nb::bytes(q.bytes().data(), q.bytes().size()); },
          "A copy of the blocks.")
      .def(
          "dequantize",
          [](const quantized& q, nb::handle out, std::optional<int> threads) {
            return dequantize(q, out, threads);
          },
          nb::arg("out") = nb::none(), nb::kw_only(), nb::arg("threads") = nb::none(),
          nb::sig("def dequantize(self, out: FloatArray | None = None, *, threads: int | None = None) -> "
                  "FloatArray"),
          "Decodes to float32 of the same shape, bit-exactly; `out` is written to where it is given. On a "
          "device "
          "the result is an array there.")
      .def_prop_ro(
          "T",
          [](const quantized& q) {
            if (q.shape().count() != 2) bad_value(q.description() + ": only a matrix has a transpose");
            return transposed{q};
          },
          "For x @ q.T, (..., cols) to (..., rows).")
      .def(
          "__matmul__", [](const quantized& q, nb::handle x) { return matmul(q, x, true); }, nb::arg("x"),
          nb::sig("def __matmul__(self, x: A) -> A"),
          "x: (cols,) or (..., cols, n); the result is (rows,) or (..., rows, n).")
      .def("__getitem__", &quantized::at, nb::arg("index"),
           nb::sig("def __getitem__(self, index: int | slice | tuple[int | slice, ...]) -> QuantizedArray"),
           "Parts of the outermost dimensions, without copying. Slices have step 1, and only the last index "
           "is one.")
      .def("__len__",
           [](const quantized& q) {
             if (q.shape().count() < 2) bad_type("one row of blocks has no length");
             return q.shape()[0];
           })
      .def(
          "__iter__",
          [](const quantized& q) {
            nb::list out;
            if (q.shape().count() < 2) bad_type("one row of blocks has no parts");
            for (std::int64_t i = 0; i < q.shape()[0]; ++i) out.append(q.at(nb::int_(i)));
            return nb::iter(out);
          },
          nb::sig("def __iter__(self) -> Iterator[QuantizedArray]"))
      .def(
          "__array__", [](const quantized&, nb::args, nb::kwargs) { return no_elements(); },
          nb::sig("def __array__(self, *args: object, **kwargs: object) -> NoReturn"))
      .def(
          "__reduce__",
          [](const quantized& q) {
            const nb::object make = nb::module_::import_("quantal._arrays").attr("restore");
            return nb::make_tuple(make, nb::make_tuple(nb::bytes(q.bytes().data(), q.bytes().size()),
                                                       std::string(q.format().name), q.shape().tuple()));
          },
          nb::sig("def __reduce__(self) -> tuple[object, ...]"))
      .def("__repr__", [](const quantized& q) {
        return "QuantizedArray(" + std::string(q.format().name) + ", shape=" + text(q.shape()) +
               (q.where().on_device() ? ", " + q.where().name() : "") + ")";
      });
  c.attr("__array_ufunc__") = nb::none();  // numpy leaves x @ q.T and q @ x to us
  bind_transposed(m);
}

}  // namespace quantal::python
