#include <quantal.hpp>

std::string_view name_of(std::uint32_t gguf_id) {
  const auto* f = quantal::find_format(gguf_id);
  return f ? f->name : "";
}
