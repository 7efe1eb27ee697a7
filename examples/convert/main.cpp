// quantal-convert: a Hugging Face checkpoint to GGUF, quantized on the way if asked.
#include "hf_convert.hpp"
#include "mixes.hpp"
#include "options.hpp"
#include "program.hpp"
#include "report.hpp"

namespace {

int body(int argc, char** argv) {
  quantal::hf::convert_options o;
  auto& q = o.quantize;
  std::string split;
  quantal::cli::parser p(
      "quantal-convert",
      "Converts a Hugging Face checkpoint (DeepSeek, Kimi, GLM, Youtu, Llama, Mistral, Qwen, Gemma 3, "
      "gpt-oss) to GGUF in one pass: safetensors in bf16, f16, f32, fp8, packed integers, mxfp4, nvfp4, "
      "GPTQ or AWQ. Everything is planned and checked before a byte is written.");
  p.option(
      {"--type"}, "TYPE",
      "file type to quantize to; without it bf16; auto: what the checkpoint holds as it is, in the type that "
      "holds it best",
      q.type);
  p.option({"--mla-layout"}, "LAYOUT",
           "attn_k_b and attn_v_b in 3 dimensions (llama.cpp), 2, or 2 with attn_kv_b "
           "(ik_llama.cpp)",
           o.layout)
      .one_of({"3d", "2d", "2d+kv_b"});
  p.option({"--split-max-size"}, "SIZE", "tensor data per output file: 50G, 800M", split);
  p.option({"--name"}, "NAME", "general.name; without it the directory's name", o.name);
  quantal::plan::add_plan_options(p, q);
  p.option({"--imatrix-text"}, "FILE",
           "text to collect an importance matrix from first, which stays as "
           "OUT.imatrix.gguf",
           o.imatrix_text);
  p.option({"--imatrix-ctx"}, "N", "tokens per chunk of that text", o.imatrix_context, {2, 1 << 20});
  p.option({"--imatrix-chunks"}, "N", "most chunks of that text, 0 = all", o.imatrix_chunks, {0, 1e9});
  p.flag({"--leave-output-tensor"}, "keep output.weight in bf16", q.leave_output);
  p.flag({"--dry-run"}, "check the checkpoint and print the plan, write nothing", q.dry_run);
  p.option({"-t", "--threads"}, "N", "threads, 0 = all", q.threads, {0, 1024});
  p.positional("HF_DIR",
               "directory with config.json (or Mistral's params.json), tokenizer and safetensors files", q.in)
      .required();
  p.positional("OUT", "GGUF file to write", q.out).required();
  p.epilogue("types: auto, " + quantal::plan::known_file_types());
  if (const auto exit_code = p.run(argc, argv)) return *exit_code;
  const auto usage = [](const quantal::error& e) {
    return quantal::fail("quantal-convert", e, quantal::cli::exit_usage);
  };
  if (!o.imatrix_text.empty() && (q.type.empty() || q.type == "auto"))
    return usage({"--imatrix-text needs --type, of a format"});
  if (!o.imatrix_text.empty() && !q.imatrix.empty())
    return usage({"give --imatrix or --imatrix-text, not both"});
  if (!split.empty()) {
    const auto size = quantal::hf::parse_size(split);
    if (!size) return usage({"--split-max-size: " + size.error().message});
    o.split_max_size = *size;
  }
  const auto done = quantal::hf::convert(o);
  return done ? quantal::cli::exit_ok : quantal::fail("quantal-convert", done.error());
}

}  // namespace

int main(int argc, char** argv) { return quantal::run_program("quantal-convert", argc, argv, body); }
