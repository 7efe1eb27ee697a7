// write_formats FILE ID...: a GGUF with a quantized tensor and its decoded values, NAME and NAME.decoded, for
// each of these tensor types that we write; the names are printed.
#include <cstdio>
#include <cstdlib>

#include "quantal/dequantize.hpp"
#include "quantal/gguf/writer.hpp"
#include "quantal/runtime/ops.hpp"
#include "support/random_weights.hpp"

namespace quantal {
namespace {

constexpr std::int64_t rows = 4, cols = 1024;

std::span<const std::byte> bytes_of(const auto& v) { return std::as_bytes(std::span(v)); }

result<void> write(const char* path, const std::vector<const format_info*>& formats) {
  std::vector<gguf::tensor_info> tensors;
  for (const auto* f : formats) {
    tensors.push_back({std::string(f->name), f->gguf_id, 2, {cols, rows, 1, 1}});
    tensors.push_back({std::string(f->name) + ".decoded", f32::gguf_id, 2, {cols, rows, 1, 1}});
  }
  gguf::metadata meta;
  meta.set("general.architecture", std::string("test"));
  auto out = gguf::writer::create(path, meta, tensors);
  if (!out) return out.error();
  test::rng g(7);
  const auto x = test::gaussian(g, rows * cols, 0.02f);
  for (const auto* f : formats) {
    const std::int64_t row = f->row_bytes(cols);
    std::vector<std::byte> blocks(static_cast<std::size_t>(rows * row));
    std::vector<float> decoded(x.size());
    for (std::int64_t r = 0; r < rows; ++r) {
      auto s = runtime::quantize_row(f->gguf_id, x.data() + r * cols, nullptr, blocks.data() + r * row, cols);
      if (s == status::ok)
        s = dequantize_row(f->gguf_id, blocks.data() + r * row, decoded.data() + r * cols, cols);
      if (s != status::ok) return error{std::string(f->name) + ": " + std::string(to_string(s))};
    }
    if (auto w = out->append(blocks); !w) return w;
    if (auto w = out->append(bytes_of(decoded)); !w) return w;
  }
  return out->finish();
}

int run(int argc, char** argv) {
  const auto best = runtime::dispatcher::best();
  std::vector<const format_info*> formats;
  for (int i = 2; i < argc; ++i) {
    const auto* f = find_format(static_cast<std::uint32_t>(std::atoi(argv[i])));
    if (f && f->usage == role::weight && best.find_quantizer(f->gguf_id)) formats.push_back(f);
  }
  if (const auto w = write(argv[1], formats); !w)
    return std::fprintf(stderr, "%s\n", w.error().message.c_str()), 1;
  for (const auto* f : formats) std::printf("%s\n", std::string(f->name).c_str());
  return 0;
}

}  // namespace
}  // namespace quantal

int main(int argc, char** argv) { return argc > 1 ? quantal::run(argc, argv) : 2; }
