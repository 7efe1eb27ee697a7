// quantal.GGUF and quantal.GGUFWriter.
#include "quantal/gguf.hpp"

#include <nanobind/stl/vector.h>

#include <optional>
#include <vector>

#include "metadata.hpp"
#include "paths.hpp"

namespace quantal::python {
namespace {

extents shape_of(const gguf::tensor_info& t) {
  extents out;
  for (int d = std::max(t.n_dims, 1) - 1; d >= 0; --d) out.push(t.ne[static_cast<std::size_t>(d)]);
  return out;
}

/// A file that is open. Arrays of it share the mapping and outlive this.
class gguf_file {
 public:
  explicit gguf_file(const nb::object& path) {
    const auto where = readable_path(path);
    auto opened = [&] {
      const nb::gil_scoped_release released;
      return gguf::reader::open(where);
    }();
    if (!opened) bad_value(opened.error().message);
    reader_ = std::make_shared<const gguf::reader>(std::move(*opened));
  }

  const gguf::reader& reader() const {
    if (!reader_) bad_value("the GGUF file is closed");
    return *reader_;
  }
  bool closed() const noexcept { return !reader_; }
  void close() noexcept { reader_.reset(); }

  metadata_map metadata() const { return metadata_map({reader_, &reader().meta()}); }

  const gguf::tensor_info& find(const std::string& name) const {
    const auto* const t = reader().find(name);
    if (!t) raise(PyExc_KeyError, reader().path() + ": no tensor '" + name + "'");
    return *t;
  }
  quantized array(const std::string& name) const {
    const gguf::tensor_info& t = find(name);
    const format_info* const f = find_format(t.type);
    if (!f)
      bad_value(reader().path() + ": tensor '" + name + "': " + gguf::type_name(t.type) + " is no format");
    return {*f, shape_of(t), bytes(t), reader_};
  }
  /// Types that numpy has are its arrays, others are quantized.
  nb::object item(const std::string& name) const {
    const gguf::tensor_info& t = find(name);
    switch (t.type) {
      case f32::gguf_id:
        return view<float>(t);
      case f16::gguf_id:
        return view<std::uint16_t>(t).attr("view")("float16");
      case 24:
        return view<std::int8_t>(t);
      case 25:
        return view<std::int16_t>(t);
      case 26:
        return view<std::int32_t>(t);
      case 27:
        return view<std::int64_t>(t);
      case 28:
        return view<double>(t);
      default:
        return nb::cast(array(name));
    }
  }

 private:
  const std::byte* bytes(const gguf::tensor_info& t) const {
    const auto found = reader().data(t);
    if (!found) bad_value(found.error().message);
    return found->data();
  }
  template <class T>
  nb::object view(const gguf::tensor_info& t) const {
    return numpy_view<T>(bytes(t), shape_of(t), reader_);
  }

  std::shared_ptr<const gguf::reader> reader_;
};

/// Type numbers of names, and of what GGUF stores beside formats.
std::uint32_t tensor_type(nb::handle type) {
  if (nb::isinstance<nb::str>(type)) {
    const auto name = text_of(type, "type");
    for (const auto& p : gguf::plain_types)
      if (name == p.name) return p.id;
  }
  return format_of(type).gguf_id;
}

/// A file that is being written: planned, filled in order, visible when it is complete.
class gguf_writer {
 public:
  gguf_writer(const nb::object& path, nb::handle plan, nb::handle metadata) {
    const auto where = path_of(path);
    std::vector<gguf::tensor_info> tensors;
    for (const nb::handle item : plan) tensors.push_back(planned(item));
    const gguf::metadata meta = metadata_of(metadata);
    if (const auto problem = check(where, meta, tensors); !problem.empty()) bad_value(problem);
    auto made = gguf::writer::create(where, meta, std::move(tensors));
    if (!made) failed_output(made.error());
    writer_.emplace(std::move(*made));
  }

