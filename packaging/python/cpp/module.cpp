// quantal._core: what the package has of C++.
#include <nanobind/nanobind.h>

#include "quantized.hpp"

NB_MODULE(_core, m) {
  using namespace quantal::python;
  m.doc() = "Formats, quantizers, kernels and files of quantal.";
  m.attr("__version__") = QUANTAL_VERSION;
  bind_formats(m);
  bind_quantized(m);
  bind_operations(m);
  bind_imatrix(m);
  bind_metadata(m);
  bind_gguf(m);
}
