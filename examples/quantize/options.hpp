// Options that every program with a quantization plan has.
#pragma once

#include "cli.hpp"
#include "run.hpp"

namespace quantal::plan {

inline void add_plan_options(cli::parser& p, run_options& o) {
  p.option({"--imatrix"}, "FILE", "importance matrix (.gguf or .dat)", o.imatrix);
  p.option({"--hessian"}, "FILE",
           "second moments of quantal-imatrix --hessian: codes are chosen by what they do to outputs",
           o.hessian);
  p.option({"--custom-q", "--tensor-type"}, "RULES",
           "regex=type,...: the first rule that matches a tensor's name decides", o.rules);
  p.option({"--custom-q-file", "--tensor-type-file"}, "FILE",
           "rules from a file, between commas, white space or line ends; # starts a comment", o.rule_files);
  p.option({"--token-embedding-type"}, "T", "type of token_embd, before rules and mix",
           o.token_embedding_type);
  p.option({"--output-tensor-type"}, "T", "type of output.weight, before rules and mix", o.output_type);
  p.option({"--require-imatrix"}, "WHICH", "types that must have importance data", o.required)
      .one_of({"all", "lowbit", "none"});
  p.option({"--types"}, "WHOSE",
           "whose mixes and formats: those of the program that has the type, of the named one, or every "
           "format in rules and options",
           o.types)
      .one_of({"auto", "llama.cpp", "ik", "all"});
  p.flag({"--pure"}, "base type instead of the built-in mix", o.pure);
  p.flag({"--lattice"},
         "tensors whose weights lie on a lattice (int4, FP4, ...: quantal-inspect --lattice) get the "
         "smallest type that "
         "holds it; prints the equivalent --custom-q, rules and options still win",
         o.lattice);
  p.flag({"--strict"}, "weights beyond the range of a type's scales, too large or too small, are an error",
         o.strict);
  p.flag({"--json"}, "print JSON", o.json);
}

}  // namespace quantal::plan