  void write(nb::handle data) {
    nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu> memory;
    if (!nb::try_cast(data, memory, false)) bad_type("write: not contiguous memory on the CPU");
    const std::span<const std::byte> bytes{
        static_cast<const std::byte*>(static_cast<const void*>(memory.data())), memory.nbytes()};
    gguf::writer& w = open();
    const nb::gil_scoped_release released;
    if (auto done = w.append(bytes); !done) failed_output(done.error());
  }
  void write_quantized(const quantized& q) {
    gguf::writer& w = open();
    const nb::gil_scoped_release released;
    if (auto done = w.append(q.bytes()); !done) failed_output(done.error());
  }
  void finish() {
    gguf::writer& w = open();
    {
      const nb::gil_scoped_release released;
      if (auto done = w.finish(); !done) failed_output(done.error());
    }
    writer_.reset();
  }
  void discard() noexcept { writer_.reset(); }

 private:
  gguf::writer& open() {
    if (!writer_) bad_value("the GGUF file is finished or discarded");
    return *writer_;
  }

  /// (name, type, shape).
  static gguf::tensor_info planned(nb::handle item) {
    if (!PySequence_Check(item.ptr()) || nb::isinstance<nb::str>(item) || nb::len(item) != 3)
      bad_type("tensors: an item is not (name, type, shape)");
    gguf::tensor_info t;
    t.name = text_of(nb::object(item[0]), "tensors: a name");
    t.type = tensor_type(nb::object(item[1]));
    const extents e = extents_of(nb::object(item[2]));
    if (e.count() > 4) bad_value("tensor '" + t.name + "': " + text(e) + " has more than 4 dimensions");
    t.n_dims = std::max(e.count(), 1);
    for (int i = 0; i < e.count(); ++i) t.ne[static_cast<std::size_t>(i)] = e[e.count() - 1 - i];
    return t;
  }

  /// What is wrong with the plan is no matter of the file: it is said before anything is written.
  static std::string check(const std::filesystem::path& path, const gguf::metadata& meta,
                           const std::vector<gguf::tensor_info>& tensors) {
    if (meta.contains("general.alignment")) {
      const auto a = meta.integer("general.alignment", 1, static_cast<std::int64_t>(gguf::max_alignment));
      if (!a) return path.string() + ": " + a.error().message;
    }
    std::unordered_set<std::string> names;
    for (const auto& t : tensors) {
      const std::string where = path.string() + ": tensor '" + t.name + "'";
      if (t.name.empty() || t.name.size() > 63) return where + ": name must have 1 to 63 bytes";
      if (!names.insert(t.name).second) return where + ": duplicate tensor";
      if (!gguf::tensor_bytes(t.type, t.ne))
        return where + ": " + gguf::type_name(t.type) + " cannot hold the shape " + text(shape_of(t));
    }
    return {};
  }

