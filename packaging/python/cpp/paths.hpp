// Files: paths from Python, and the exceptions for what goes wrong with them.
#pragma once

#include <nanobind/nanobind.h>

#include <filesystem>
#include <string>

#include "quantal/result.hpp"

namespace quantal::python {

namespace nb = nanobind;

/// A str, bytes or os.PathLike.
std::filesystem::path path_of(const nb::object& path);
/// The same; OSError (FileNotFoundError, ...) unless it can be opened for reading.
std::filesystem::path readable_path(const nb::object& path);
/// A str, with surrogates for bytes that are none, as os.fsdecode() has it.
nb::object path_to_python(const std::string& path);
/// Raises OSError; the GIL may be held or not.
[[noreturn]] void failed_output(const error& e);

}  // namespace quantal::python
