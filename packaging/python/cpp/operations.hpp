// What the library does, for objects of Python.
#pragma once

#include <optional>

#include "quantized.hpp"

namespace quantal::python {

quantized quantize(nb::handle array, nb::handle format, nb::handle importance, std::optional<int> threads);
nb::object dequantize(const quantized& q, nb::handle out, std::optional<int> threads);
nb::object mul_mat(const quantized& weights, nb::handle x, nb::handle out, const std::string& activation,
                   std::optional<int> threads);
nb::object mul_mat_id(const quantized& weights, nb::handle x, nb::handle ids, nb::handle out,
                      const std::string& activation, std::optional<int> threads);

}  // namespace quantal::python
