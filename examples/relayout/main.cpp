// quantal-relayout: rewrites a deepseek2 model between the tensor layouts of llama.cpp and ik_llama.cpp.
#include <cstdio>

#include "cli.hpp"
#include "layout.hpp"
#include "program.hpp"

namespace quantal::mla {
namespace {

int run(int argc, char** argv) {
  std::string in, out, to = "2d+kv_b";
  cli::parser p("quantal-relayout",
                "Rewrites a deepseek2 GGUF model with attn_k_b, attn_v_b in three dimensions (llama.cpp), or "
                "in two with "
                "or without attn_kv_b (ik_llama.cpp). Weights stay as they are; only a derived attn_kv_b or "
                "attn_k_b of a "
                "quantized model is quantized again, to q8_0.");
  p.option({"--layout"}, "LAYOUT", "layout to write", to).one_of({"3d", "2d", "2d+kv_b"});
  p.positional("IN", "GGUF model (first shard)", in).required();
  p.positional("OUT", "GGUF file to write", out).required();
  if (const auto code = p.run(argc, argv)) return *code;
  const auto fail = [](const std::string& m) {
    std::fprintf(stderr, "quantal-relayout: %s\n", m.c_str());
    return cli::exit_failure;
  };
  const auto model = gguf::reader::open(in);
  if (!model) return fail(model.error().message);
  if (auto r = relayout(*model, *find_layout(to), out); !r) return fail(r.error().message);
  return cli::exit_ok;
}

}  // namespace
}  // namespace quantal::mla

int main(int argc, char** argv) {
  return quantal::run_program("quantal-relayout", argc, argv, quantal::mla::run);
}
