// quantal.Imatrix.
#include "quantal/imatrix.hpp"

#include <nanobind/stl/vector.h>

#include <cmath>

#include "paths.hpp"
#include "quantized.hpp"

namespace quantal::python {
namespace {

using imatrix::entry;
using imatrix::store;

/// Sums of squares by column; ValueError where a value is not finite.
std::vector<double> column_sums(const number_array& x, const std::string& name) {
  const std::int64_t cols = x.cols();
  std::vector<double> sums(static_cast<std::size_t>(cols));
  {
    const nb::gil_scoped_release released;
    std::vector<float> scratch(x.in_place() ? 0 : static_cast<std::size_t>(cols));
    for (std::int64_t r = 0; r < x.rows(); ++r) {
      const float* const row = x.row(r, scratch.data());
      for (std::int64_t c = 0; c < cols; ++c)
        sums[static_cast<std::size_t>(c)] += static_cast<double>(row[c]) * row[c];
    }
  }
  for (std::int64_t c = 0; c < cols; ++c)
    if (!is_finite(sums[static_cast<std::size_t>(c)]))
      bad_value("imatrix entry '" + name + "': x " + text(x.shape()) + " is not finite in column " +
                std::to_string(c));
  return sums;
}

void accumulate(store& s, const std::string& given, nb::handle x, std::int64_t slice, std::int64_t slices) {
  const std::string name = imatrix::canonical_name(given);
  const number_array rows = number_array::of(x, "x");
  if (name.empty()) bad_value("imatrix: an entry without a name");
  if (slices < 1 || slices > (1 << 20) || slice < 0 || slice >= slices)
    bad_value("imatrix entry '" + name + "': slice " + std::to_string(slice) + " of " +
              std::to_string(slices));
  if (rows.cols() < 1) bad_value("imatrix entry '" + name + "': x " + text(rows.shape()) + " has no columns");
  const auto found = s.entries.find(name);
  if (found != s.entries.end() && (found->second.cols != rows.cols() || found->second.slices != slices))
    bad_value("imatrix entry '" + name + "' has " + std::to_string(found->second.slices) + " x " +
              std::to_string(found->second.cols) + " values, x " + text(rows.shape()) + " would add to " +
              std::to_string(slices) + " x " + std::to_string(rows.cols()));
  const auto sums = column_sums(rows, name);
  entry& e = s.entries.try_emplace(name, rows.cols(), slices).first->second;
  for (std::size_t c = 0; c < sums.size(); ++c)
    e.sums[static_cast<std::size_t>(slice) * sums.size() + c] += sums[c];
  e.counts[static_cast<std::size_t>(slice)] += rows.rows();
}

store load(const nb::object& path) {
  const auto where = readable_path(path);
  auto read = imatrix::load(where);
  if (!read) bad_value(read.error().message);
  return std::move(*read);
}

void save(const store& s, const nb::object& path) {
  const auto where = path_of(path);
  if (s.entries.empty()) bad_value(where.string() + ": there is no importance data to write");
  const auto done = where.extension() == ".dat" ? imatrix::save_dat(s, where) : imatrix::save_gguf(s, where);
  if (!done) failed_output(done.error());
}

const entry& entry_of(const store& s, const std::string& name) {
  const auto found = s.entries.find(name);
  if (found == s.entries.end()) raise(PyExc_KeyError, "imatrix has no entry '" + name + "'");
  return found->second;
}

nb::object sums_of(const store& s, const std::string& name) {
  const entry& e = entry_of(s, name);
  auto out = uninitialized<double>(static_cast<std::int64_t>(e.sums.size()));
  std::copy(e.sums.begin(), e.sums.end(), out.get());
  return numpy_array(std::move(out), {e.slices, e.cols});
}

nb::object counts_of(const store& s, const std::string& name) {
  const entry& e = entry_of(s, name);
  auto out = uninitialized<std::int64_t>(e.slices);
  std::copy(e.counts.begin(), e.counts.end(), out.get());
  return numpy_array(std::move(out), {e.slices});
}

/// Numpy's shape, outermost first, as the library's lookup wants it.
imatrix::tensor_shape tensor_of(const std::string& name, const extents& shape) {
  if (shape.count() < 1 || shape.count() > 4)
    bad_value("shape " + text(shape) + " has not 1 to 4 dimensions");
  static_cast<void>(shape.elements());
  const int n = shape.count();
  const std::int64_t outer = n == 4 ? shape[0] * shape[1] : n == 3 ? shape[0] : 1;
  return {name, shape.back(), n > 1 ? shape[n - 2] : 1, outer};
}

nb::object lookup(const store& s, const std::string& name, nb::handle shape, std::int64_t heads,
                  std::int64_t experts, double shrinkage) {
  if (!(shrinkage >= 0) || !is_finite(shrinkage)) bad_value("shrinkage: not a finite number of rows");
  const auto found = imatrix::resolve(s, tensor_of(name, extents_of(shape)),
                                      {.heads = heads, .experts = experts}, {.shrinkage = shrinkage});
  if (!found) bad_value(found.error().message);
  if (!*found) return nb::none();
  auto out = uninitialized<float>(static_cast<std::int64_t>(found->weights.size()));
  std::copy(found->weights.begin(), found->weights.end(), out.get());
  const nb::object make = nb::module_::import_("quantal._arrays").attr("Importance");
  return make(numpy_array(std::move(out), {found->vectors, found->cols}), std::string(to_string(found->from)),
              found->detail);
}

nb::list names(const store& s) {
  nb::list out;
  for (const auto& [name, e] : s.entries) out.append(nb::str(name.c_str(), name.size()));
  return out;
}

}  // namespace

void bind_imatrix(nb::module_& m) {
  nb::class_<store>(
      m, "Imatrix",
      R"(An importance matrix: per tensor the sums of squared inputs of every column, and how many inputs.

Entries have names of GGUF tensors ("blk.0.ffn_up.weight") and one slice, or a slice per expert or head.)")
      .def(
          "__init__",
          [](store* self, std::int64_t chunk_size) {
            if (chunk_size < 1 || chunk_size > (1 << 30))
              bad_value("chunk_size: " + std::to_string(chunk_size) + " is not between 1 and 2^30");
            new (self) store();
            self->chunk_size = chunk_size;
          },
          nb::kw_only(), nb::arg("chunk_size") = 512,
          "Empty. chunk_size: tokens per chunk, which files record.")
      .def_static("load", &load, nb::arg("path"), nb::sig("def load(path: PathLike) -> Imatrix"),
                  "Reads either form of file, GGUF or the older .dat.")
      .def("save", &save, nb::arg("path"), nb::sig("def save(self, path: PathLike) -> None"),
           "Writes the older form for names in .dat, else GGUF, which keeps everything. Appears whole or not "
           "at all.")
      .def_static(
          "from_activations",
          [](const std::string& name, nb::handle x) {
            store s;
            accumulate(s, name, x, 0, 1);
            return s;
          },
          nb::arg("name"), nb::arg("x"), nb::sig("def from_activations(name: str, x: ArrayLike) -> Imatrix"),
          "A matrix of one entry; x: (..., cols), the inputs of that tensor.")
      .def("accumulate", &accumulate, nb::arg("name"), nb::arg("x"), nb::kw_only(), nb::arg("slice") = 0,
           nb::arg("slices") = 1,
           nb::sig(
               "def accumulate(self, name: str, x: ArrayLike, *, slice: int = 0, slices: int = 1) -> None"),
           R"(Adds inputs of a tensor: x is (..., cols), one input per row, on the CPU.

slice, slices: which expert or head saw them, of how many. NaN and infinities are refused, and nothing is added then.)")
      .def(
          "merge",
          [](store& s, const store& other) {
            if (auto ok = imatrix::merge(s, other); !ok) bad_value(ok.error().message);
          },
          nb::arg("other"), "Adds the sums and counts of another matrix, exactly.")
      .def("sums", &sums_of, nb::arg("name"),
           nb::sig("def sums(self, name: str) -> numpy.typing.NDArray[numpy.float64]"),
           "Sums of squares, (slices, cols), a copy.")
      .def("counts", &counts_of, nb::arg("name"),
           nb::sig("def counts(self, name: str) -> numpy.typing.NDArray[numpy.int64]"),
           "Inputs per slice, (slices,), a copy.")
      .def(
          "lookup", &lookup, nb::arg("name"), nb::arg("shape"), nb::kw_only(), nb::arg("heads") = 0,
          nb::arg("experts") = 0, nb::arg("shrinkage") = 64.0,
          nb::sig(
              "def lookup(self, name: str, shape: int | Sequence[int], *, heads: int = 0, experts: int = 0, "
              "shrinkage: float = 64.0) -> Importance | None"),
          R"(Importance for a tensor of that name and shape (..., rows, cols), for quantize(); None without data.

Its own entry, else that of a tensor with the same input, another layout or a proxy. shrinkage: rows that the mean over
all experts counts for against an expert's own. ValueError names both shapes where an entry does not fit.)")
      .def_prop_ro(
          "datasets", [](const store& s) { return s.datasets; }, nb::sig("def datasets(self) -> list[str]"),
          "Calibration files in order of use.")
      .def_ro("chunk_size", &store::chunk_size, "Tokens per chunk.")
      .def_prop_ro("chunk_count", &store::chunk_count, "Chunks that the best-seen entry stands for.")
      .def_ro("approximate_counts", &store::approximate_counts, "A .dat file without counts went in.")
      .def("names", &names, nb::sig("def names(self) -> list[str]"), "Names of the entries, sorted.")
      .def(
          "__contains__", [](const store& s, const std::string& name) { return s.entries.contains(name); },
          nb::arg("name"))
      .def("__len__", [](const store& s) { return s.entries.size(); })
      .def(
          "__iter__", [](const store& s) { return nb::iter(names(s)); },
          nb::sig("def __iter__(self) -> Iterator[str]"))
      .def(
          "__eq__",
          [](const store& s, nb::handle o) {
            return nb::isinstance<store>(o) && nb::cast<const store&>(o) == s;
          },
          nb::arg("other"), nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def(
          "copy", [](const store& s) { return store(s); }, "An independent copy.")
      .def("__repr__", [](const store& s) {
        return "Imatrix(" + std::to_string(s.entries.size()) + " entries, " +
               std::to_string(s.chunk_count()) + " chunks)";
      });
}

}  // namespace quantal::python
