// What the package does on CUDA devices. cuda.cpp does it; no_cuda.cpp takes its place in a build without CUDA.
#pragma once

#include <string>

#include "quantized.hpp"

namespace quantal::python {

/// Names of the formats that were compiled; none in a build without CUDA.
nb::tuple cuda_formats();
/// ValueError, with what to build, where the format was not compiled.
void require_cuda(const format_info& f);
/// The number of the device that memory lies on.
int device_of(const void* memory);
/// Waits for what the producer of an array has put on its stream, where it names one.
void wait_for_producer(const device_array& a);

/// A copy in the memory of the process, when all work on the device is done.
quantized copy_of_device(const quantized& q);

// As those of operations.hpp. Results are made by the library that x (or the memory of the weights) is of, and kernels are
// launched on its current stream.
nb::object dequantize_on_device(const quantized& q, nb::handle out);
nb::object mul_mat_on_device(const quantized& weights, nb::handle x, nb::handle out,
                             const std::string& activation);
nb::object mul_mat_id_on_device(const quantized& weights, nb::handle x, nb::handle ids, nb::handle out,
                                const std::string& activation);

}  // namespace quantal::python
