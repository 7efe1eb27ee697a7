// quantal-validate: is a quantized model still close enough to its reference?
#include "file_plan.hpp"
#include "program.hpp"
#include "report.hpp"
#include "run.hpp"

namespace {

/// Exit codes: CI tells a bad model from a broken set-up by them.
constexpr int passed = 0, gate_failed = 1, could_not_run = 2;

quantal::result<void> check_outputs(const std::vector<std::string>& outputs) {
  for (const auto& o : outputs) {
    const auto kind = o.substr(0, o.find('='));
    if (o.ends_with('=')) return quantal::error{"--output: '" + o + "' names no file"};
    if (kind != "table" && kind != "json" && kind != "junit" && kind != "markdown" && kind != "html")
      return quantal::error{"--output: '" + o +
                            "' is not table, json, junit, markdown or html, or one of them with =FILE"};
  }
  return {};
}

quantal::result<void> check_files(const quantal::validate::run_options& o) {
  quantal::file_plan files;
  files.input("MODEL", o.model)
      .input("--reference", o.reference)
      .input("--imatrix", o.imatrix)
      .input("--hessian", o.hessian)
      .input("--text", o.text)
      .input("--points", o.points);
  files.inputs("--gates", o.gate_files);
  if (o.outputs.empty()) files.prints();
  for (const auto& out : o.outputs) {
    const auto equals = out.find('=');
    if (equals == std::string::npos)
      files.prints();
    else
      files.output("-o", out.substr(equals + 1));
  }
  return files.check();
}

int body(int argc, char** argv) {
  quantal::validate::run_options o;
  quantal::cli::parser p(
      "quantal-validate",
      "Compares a GGUF model with its reference, tensor by tensor and as a whole, and checks gates.");
  p.option({"--reference"}, "FILE", "the model before quantization (GGUF)", o.reference).required();
  p.option({"--imatrix"}, "FILE", "statistics for wnmse and output_nmse", o.imatrix);
  p.option({"--hessian"}, "FILE", "second moments of quantal-imatrix --hessian for hessian_nmse", o.hessian);
  p.option({"--text"}, "FILE", "text for ppl, ppl_ratio, kld, kld_99 and same_top (deepseek2 models)",
           o.text);
  p.option({"--points"}, "FILE",
           "models that the HTML report shows beside this one: JSON [{\"name\": NAME, \"bytes\": N, "
           "\"kld\": X}, ...]",
           o.points);
  p.option({"--gate"}, "GATE",
           "'REGEX: METRIC<=VALUE' for tensors, 'METRIC<=VALUE' for the model; also <, >=, >", o.gates);
  p.option({"--gates"}, "FILE", "gates from a JSON file, or a YAML one (.yaml, .yml)", o.gate_files);
  p.option({"-o", "--output"}, "FORMAT[=FILE]",
           "table, json, junit, markdown or html; to standard output or a file", o.outputs);
  p.option({"-c", "--ctx-size"}, "N", "tokens per chunk of the text", o.context, {4, 1 << 20});
  p.option({"--chunks"}, "N", "most chunks to run, 0 = all", o.chunks, {0, 1e9});
  p.option({"--act"}, "POLICY",
           "activations of the model in ppl, kld and the like: exact, as quantal-perplexity has it, or "
           "rounded to int8",
           o.act)
      .one_of({"exact", "q8"});
  p.option({"-t", "--threads"}, "N", "threads, 0 = all", o.threads, {0, 1024});
  p.flag({"--allow-missing"}, "compare the tensors that both have", o.allow_missing);
  p.positional("MODEL", "quantized model (GGUF)", o.model).required();
  p.epilogue(
      "tensor metrics: nmse, wnmse (with --imatrix), cosine, max_error,\n"
      "  output_nmse (product with rounded activations of the collected variances against the exact "
      "product)\n"
      "  hessian_nmse (with --hessian: squared error of the product with the inputs that were held out, over "
      "its square)\n"
      "exit codes: 0 all gates hold, 1 a gate failed or a tensor holds a NaN or an infinity, 2 the verdict "
      "is unknown");
  if (const auto exit_code = p.run(argc, argv)) return *exit_code;
  if (const auto ok = check_outputs(o.outputs); !ok)
    return quantal::fail("quantal-validate", ok.error(), could_not_run);
  if (const auto ok = check_files(o); !ok)
    return quantal::fail("quantal-validate", ok.error(), could_not_run);
  const auto f = quantal::validate::validate(o);
  if (!f) return quantal::fail("quantal-validate", f.error(), could_not_run);
  if (const auto w = quantal::validate::write_outputs(*f, o.outputs); !w)
    return quantal::fail("quantal-validate", w.error(), could_not_run);
  return f->failed() ? gate_failed : passed;
}

}  // namespace

int main(int argc, char** argv) {
  return quantal::run_program("quantal-validate", argc, argv, body, could_not_run);
}
