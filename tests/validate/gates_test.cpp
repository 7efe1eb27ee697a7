// Gates: what is accepted, what is refused and how, and the verdicts.
#include "gates.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "support/paths.hpp"
#include "support/temp_dir.hpp"

namespace quantal::validate {
namespace {

std::string why(const result<gate>& g) { return g ? "" : g.error().message; }

TEST(Gates, ReadTheFourRelations) {
  for (const auto& [text, how] : {std::pair{"a: nmse<=0.5", comparison::less_equal},
                                  {"a: nmse < .5", comparison::less},
                                  {"a: cosine>=0.5", comparison::greater_equal},
                                  {"a:cosine > 5e-1", comparison::greater}}) {
    const auto g = parse_gate(text, "t");
    ASSERT_TRUE(g) << why(g);
    EXPECT_EQ(g->how, how) << text;
    EXPECT_EQ(g->bound, 0.5) << text;
    ASSERT_TRUE(g->who);
    EXPECT_TRUE(*g->who->found_in("bab"));
  }
}

TEST(Gates, ColonsBelongToTheRegularExpression) {
  const auto g = parse_gate("ffn_(?:up|down): wnmse<=1", "t");
  ASSERT_TRUE(g) << why(g);
  EXPECT_TRUE(*g->who->found_in("ffn_up"));
  EXPECT_FALSE(*g->who->found_in("ffn_gate"));
}

TEST(Gates, ModelMetricsNeedNoName) {
  for (const char* text : {"kld<=0.1", "model: kld<=0.1", " : kld<=0.1"}) {
    const auto g = parse_gate(text, "t");
    ASSERT_TRUE(g) << why(g);
    EXPECT_FALSE(g->who);
  }
}

TEST(Gates, SayWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "expected 'REGEX: METRIC<=VALUE'"},        {"a: nmse=1", "expected 'REGEX: METRIC<=VALUE'"},
      {"nmse<=1", "expected 'REGEX: METRIC<=VALUE'"}, {"a: frob<=1", "unknown metric 'frob'; known: nmse"},
      {"a: nmse<=x", "'x' is not a number"},          {"a: nmse<=", "'' is not a number"},
      {"a: nmse<=nan", "'nan' is not a number"},      {"a: nmse<=1e999", "is not a number"},
      {"(: nmse<=1", "bad regular expression"},       {"a: kld<=1", "kld is a metric of the model"},
  };
  for (const auto& [text, part] : cases) {
    const auto g = parse_gate(text, "--gate");
    ASSERT_FALSE(g) << text;
    EXPECT_NE(g.error().message.find(part), std::string::npos) << g.error().message;
    EXPECT_EQ(g.error().message.find("--gate: gate '"), 0u) << g.error().message;
  }
}

void expect_three_gates(const result<std::vector<gate>>& g) {
  ASSERT_TRUE(g) << g.error().message;
  ASSERT_EQ(g->size(), 3u);
  EXPECT_EQ((*g)[0].text, "a: nmse<=1");
  EXPECT_TRUE((*g)[0].who);
  EXPECT_EQ((*g)[1].text, "b: cosine>=0.9");
  EXPECT_EQ((*g)[1].how, comparison::greater_equal);
  EXPECT_FALSE((*g)[2].who);
  EXPECT_EQ((*g)[2].bound, 0.1);
}

TEST(GateFile, StringsAndObjects) {
  expect_three_gates(
      parse_gate_file(R"({"gates": ["a: nmse<=1", {"tensors": "b", "metric": "cosine", "min": 0.9},
                          {"metric": "kld", "max": 0.1}]})",
                      gate_syntax::json, "g.json"));
}

TEST(GateFile, Yaml) {
  expect_three_gates(
      parse_gate_file("# of the nightly build\n"
                      "gates:\n"
                      "  - a: nmse<=1\n"
                      "  - tensors: b\n"
                      "    metric: cosine\n"
                      "    min: 9e-1\n"
                      "  - kld<=0.1\n",
                      gate_syntax::yaml, "g.yaml"));
  expect_three_gates(parse_gate_file("gates: ['a: nmse<=1', \"b: cosine>=0.9\", {metric: kld, max: 0.1}]",
                                     gate_syntax::yaml, "g.yaml"));
  const auto quoted =
      parse_gate_file("gates: [{tensors: '0.5', metric: nmse, max: 1}]", gate_syntax::yaml, "y");
  ASSERT_TRUE(quoted) << quoted.error().message;
  EXPECT_TRUE(*quoted->front().who->found_in("blk.0.5"));
}

TEST(GateFile, TheExamplesSayTheSame) {
  std::vector<std::vector<gate>> all;
  for (const std::string name : {"gates.json", "gates.yaml"}) {
    const std::string path = test::model_file("/../validate/") + name;
    auto g = parse_gate_file(test::read_file(path), gate_syntax_of(path), path);
    ASSERT_TRUE(g) << g.error().message;
    all.push_back(std::move(*g));
  }
  ASSERT_EQ(all[0].size(), all[1].size());
  for (std::size_t i = 0; i < all[0].size(); ++i) {
    EXPECT_EQ(all[0][i].text, all[1][i].text);
    EXPECT_EQ(all[0][i].bound, all[1][i].bound);
  }
}

