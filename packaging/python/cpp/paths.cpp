#include "paths.hpp"

#include <fcntl.h>
#include <nanobind/stl/string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

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
  PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, nb::str(p.c_str()).ptr());
  throw nb::python_error();
}

void failed_output(const error& e) {
  const nb::gil_scoped_acquire held;
  PyErr_SetString(PyExc_OSError, e.message.c_str());
  throw nb::python_error();
}

}  // namespace quantal::python
