// Recipes and measurements of others: the ways they are written, and what is said about bad ones.
#include <gtest/gtest.h>

#include <fstream>

#include "explain.hpp"
#include "json.hpp"
#include "measured_losses.hpp"
#include "quantal/gguf/reader.hpp"
#include "quantal/imatrix/io.hpp"
#include "recipe.hpp"
#include "synthetic.hpp"

namespace quantal::plan {
namespace {

std::string listed(const std::vector<rule>& rules) {
  std::string out;
  for (const auto& r : rules) out += r.pattern.text() + "=" + std::string(r.type->name) + " ";
  return out;
}

std::string read(std::string_view text) {
  std::vector<rule> rules;
  const auto ok = parse_rules(text, "r.txt", true, rules);
  return ok ? listed(rules) : "error: " + ok.error().message;
}

TEST(Recipes, AreReadInEverySyntax) {
  const std::string want = "ffn_down=q6_K attn_k_b=q8_0 ";
  EXPECT_EQ(read("ffn_down=q6_K\nattn_k_b=q8_0\n"), want);
  EXPECT_EQ(read("# mine\nffn_down = q6_K  # most of it\n\nattn_k_b = Q8_0"), want);
  EXPECT_EQ(read("ffn_down=q6_K,attn_k_b=q8_0"), want);
  EXPECT_EQ(read("ffn_down=q6_K, attn_k_b=q8_0,"), want);
  EXPECT_EQ(read("ffn_down=q6_K attn_k_b=q8_0"), want);
  EXPECT_EQ(read("--custom-q \"ffn_down=q6_K,attn_k_b=q8_0\""), want);
  EXPECT_EQ(read("--custom-q 'ffn_down=q6_K' \\\n--custom-q=attn_k_b=q8_0\r\n"), want);
  EXPECT_EQ(read("--tensor-type ffn_down=q6_K --tensor-type 'attn_k_b=q8_0'"), want);
  EXPECT_EQ(read("--tensor-type ffn_down=q6_K \\\n  --tensor-type attn_k_b=q8_0 \\\n"), want);
  EXPECT_EQ(read("a\\d+=q4_0"), "a\\d+=q4_0 ");
}

TEST(Recipes, SayWhatIsWrong) {
  EXPECT_EQ(read("a=q4_0\nb"), "error: r.txt:2: rule 'b': expected REGEX=TYPE");
  EXPECT_EQ(read("a=q4_0 b=q9").find("error: r.txt:1: rule 'b=q9': unknown type 'q9'"), 0u);
  EXPECT_EQ(read("\n\n(=q4_0").find("error: r.txt:3: rule '(=q4_0': bad regular expression"), 0u);
  EXPECT_EQ(read("--pure a=q4_0"), "error: r.txt:1: rule '--pure': expected REGEX=TYPE");
}

TEST(Recipes, AreWrittenForEveryProgram) {
  std::vector<rule> rules;
  ASSERT_TRUE(parse_rules("ffn_down_exps=iq4_ks,it's\\D=q4_0,^(?<!x)a$=nvfp4", "r", false, rules));
  const auto written = write_recipes(rules);
  ASSERT_EQ(written.size(), 3u);
  EXPECT_EQ(written[0].arguments, "--custom-q 'ffn_down_exps=iq4_ks,it'\\''s\\D=q4_0,^(?<!x)a$=nvfp4'");
  EXPECT_EQ(written[1].arguments, written[0].arguments);
  EXPECT_EQ(written[2].arguments,
            "--tensor-type 'ffn_down_exps=iq4_ks' --tensor-type 'it'\\''s\\D=q4_0' --tensor-type "
            "'^(?<!x)a$=nvfp4'");
  EXPECT_TRUE(written[0].caveats.empty());
  EXPECT_EQ(written[1].caveats,
            (std::vector<std::string>{"'^(?<!x)a$': does not know nvfp4",
                                      "'^(?<!x)a$': does not know this kind of expression"}));
  EXPECT_EQ(
      written[2].caveats,
      (std::vector<std::string>{"'ffn_down_exps': does not know iq4_ks",
                                "'it's\\D': reads the expression in lower case, which changes what it means",
                                "'^(?<!x)a$': does not know this kind of expression"}));
}

/// Whatever a tensor is called, its rule is read back as one rule that matches it and nothing else.
TEST(Recipes, NameAnyTensor) {
  for (const std::string name :
       {"blk.0.a.weight", "a,b=c #d.weight", "#a", " it's \"x\" ", "a\\b\tc\nd", "-a=b"}) {
    std::vector<rule> rules;
    const auto written = rule_for(name, *find_format("q4_0"));
    const auto ok = parse_rules(written + "," + rule_for("other", *find_format("q8_0")), "r", false, rules);
    ASSERT_TRUE(ok) << written << ": " << ok.error().message;
    ASSERT_EQ(rules.size(), 2u) << written;
    EXPECT_TRUE(*rules[0].pattern.found_in(name)) << written;
    EXPECT_FALSE(*rules[0].pattern.found_in(name + "x")) << written;
    EXPECT_EQ(rules[0].type->name, "q4_0") << written;
  }
  EXPECT_EQ(rule_for("blk.0.a", *find_format("q4_0")), "^blk\\.0\\.a$=q4_0");
}

class Explain : public ::testing::Test {
 protected:
  void SetUp() override {
    test::shape s;
    s.blocks = 2;
    test::write_model(dir / "in.gguf", test::deepseek2_metadata(s), test::deepseek2(s));
    o.in = dir / "in.gguf";
    std::ofstream(dir / "r.txt") << "# recipe\nattn_q_a=q8_0\nffn_(up|gate)=iq4_ks ffn_down=q6_K\n";
    o.rule_files = {(dir / "r.txt").string()};
  }
  std::string told() {
    ::testing::internal::CaptureStdout();
    const auto r = explain(o);
    const auto text = ::testing::internal::GetCapturedStdout();
    return r ? text : "error: " + r.error().message;
  }
  test::temporary_folder dir;
  run_options o;
};

TEST_F(Explain, TellsWhichRuleDecides) {
  const auto text = told();
  const auto has = [&](const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  };
  has("-> q8_0     by rule 'attn_q_a' (" + (dir / "r.txt").string() + ":2)");
  has("-> iq4_ks   by rule 'ffn_(up|gate)' (" + (dir / "r.txt").string() + ":3)");
  has("-> ?        by no rule: TYPE decides");
  has("-> f32      kept");
  has("--custom-q 'attn_q_a=q8_0,ffn_(up|gate)=iq4_ks,ffn_down=q6_K'");
  has("# llama.cpp 'ffn_(up|gate)': does not know iq4_ks");
  o.type = "Q4_K_M";
  EXPECT_NE(told().find("by the mix of Q4_K_M"), std::string::npos) << told();
  o.json = true;
  const auto document = json::parse(told());
  EXPECT_EQ(document["recipes"].size(), 3u);
  EXPECT_EQ(document["tensors"].size(), gguf::reader::open(o.in)->tensors().size());
  EXPECT_EQ(dir.names(), (std::vector<std::string>{"in.gguf", "r.txt"})) << "nothing is written";
}

/// What needs importance by the mix depends on whether there is any.
TEST_F(Explain, TellsThePlanOfARun) {
  o.type = "IQ2_XXS", o.required = "none", o.json = true;
  const auto types_of = [](const std::string& text) {
    std::map<std::string, std::string> out;
    const auto document = json::parse(text);
    for (const auto& t : document["tensors"]) out[t["name"]] = t["type"];
    return out;
  };
  imatrix::store statistics;
  imatrix::entry e(256, 1);
  e.sums.assign(256, 1.0), e.counts.assign(1, 512);
  statistics.entries["blk.1.attn_output.weight"] = e;
  ASSERT_TRUE(imatrix::save_gguf(statistics, dir / "i.gguf"));
  for (const char* imatrix : {"", "i.gguf"}) {
    o.imatrix = *imatrix ? (dir / imatrix).string() : "";
    auto p = o;
    p.out = dir / "out.gguf", p.dry_run = true, p.types = "all";
    ::testing::internal::CaptureStdout();
    const auto ran = run(p);
    const auto planned = ::testing::internal::GetCapturedStdout();
    ASSERT_TRUE(ran) << ran.error().message;
    const auto explained = told();
    EXPECT_EQ(types_of(explained), types_of(planned)) << imatrix;
    EXPECT_EQ(explained.find("own entry") != std::string::npos, *imatrix != 0) << explained;
  }
  o.imatrix = (dir / "none.gguf").string();
  EXPECT_NE(told().find("none.gguf"), std::string::npos);
}

TEST_F(Explain, MarksWhatNeedsAllowRequantize) {
  auto p = o;
  p.rule_files.clear(), p.type = "Q4_K_M", p.out = dir / "q.gguf", p.quiet = true;
  ASSERT_TRUE(run(p));
  o.in = p.out, o.type = "Q8_0";
  EXPECT_NE(told().find("by rule 'attn_q_a' (" + (dir / "r.txt").string() + ":2), needs --allow-requantize"),
            std::string::npos)
      << told();
  o.allow_requantize = true;
  EXPECT_EQ(told().find("needs --allow-requantize"), std::string::npos);
}

/// As --require-imatrix says; no rule and no type: nothing is decided that could need any.
TEST_F(Explain, MarksWhatNeedsAnImatrix) {
  std::ofstream(dir / "r.txt") << "attn_q_a=iq2_xxs ffn_down=q6_K\n";
  const auto marked = [&](const char* required) {
    o.required = required;
    const auto text = told();
    std::istringstream lines(text);
    std::map<std::string, std::size_t> n;
    for (std::string line; std::getline(lines, line);)
      if (line.find(", needs --imatrix") != line.npos) ++n[line.substr(line.find(" -> ") + 4, 7)];
    return n;
  };
  using counts = std::map<std::string, std::size_t>;
  EXPECT_TRUE(marked("none").empty());
  EXPECT_EQ(marked("lowbit"), (counts{{"iq2_xxs", 2}})) << told();
  EXPECT_EQ(marked("all"), (counts{{"iq2_xxs", 2}, {"q6_K   ", 3}})) << told();
  o.required = "lowbit", o.json = true;
  const auto document = json::parse(told());
  for (const auto& t : document["tensors"])
    EXPECT_EQ(t["needs_imatrix"], t["type"] == "iq2_xxs") << t["name"];
}

TEST_F(Explain, RefusesWhatOnlyARunDecides) {
  const auto refused = [&](const std::string& option, auto set) {
    const auto kept = o;
    set(o);
    EXPECT_EQ(told().find("error: --explain: " + option + " "), 0u) << told();
    o = kept;
  };
  refused("--lattice", [](run_options& r) { r.lattice = true; });
  refused("--target-bpw", [](run_options& r) { r.target_bpw = 4; });
  refused("--target-size", [](run_options& r) { r.target_size = 4; });
  refused("--target-types", [](run_options& r) { r.target_types = "q4_0"; });
  refused("--sensitivity", [](run_options& r) { r.sensitivity = "k.csv"; });
}

TEST_F(Explain, SaysWhatIsWrong) {
  o.rule_files = {(dir / "none.txt").string()};
  EXPECT_NE(told().find("none.txt"), std::string::npos);
  std::ofstream(dir / "r.txt") << "attn_q_a=q8_0\nnothing_like_it=q6_K\n";
  o.rule_files = {(dir / "r.txt").string()};
  EXPECT_NE(told().find("r.txt:2: rule 'nothing_like_it' matches no tensor"), std::string::npos) << told();
  std::ofstream(dir / "r.txt") << "# nothing\n";
  EXPECT_EQ(told(), "error: --explain: the recipe holds no rule");
}

TEST(MeasuredLosses, AreReadInBothLayouts) {
  for (const char* csv :
       {"tensor,type,value\na,q4_0,0.5\na,q8_0,\nb,q4_0,n/a\nb,q8_0,1%\n",
        "# mine\nkld, note, name, qtype\n0.5,x,a,Q4_0\n-,x,a,q8_0\n404,,b,q4_0\n+0.01,\"x, y\",\"b\",q8_0",
        "QTYPE,a,b\r\nq4_0,0.5,404%\r\nq8_0,nan,1e-2\r\n"}) {
    const auto m = parse_measured_losses(csv, "k.csv");
    ASSERT_TRUE(m) << m.error().message;
    EXPECT_EQ(m->of("a", q4_0::gguf_id), 0.5);
    EXPECT_EQ(m->of("a", q8_0::gguf_id), std::nullopt);
    EXPECT_EQ(m->of("b", q4_0::gguf_id), std::nullopt);
    EXPECT_EQ(m->of("b", q8_0::gguf_id), 0.01);
    EXPECT_EQ(m->of("c", q8_0::gguf_id), std::nullopt);
  }
  EXPECT_EQ(parse_measured_losses("\xef\xbb\xbftensor,type,value\na,q4_0,1", "k")->of("a", q4_0::gguf_id),
            1.0);
  EXPECT_EQ(parse_measured_losses("tensor,type,value\na,q4_0,-0.001", "k")->of("a", q4_0::gguf_id), 0.0);
}

TEST(MeasuredLosses, SayWhatIsWrong) {
  const auto message = [](const char* csv) {
    const auto m = parse_measured_losses(csv, "k.csv");
    return m ? std::string("none") : m.error().message;
  };
  EXPECT_EQ(message(""), "k.csv: holds no measurement");
  EXPECT_EQ(message("tensor,type,value\na,q4_0,-"), "k.csv: holds no measurement");
  EXPECT_EQ(message("a,q4_0,1").find("k.csv:1: expected a header"), 0u);
  EXPECT_EQ(message("tensor,tensor,type,value").find("k.csv:1: two columns 'tensor'"), 0u);
  EXPECT_EQ(message("tensor,type,value\n\na,q4_0"), "k.csv:3: 2 fields where the header has 3");
  EXPECT_EQ(message("tensor,type,value\na,q4_9,1").find("k.csv:2: unknown type 'q4_9'"), 0u);
  EXPECT_EQ(message("tensor,type,value\na,q4_0,1x").find("k.csv:2: tensor 'a', q4_0: '1x' is no number"), 0u);
  EXPECT_EQ(message("tensor,type,value\na,q4_0,inf").find("k.csv:2: tensor 'a', q4_0: 'inf' is no number"),
            0u);
  EXPECT_EQ(message("tensor,type,value\na,q4_0,1\na,Q4_0,2"),
            "k.csv:3: tensor 'a', Q4_0: line 2 has it, too");
  EXPECT_EQ(message("tensor,type,value\n,q4_0,1"), "k.csv:2: the tensor has no name");
  EXPECT_EQ(message("tensor,type,value\n\"a,q4_0,1"), "k.csv:2: a quote is not closed");
  EXPECT_EQ(message("tensor,type,value\n\"a\"b,q4_0,1"), "k.csv:2: text behind a closing quote");
}

/// The table decides where it has something to say.
TEST(MeasuredLosses, DecideAllocations) {
  test::temporary_folder dir;
  test::shape s;
  s.blocks = 2;
  test::write_model(dir / "in.gguf", test::deepseek2_metadata(s), test::deepseek2(s));
  run_options o;
  o.in = dir / "in.gguf", o.out = dir / "out.gguf", o.type = "Q4_K_M", o.target_bpw = 5.5, o.threads = 2;
  o.target_types = "q8_0,q4_0", o.json = true, o.sensitivity = (dir / "k.csv").string();
  const auto types = [&](const std::string& csv) {
    std::ofstream(dir / "k.csv") << csv;
    ::testing::internal::CaptureStdout();
    const auto done = run(o);
    const auto text = ::testing::internal::GetCapturedStdout();
    std::map<std::string, std::string> out;
    if (!done) return out[""] = done.error().message, out;
    const auto document = json::parse(text);
    for (const auto& t : document["tensors"]) out[t["name"]] = t["type"];
    return out;
  };
  const std::string up = "blk.1.ffn_up_exps.weight", down = "blk.1.ffn_down_exps.weight";
  const auto costs = [&](const std::string& more, const std::string& less) {
    return "tensor,type,value\n" + more + ",q4_0,1\n" + more + ",q8_0,0.001\n" + less + ",q4_0,0.0001\n" +
           less + ",q8_0,-\n";
  };
  auto got = types(costs(up, down));
  EXPECT_EQ(got[up], "q8_0") << got[""];
  EXPECT_EQ(got[down], "q4_0");
  got = types(costs(down, up));
  EXPECT_EQ(got[up], "q4_0");
  EXPECT_EQ(got[down], "q8_0");
  got = types("tensor,type,value\nblk.9.x.weight,q4_0,1\n");
  EXPECT_NE(got[""].find("--sensitivity: no tensor of"), std::string::npos) << got[""];
  got = types("tensor,type\n");
  EXPECT_NE(got[""].find("k.csv:1: expected a header"), std::string::npos) << got[""];
  // No loss in one type does not make the others free: what can be paid is taken.
  o.target_bpw = 12;
  for (const std::string more : {"", "blk.1.ffn_gate_exps.weight,q4_0,1\n"}) {
    got = types("tensor,type,value\n" + up + ",q8_0,-0.001\n" + down + ",q8_0,0\n" + more);
    EXPECT_EQ(got.count(""), 0u) << got[""];
    EXPECT_EQ(got[up], "q8_0") << more;
    EXPECT_EQ(got[down], "q8_0") << more;
  }
}

}  // namespace
}  // namespace quantal::plan
