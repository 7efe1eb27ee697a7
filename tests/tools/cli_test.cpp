#include "cli.hpp"

#include <gtest/gtest.h>

#include <optional>

namespace quantal {
namespace {

using arguments = std::vector<std::string>;

/// One parser with every kind of declaration.
struct program {
  std::string model = "default.gguf";
  int threads = 4;
  double scale = 0.5;
  bool flash = false;
  std::optional<std::int64_t> chunks;
  std::vector<std::string> inputs;
  std::vector<std::string> rules;
  std::string mode = "all";
  std::filesystem::path in, out;
  cli::parser p{"prog", "Does something."};

  program() {
    p.option({"-m", "--model"}, "FILE", "model", model);
    p.option({"-t", "--threads"}, "N", "threads", threads, {0, 64});
    p.option({"--scale"}, "X", "scale", scale, {0, 1});
    p.flag({"-fa", "--flash-attn"}, "flash attention", flash);
    p.option({"--chunks"}, "N", "chunks", chunks, {1});
    p.option({"--in-file"}, "FILE", "inputs", inputs).many();
    p.option({"--rule"}, "R", "rules", rules);
    p.option({"--mode"}, "M", "mode", mode).one_of({"all", "none"});
    p.positional("IN", "input", in).required();
    p.positional("OUT", "output", out);
  }
  std::string failure(const arguments& a) {
    const auto r = p.parse(a);
    return r ? "" : r.error().message;
  }
};

TEST(cli, defaults_stay) {
  program x;
  ASSERT_TRUE(x.p.parse({"a"}));
  EXPECT_EQ(x.model, "default.gguf");
  EXPECT_EQ(x.threads, 4);
  EXPECT_FALSE(x.flash);
  EXPECT_FALSE(x.chunks);
  EXPECT_EQ(x.in, "a");
  EXPECT_TRUE(x.out.empty());
  EXPECT_FALSE(x.p.given("-t"));
}

TEST(cli, one_and_two_dashes_values_and_equals) {
  program x;
  ASSERT_EQ(x.failure({"-fa", "-t", "8", "--scale=0.25", "a", "--chunks", "3", "b"}), "");
  EXPECT_TRUE(x.flash);
  EXPECT_EQ(x.threads, 8);
  EXPECT_EQ(x.scale, 0.25);
  EXPECT_EQ(x.chunks, 3);
  EXPECT_EQ(x.in, "a");
  EXPECT_EQ(x.out, "b");
  EXPECT_TRUE(x.p.given("--threads"));
}

TEST(cli, repeated_and_multi_value_options) {
  program x;
  ASSERT_EQ(x.failure({"a", "--in-file", "1", "2", "--in-file", "3", "--rule", "r=1,s=2", "--rule", "t=3"}),
            "");
  EXPECT_EQ(x.inputs, (arguments{"1", "2", "3"}));
  EXPECT_EQ(x.rules, (arguments{"r=1,s=2", "t=3"}));
}

TEST(cli, values_keep_their_equals_sign) {
  program x;
  ASSERT_EQ(x.failure({"a", "--rule=p=q"}), "");
  EXPECT_EQ(x.rules, (arguments{"p=q"}));
}

TEST(cli, everything_after_two_dashes_is_an_argument) {
  program x;
  ASSERT_EQ(x.failure({"--", "-m", "--model"}), "");
  EXPECT_EQ(x.in, "-m");
  EXPECT_EQ(x.out, "--model");
}

TEST(cli, errors_name_the_option_and_the_value) {
  const struct {
    arguments args;
    const char* message;
  } cases[] = {
      {{"a", "--nope"}, "unknown option '--nope'"},
      {{"a", "--fa"}, "unknown option '--fa' (did you mean -fa?)"},
      {{"a", "-t", "x"}, "-t: 'x' is not an integer"},
      {{"a", "-t", "3x"}, "-t: '3x' is not an integer"},
      {{"a", "-t", "-1"}, "-t: '-1' is outside [0, 64]"},
      {{"a", "-t", "65"}, "-t: '65' is outside [0, 64]"},
      {{"a", "-t", "99999999999999"}, "-t: '99999999999999' is out of range"},
      {{"a", "--chunks", "0"}, "--chunks: '0' is outside [1, inf]"},
      {{"a", "--scale", "nan"}, "--scale: 'nan' is not finite"},
      {{"a", "--scale", "1.5"}, "--scale: '1.5' is outside [0, 1]"},
      {{"a", "-t"}, "-t needs a value"},
      {{"a", "-t", "-fa"}, "-t needs a value"},
      {{"a", "-t", "1", "--threads", "2"}, "--threads was given twice"},
      {{"a", "-fa=1"}, "-fa takes no value"},
      {{"a", "--mode", "some"}, "--mode: 'some' is not one of all, none"},
      {{}, "missing argument IN"},
      {{"a", "b", "c"}, "unexpected argument 'c'"},
  };
  for (const auto& c : cases) EXPECT_EQ(program().failure(c.args), c.message);
}

TEST(cli, required_option) {
  std::string m;
  cli::parser p("prog", "x");
  p.option({"-m"}, "FILE", "model", m).required();
  EXPECT_EQ(p.parse({}).error().message, "missing option -m");
}

TEST(cli, help_wins_over_missing_arguments_and_shows_defaults) {
  program x;
  ASSERT_TRUE(x.p.parse({"--help"}));
  EXPECT_TRUE(x.p.help_requested());
  const auto h = x.p.help();
  for (const char* piece :
       {"usage: prog [options] IN [OUT]", "-t, --threads N", "(default: 4)", "(default: default.gguf)",
        "(one of all, none)", "--in-file FILE ...", "-h, --help", "Does something."})
    EXPECT_NE(h.find(piece), std::string::npos) << piece << "\n" << h;
}

TEST(cli, run_answers_exit_codes) {
  const char* help[] = {"prog", "--help"};
  const char* bad[] = {"prog", "a", "--nope"};
  const char* good[] = {"prog", "a"};
  EXPECT_EQ(program().p.run(2, help), 0);
  EXPECT_EQ(program().p.run(3, bad), 2);
  EXPECT_EQ(program().p.run(2, good), std::nullopt);
}

}  // namespace
}  // namespace quantal
