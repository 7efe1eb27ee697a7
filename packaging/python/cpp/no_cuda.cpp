// A build without CUDA.
#include "device.hpp"

namespace quantal::python {
namespace {

[[noreturn]] void absent() {
  bad_value(
      "this build of quantal has no CUDA, and the blocks lie on a CUDA device: build it with "
      "pip install . --config-settings=cmake.define.QUANTAL_CUDA=ON");
}

}  // namespace

nb::tuple cuda_formats() { return nb::make_tuple(); }
void require_cuda(const format_info&) { absent(); }
int device_of(const void*) { return 0; }
void wait_for_producer(const device_array&) { absent(); }
quantized copy_of_device(const quantized&) { absent(); }
nb::object dequantize_on_device(const quantized&, nb::handle) { absent(); }
nb::object mul_mat_on_device(const quantized&, nb::handle, nb::handle, const std::string&) { absent(); }
nb::object mul_mat_id_on_device(const quantized&, nb::handle, nb::handle, nb::handle, const std::string&) {
  absent();
}

}  // namespace quantal::python
