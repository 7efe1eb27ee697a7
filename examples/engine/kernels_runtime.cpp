// Every format, for the best arch of the machine that runs the engine.
#include "kernels.hpp"

const quantal::runtime::format_ops* kernels_of(std::uint32_t gguf_type) {
  static const auto best = quantal::runtime::dispatcher::best();
  return best.find(gguf_type);
}
