// quantal-blocks: raw rows to and from every format, for checks against other implementations.
#include <limits>
#include <string_view>

#include "commands.hpp"
#include "file_plan.hpp"
#include "program.hpp"
#include "report.hpp"

namespace {

using quantal::blocks::options;

struct command {
  const char* name;
  const char* summary;
  bool codes, reads_floats, writes, prints;  ///< works on rows; takes float32 input; has OUT; has --json
  quantal::result<void> (*run)(const options&);
};
constexpr command commands[] = {
    {"list", "Prints every format with its layout.", false, false, false, true, quantal::blocks::list},
    {"dequantize", "Decodes raw blocks to raw float32.", true, false, true, false,
     quantal::blocks::dequantize},
    {"quantize", "Quantizes raw float32 rows to raw blocks.", true, true, true, false,
     quantal::blocks::quantize},
    {"error", "Quantizes rows and prints the normalised mean squared errors.", true, true, false, true,
     quantal::blocks::measure_error},
};

int usage(std::FILE* to) {
  std::fputs("usage: quantal-blocks COMMAND [options] ...\n\ncommands (each has --help):\n", to);
  for (const auto& c : commands) std::fprintf(to, "  %-11s %s\n", c.name, c.summary);
  return to == stdout ? quantal::cli::exit_ok : quantal::cli::exit_usage;
}

int run(const command& c, int argc, char** argv) {
  options o;
  o.threads = quantal::text::thread_count();
  quantal::cli::parser p(std::string("quantal-blocks ") + c.name, c.summary);
  if (c.codes) {
    p.option({"--format"}, "F", "format of the blocks, by name", o.format).required();
    p.option({"--cols"}, "N", "columns of a row", o.cols, {1, std::numeric_limits<int>::max()}).required();
    p.option({"-t", "--threads"}, "N", "threads", o.threads, {1, 1024});
    p.positional("IN", c.reads_floats ? "raw float32 rows" : "raw blocks, row after row", o.in).required();
  }
  if (c.reads_floats)
    p.option({"--importance"}, "FILE", "raw float32, one importance per column", o.importance);
  if (c.codes && c.writes)
    p.option({"--scale"}, "FILE",
             c.reads_floats ? "write the scale of the whole array, one float32, that nvfp4 has beside it"
                            : "one float32 that multiplies the weights",
             o.scale);
  if (c.writes) p.positional("OUT", "file to write", o.out).required();
  if (c.prints) p.flag({"--json"}, "print JSON", o.json);
  if (const auto exit_code = p.run(argc, argv)) return *exit_code;
  const auto files =
      quantal::file_plan().input("IN", o.in).input("--importance", o.importance).output("OUT", o.out).check();
  if (!files) return quantal::fail("quantal-blocks", files.error());
  const auto done = c.run(o);
  return done ? quantal::cli::exit_ok : quantal::fail("quantal-blocks", done.error());
}

int choose_command(int argc, char** argv) {
  if (argc < 2) return usage(stderr);
  const std::string_view name = argv[1];
  if (name == "-h" || name == "--help") return usage(stdout);
  for (const auto& c : commands)
    if (name == c.name) return run(c, argc - 1, argv + 1);
  std::fprintf(stderr, "quantal-blocks: unknown command '%s'\n", quantal::text::printable(name).c_str());
  return usage(stderr);
}

}  // namespace

int main(int argc, char** argv) { return quantal::run_program("quantal-blocks", argc, argv, choose_command); }