TEST(GateFile, SyntaxFollowsFromTheName) {
  EXPECT_EQ(gate_syntax_of("a/gates.yaml"), gate_syntax::yaml);
  EXPECT_EQ(gate_syntax_of("gates.yml"), gate_syntax::yaml);
  EXPECT_EQ(gate_syntax_of("gates.json"), gate_syntax::json);
  EXPECT_EQ(gate_syntax_of("yaml"), gate_syntax::json);
}

TEST(GateFile, SaysWhatIsWrongInYaml) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "holds no YAML document"},
      {"a: [", "line"},
      {"gates:\n  - a: nmse<=1\n - b", "line 3"},
      {"- a", "expected a list called \"gates\""},
      {"gates: []", "holds no gates"},
      {"gates: [1]", "gate 1: neither a string nor an object"},
      {"gates: [a: nmse]", "gate 1"},
      {"gates: [{metric: nmse, tensors: a, max: '1'}]", "the bound is not a number"},
      {"gates: [{metric: nmse, tensors: a, max: .inf}]", "the bound is not a number"},
      {"gates: [{metric: nmse, max: 1, maks: 2}]", "unknown key 'maks'"},
      {"gates: [&x a, *x]", "anchors and aliases"},
      {"gates: [!t a]", "tags"},
      {"gates: [a]\ngates: [b]", "line 2: key 'gates' came before"},
      {"? [a]\n: b", "a key is no scalar"},
      {"gates: ['kld<1']\n---\ngates: []", "more than one"},
      {"gates: " + std::string(100000, '['), "not valid YAML"},
      {std::string(100000, '-'), "g.yaml"},
  };
  for (const auto& [text, part] : cases) {
    const auto g = parse_gate_file(text, gate_syntax::yaml, "g.yaml");
    ASSERT_FALSE(g) << text.substr(0, 100);
    EXPECT_NE(g.error().message.find(part), std::string::npos) << g.error().message;
    EXPECT_EQ(g.error().message.find("g.yaml: "), 0u);
  }
}

TEST(GateFile, SaysWhatIsWrong) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "not valid JSON"},
      {"{", "not valid JSON"},
      {std::string(100000, '['), "nested too deeply"},
      {"[]", "expected a list called \"gates\""},
      {R"({"gates": 1})", "expected a list called \"gates\""},
      {R"({"gates": []})", "holds no gates"},
      {R"({"gates": [1]})", "gate 1: neither a string nor an object"},
      {R"({"gates": [{"metric": "nmse", "tensors": "a"}]})", "expected one of \"max\" and \"min\""},
      {R"({"gates": [{"metric": "nmse", "tensors": "a", "max": "1"}]})", "the bound is not a number"},
      {R"({"gates": [{"metric": "nmse", "max": 1}]})", "expected 'REGEX"},
      {R"({"gates": [{"metric": "nmse", "max": 1, "maks": 2}]})", "unknown key 'maks'"},
      {R"({"gates": ["a: nmse<=1", "b: nmse"]})", "gate 2"},
  };
  for (const auto& [text, part] : cases) {
    const auto g = parse_gate_file(text, gate_syntax::json, "g.json");
    ASSERT_FALSE(g) << text.substr(0, 100);
    EXPECT_NE(g.error().message.find(part), std::string::npos) << g.error().message;
    EXPECT_EQ(g.error().message.find("g.json: "), 0u);
  }
}

std::vector<subject> two_tensors() {
  return {{"a.weight", false, {{"nmse", 0.1}}},
          {"b.weight", false, {{"nmse", 0.3}, {"wnmse", 0.2}}},
          {"model", true, {{"kld", 0.01}}}};
}
std::vector<gate> gates_of(std::initializer_list<const char*> texts) {
  std::vector<gate> out;
  for (const char* t : texts) out.push_back(*parse_gate(t, "t"));
  return out;
}

TEST(Evaluate, EveryTensorThatMatches) {
  const auto gates = gates_of({"weight: nmse<=0.2", "weight: wnmse<=1", "kld<0.01"});
  const auto r = evaluate(gates, two_tensors());
  ASSERT_TRUE(r) << r.error().message;
  std::vector<verdict> got;
  for (const auto& c : *r) got.push_back(c.outcome);
  EXPECT_EQ(got, (std::vector{verdict::passed, verdict::failed, verdict::not_measured, verdict::passed,
                              verdict::failed}));
}

TEST(Evaluate, NaNNeverPasses) {
  for (const char* text : {"x: nmse<=1", "x: nmse>=0", "x: nmse<1", "x: nmse>0"}) {
    const auto gates = gates_of({text});
    const auto r = evaluate(gates, {{"x", false, {{"nmse", NAN}}}});
    ASSERT_TRUE(r);
    EXPECT_EQ(r->front().outcome, verdict::failed) << text;
  }
}

TEST(Evaluate, GatesThatCheckNothingAreErrors) {
  for (const auto& [text, part] : {std::pair{"zzz: nmse<=1", "matches no tensor"},
                                   {"a: wnmse<=1", "was measured of nothing"},
                                   {"ppl<=1", "need --text"}}) {
    const auto r = evaluate(gates_of({text}), two_tensors());
    ASSERT_FALSE(r) << text;
    EXPECT_NE(r.error().message.find(part), std::string::npos) << r.error().message;
  }
}

}  // namespace
}  // namespace quantal::validate
