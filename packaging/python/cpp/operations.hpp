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

/// ValueError where x does not fit the weights of mul_mat.
void check_vectors(const quantized& weights, const extents& x);
/// The same of mul_mat_id. Returns whether all slots of a token share its vector.
bool check_slots(const quantized& weights, const extents& x, std::int64_t tokens, std::int64_t slots);

}  // namespace quantal::python
