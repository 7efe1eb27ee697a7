#include "paths.hpp"

#include <fcntl.h>
#include <nanobind/stl/string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "arrays.hpp"

namespace quantal::python {
namespace {

/// A folder opens like a file.
bool can_be_read(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return false;
  struct ::stat s {};
  const bool folder = ::fstat(fd, &s) == 0 && S_ISDIR(s.st_mode);
  ::close(fd);
  if (folder) errno = EISDIR;
  return !folder;
}

}  // namespace

std::filesystem::path path_of(const nb::object& path) {
  const nb::object encoded = nb::module_::import_("os").attr("fsencode")(path);
  const auto bytes = nb::cast<nb::bytes>(encoded);
  const std::string name(bytes.c_str(), bytes.size());
  if (name.find('\0') != std::string::npos) throw nb::value_error("path: holds a zero byte");
  return name;
}

std::filesystem::path readable_path(const nb::object& path) {
  std::filesystem::path p = path_of(path);
  if (can_be_read(p)) return p;
  PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path_to_python(p.native()).ptr());
  throw nb::python_error();
}

nb::object path_to_python(const std::string& path) {
  return nb::steal(PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size())));
}

void failed_output(const error& e) { raise(PyExc_OSError, e.message); }

}  // namespace quantal::python
