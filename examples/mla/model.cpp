#include "model.hpp"

namespace quantal::mla {

std::uint64_t model::bytes() const noexcept {
  std::uint64_t sum = 0;
  for (const auto& t : file->tensors()) sum += t.nbytes;
  return sum;
}

result<model> load_model(const std::filesystem::path& path, residence where) {
  auto file = gguf::reader::open(path);
  if (!file) return file.error();
  model m;
  m.file = std::make_unique<gguf::reader>(std::move(*file));
  auto c = read_config(*m.file);
  if (!c) return c.error();
  m.hyper = *c;
  auto w = load_weights(*m.file, m.hyper);
  if (!w) return w.error();
  m.tensors = std::move(*w);
  m.streamed = where.stream || (where.ram > 0 && m.bytes() > where.ram);
  for (std::int64_t b = 0; b < m.hyper.layers && !m.streamed; ++b)
    if (auto r = complete_layer(*m.file, m.hyper, b, m.tensors.layers[static_cast<std::size_t>(b)]); !r)
      return r.error();
  return m;
}

}  // namespace quantal::mla
