// quantal-quantize: a GGUF model to another type, with importance.
#include <optional>

#include "explain.hpp"
#include "mixes.hpp"
#include "options.hpp"
#include "program.hpp"
#include "report.hpp"
#include "run.hpp"

namespace {

using quantal::plan::run_options;

/// IN [TYPE] with a recipe, which is a file or, with an '=' in it, the rules themselves.
quantal::result<void> take_recipe(const std::string& recipe, const std::vector<std::string>& a,
                                  run_options& o) {
  if (recipe.empty()) return quantal::error{"--explain: the recipe is empty"};
  if (a.empty() || a.size() > 2) return quantal::error{"--explain RECIPE expects IN [TYPE]"};
  o.in = a[0];
  if (a.size() == 2) o.type = a[1];
  std::error_code ignored;
  if (recipe.find('=') != std::string::npos && !std::filesystem::exists(recipe, ignored))
    o.rules.push_back(recipe);
  else
    o.rule_files.push_back(recipe);
  return {};
}

/// IN OUT TYPE [THREADS], or IN TYPE [THREADS] with the output beside the input.
quantal::result<void> take_arguments(const std::vector<std::string>& a, run_options& o) {
  const auto bad = [](const std::string& why) {
    return quantal::error{why + "; expected IN [OUT] TYPE [THREADS]"};
  };
  if (a.size() < 2) return bad("too few arguments");
  o.in = a[0];
  std::size_t next = 1;
  const auto* type = quantal::plan::find_file_type_by_name(a[1]);
  if (type)
    o.out = o.in.parent_path() / ("ggml-model-" + std::string(type->name) + ".gguf");
  else
    o.out = a[next++];
  if (next == a.size()) return bad("the type is missing or unknown");
  o.type = a[next++];
  if (next < a.size()) {
    const auto threads = quantal::cli::detail::parse_number<int>(a[next++], {0, 1024});
    if (!threads) return bad("THREADS: " + threads.error().message);
    o.threads = *threads;
  }
  if (next < a.size()) return bad("unexpected argument '" + a[next] + "'");
  return {};
}

void add_sequential_options(quantal::cli::parser& p, quantal::plan::sequential_options& o, bool& on) {
  p.flag({"--sequential"},
         "quantize in the order of the model: codes are chosen for the inputs that a tensor gets from what "
         "is quantized already, and aim at the outputs of the model as it was; needs --text; --imatrix is "
         "used where it is given",
         on);
  p.option({"-f", "--text"}, "FILE", "calibration text of --sequential (UTF-8)", o.text);
  p.option({"-c", "--ctx-size"}, "N", "tokens per chunk of it", o.context, {2, 1 << 20});
  p.option({"--chunks"}, "N", "most chunks to run, 0 = all", o.chunks, {0, 1e9});
  p.option({"--chunk", "--from-chunk"}, "N", "chunks to skip first", o.from_chunk, {0, 1e9});
  p.option({"--hessian-limit"}, "MIB",
           "memory for the moments of one tensor; experts or heads that need more share them", o.limit,
           {1, 1 << 20});
  p.option({"--ram"}, "GIB", "memory that the run may take, 0 = what is available", o.ram, {0, 1 << 20});
}

/// Why these options do not go together; empty: they do.
std::string conflict(const run_options& o, bool sequential) {
  if (o.target_bpw > 0 && o.target_size > 0) return "give --target-bpw or --target-size, not both";
  if (sequential && !o.sequential) return "--sequential needs --text";
  if (!sequential && o.sequential) return "--text is the text of --sequential";
  if (sequential && !o.hessian.empty())
    return "--sequential collects its own moments; --hessian does not go with it";
  if (sequential && o.lattice)
    return "--lattice keeps the codes that weights lie on, --sequential chooses others: give one of them";
  const auto& s = o.sequential;
  const run_options usual;
  if (!sequential && (s.context != usual.sequential.context || s.chunks || s.from_chunk || s.ram ||
                      s.limit != usual.sequential.limit))
    return "--ctx-size, --chunks, --from-chunk, --hessian-limit and --ram belong to --sequential";
  return {};
}

int body(int argc, char** argv) {
  run_options o;
  std::optional<std::string> recipe;
  bool sequential = false;
  std::vector<std::string> arguments;
  quantal::cli::parser p(
      "quantal-quantize",
      "Quantizes a GGUF model. Everything is planned and checked before a byte is written.");
  quantal::plan::add_plan_options(p, o);
  p.option({"--target-bpw"}, "X",
           "choose the types: least loss at X bits per weight of the whole model; prints the "
           "equivalent --custom-q, rules and options still win",
           o.target_bpw, {0, 32});
  p.option({"--target-size"}, "BYTES", "the same for an output of at most so many bytes, metadata included",
           o.target_size);
  p.option({"--sensitivity"}, "FILE",
           "what errors cost: study.json of examples/study, or a CSV table of losses (tensor, type, value)",
           o.sensitivity);
  p.option({"--target-types"}, "T,...",
           "candidates of --target-bpw and --target-size instead of the usual ones", o.target_types);
  p.option({"--explain"}, "RECIPE",
           "only tell what every tensor of IN gets by a recipe, by which rule, and the recipe as quantal, "
           "ik_llama.cpp and llama.cpp write it; RECIPE: a file in any of these ways, or rules; TYPE may be "
           "left out",
           recipe);
  add_sequential_options(p, o.sequential, sequential);
  p.flag({"--dry-run"}, "print the plan, write nothing", o.dry_run);
  p.flag({"--keep-split"}, "write the shards of the input instead of one file", o.keep_split);
  p.flag({"--allow-requantize"}, "take quantized tensors as input", o.allow_requantize);
  p.flag({"--leave-output-tensor"}, "keep output.weight as it is", o.leave_output);
  p.positional("IN [OUT] TYPE [THREADS]", "model, result, file type by name or number, threads (0: all)",
               arguments)
      .required();
  p.epilogue("types: " + quantal::plan::known_file_types());
  if (const auto exit_code = p.run(argc, argv)) return *exit_code;
  if (recipe) {
    if (const auto taken = take_recipe(*recipe, arguments, o); !taken)
      return quantal::fail("quantal-quantize", taken.error(), quantal::cli::exit_usage);
    if (sequential || o.sequential || !o.hessian.empty())
      return quantal::fail(
          "quantal-quantize",
          {"--explain chooses no codes: --sequential, --text and --hessian do not go with it"},
          quantal::cli::exit_usage);
    const auto done = quantal::plan::explain(o);
    return done ? quantal::cli::exit_ok : quantal::fail("quantal-quantize", done.error());
  }
  if (const auto taken = take_arguments(arguments, o); !taken)
    return quantal::fail("quantal-quantize", taken.error(), quantal::cli::exit_usage);
  if (const auto why = conflict(o, sequential); !why.empty())
    return quantal::fail("quantal-quantize", {why}, quantal::cli::exit_usage);
  const auto done = quantal::plan::run(o);
  return done ? quantal::cli::exit_ok : quantal::fail("quantal-quantize", done.error());
}

}  // namespace

int main(int argc, char** argv) { return quantal::run_program("quantal-quantize", argc, argv, body); }