  std::optional<gguf::writer> writer_;
};

nb::list names_of(const gguf_file& g) {
  nb::list out;
  for (const auto& t : g.reader().tensors()) {
    const nb::object name =
        nb::steal(PyUnicode_FromStringAndSize(t.name.data(), static_cast<Py_ssize_t>(t.name.size())));
    if (!name.is_valid()) {
      PyErr_Clear();
      bad_value(g.reader().path() + ": the name of tensor '" + t.name + "' is no UTF-8");
    }
    out.append(name);
  }
  return out;
}

void bind_reader(nb::module_& m) {
  nb::class_<gguf_file>(m, "GGUF",
                        R"(A GGUF file, mapped: a mapping of names of tensors to arrays, which are not copied.

Tensors of f32, f16, i8 ... i64 and f64 are read-only numpy arrays, all others (bf16 too) QuantizedArrays, with shapes
(..., rows, cols). Arrays stay good when the file is closed or forgotten. Split models open through their first file.
A file that another process truncates while it is mapped ends the process (SIGBUS), as with every mapping.)")
      .def(nb::init<const nb::object&>(), nb::arg("path"),
           nb::sig("def __init__(self, path: PathLike) -> None"),
           "Opens and checks a file. OSError where it cannot be read, ValueError (with file, tensor or key, "
           "and cause)\n"
           "where it is no GGUF file or a damaged one.")
      .def_prop_ro("metadata", &gguf_file::metadata, "Keys and values, read-only.")
      .def_prop_ro(
          "path", [](const gguf_file& g) { return path_to_python(g.reader().path()); },
          nb::sig("def path(self) -> str"), "Its path.")
      .def_prop_ro(
          "shards", [](const gguf_file& g) { return g.reader().shards(); }, "Files of a split model, or 1.")
      .def("__getitem__", &gguf_file::item, nb::arg("name"),
           nb::sig("def __getitem__(self, name: str) -> numpy.typing.NDArray[Any] | QuantizedArray"))
      .def("quantized", &gguf_file::array, nb::arg("name"),
           "A tensor of any format, f32 and f16 too, as a QuantizedArray; not copied.")
      .def(
          "shape", [](const gguf_file& g, const std::string& name) { return shape_of(g.find(name)).tuple(); },
          nb::arg("name"), nb::sig("def shape(self, name: str) -> tuple[int, ...]"), "(..., rows, cols).")
      .def(
          "type",
          [](const gguf_file& g, const std::string& name) { return gguf::type_name(g.find(name).type); },
          nb::arg("name"), "\"q4_K\", \"i32\"; \"type 77\" for types that are not known, which have no data.")
      .def("keys", &names_of, nb::sig("def keys(self) -> list[str]"),
           "Names of the tensors, in the order of the file.")
      .def(
          "__iter__", [](const gguf_file& g) { return nb::iter(names_of(g)); },
          nb::sig("def __iter__(self) -> Iterator[str]"))
      .def("__len__", [](const gguf_file& g) { return g.reader().tensors().size(); })
      .def(
          "__contains__",
          [](const gguf_file& g, nb::handle name) {
            std::string wanted;
            return nb::isinstance<nb::str>(name) && nb::try_cast(name, wanted) &&
                   g.reader().find(wanted) != nullptr;
          },
          nb::arg("name"), nb::sig("def __contains__(self, name: object) -> bool"))
      .def("close", &gguf_file::close, "Forgets the file. Arrays of it stay good.")
      .def(
          "__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> GGUF"))
      .def(
          "__exit__", [](gguf_file& g, nb::args) { g.close(); },
          nb::sig("def __exit__(self, *exc: object) -> None"))
      .def(
          "__repr__",
          [](const gguf_file& g) -> nb::str {
            if (g.closed()) return nb::str("GGUF(closed)");
            return nb::str("GGUF({!r}, {} tensors)")
                .format(path_to_python(g.reader().path()), g.reader().tensors().size());
          },
          nb::sig("def __repr__(self) -> str"));
}

void bind_writer(nb::module_& m) {
  nb::class_<gguf_writer>(m, "GGUFWriter",
                          R"(Writes a GGUF file tensor by tensor; it appears whole or not at all.

with quantal.GGUFWriter(path, [(name, type, shape), ...], metadata) as w: w.write(...) for each, in order.
An exception inside the block leaves what was at the path before.)")
      .def(nb::init<const nb::object&, nb::handle, nb::handle>(), nb::arg("path"), nb::arg("tensors"),
           nb::arg("metadata") = nb::none(),
           nb::sig("def __init__(self, path: PathLike, tensors: Iterable[tuple[str, FormatLike, int | "
                   "Sequence[int]]], "
                   "metadata: MetadataLike | None = None) -> None"),
           "tensors: (name, format or \"i8\" ... \"i64\", \"f64\", shape (..., rows, cols) in weights), in "
           "order.")
      .def("write", &gguf_writer::write_quantized, nb::arg("data"),
           nb::sig("def write(self, data: QuantizedArray) -> None"),
           "The next bytes of the file: a tensor, or a piece of one; contiguous memory of its type.")
      .def("write", &gguf_writer::write, nb::arg("data"), nb::sig("def write(self, data: Buffer) -> None"))
      .def("finish", &gguf_writer::finish, "Makes the file visible; OSError where bytes are missing.")
      .def("discard", &gguf_writer::discard, "Leaves nothing behind.")
      .def(
          "__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> GGUFWriter"))
      .def(
          "__exit__",
          [](gguf_writer& w, nb::handle type, nb::handle, nb::handle) {
            type.is_none() ? w.finish() : w.discard();
          },
          nb::arg("type").none(), nb::arg("value").none(), nb::arg("traceback").none(),
          nb::sig("def __exit__(self, type: object, value: object, traceback: object) -> None"));
}

}  // namespace

void bind_gguf(nb::module_& m) {
  bind_reader(m);
  bind_writer(m);
}

}  // namespace quantal::python
