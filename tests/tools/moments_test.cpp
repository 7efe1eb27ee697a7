// quantal-quantize --hessian below its command line: what every tensor gets, known before anything is written; bad files of second moments.
#include <gtest/gtest.h>

#include <limits>

#include "file.hpp"
#include "json.hpp"
#include "moments_plan.hpp"
#include "moments_report.hpp"
#include "output_aware.hpp"
#include "quantal/gguf/reader.hpp"
#include "run.hpp"
#include "synthetic.hpp"

namespace quantal::plan {
namespace {

/// Moments of inputs whose neighbours are correlated.
imatrix::moments correlated(std::int64_t cols, std::int64_t slices, double count = 5000) {
  imatrix::moments m(cols, slices);
  for (auto* part : {&m.sums, &m.held_out}) {
    const double n = part == &m.sums ? count : count / 10;
    auto v = part->begin();
    for (std::int64_t s = 0; s < slices; ++s)
      for (std::int64_t i = 0; i < cols; ++i)
        for (std::int64_t j = 0; j <= i; ++j)
          *v++ = static_cast<float>(n * std::pow(0.9, static_cast<double>(i - j)));
  }
  for (auto& c : m.counts) c = count;
  for (auto& c : m.held_counts) c = count / 10;
  return m;
}

imatrix::moments_store moments_for(const std::vector<gguf::tensor_info>& tensors) {
  imatrix::moments_store s;
  for (const auto& t : tensors) {
    if (!t.name.starts_with("blk.") || t.rows() == 1) continue;
    if (t.name.find("_up") != std::string::npos)
      s.same[t.name] = std::string(t.name).replace(t.name.find("_up"), 3, "_gate");
    else
      s.entries[t.name] = correlated(t.cols(), t.slices());
  }
  return s;
}

class quantizing_with_moments : public ::testing::Test {
 protected:
  void SetUp() override {
    test::shape s;
    s.blocks = 2;
    tensors = test::deepseek2(s);
    test::write_model(dir / "in.gguf", test::deepseek2_metadata(s), tensors);
    store = moments_for(tensors);
    o.in = dir / "in.gguf", o.out = dir / "out.gguf", o.type = "Q4_0", o.pure = true, o.threads = 2,
    o.json = true, o.hessian = (dir / "moments.gguf").string();
  }
  void save() {
    const auto saved = imatrix::save_moments(store, o.hessian);
    ASSERT_TRUE(saved) << saved.error().message;
  }
  /// Runs with stdout captured; empty or the message.
  std::string failure() {
    ::testing::internal::CaptureStdout();
    const auto r = run(o);
    printed = ::testing::internal::GetCapturedStdout();
    return r ? "" : r.error().message;
  }
  void expect_failure(std::initializer_list<const char*> parts) {
    const auto before = dir.names();
    const auto message = failure();
    for (const char* part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << part << "\n" << message;
    EXPECT_EQ(dir.names(), before) << "nothing may stay behind";
  }
  json of(const std::string& tensor) {
    const auto document = json::parse(printed);
    for (const auto& t : document["tensors"])
      if (t["name"] == tensor) return t;
    ADD_FAILURE() << tensor;
    return {};
  }
  test::temporary_folder dir;
  std::vector<gguf::tensor_info> tensors;
  imatrix::moments_store store;
  run_options o;
  std::string printed;
};

TEST_F(quantizing_with_moments, says_what_every_tensor_gets) {
  store.entries["blk.1.ffn_down_exps.weight"] = correlated(256, 1);
  store.entries["blk.1.ffn_gate_exps.weight"].counts[1] = 0;
  store.entries.erase("blk.0.attn_output.weight");
  save();
  o.dry_run = true;
  ASSERT_EQ(failure(), "");
  const auto own = of("blk.0.attn_q_b.weight")["moments"];
  EXPECT_EQ(own["source"], "own");
  EXPECT_EQ(own["inputs"], 5000);
  EXPECT_EQ(own["held_out"], 500);
  EXPECT_EQ(of("blk.0.ffn_up.weight")["moments"]["detail"], "blk.0.ffn_gate.weight");
  EXPECT_TRUE(of("blk.1.ffn_down_exps.weight")["moments"]["pooled"]);
  EXPECT_EQ(of("blk.1.ffn_gate_exps.weight")["moments"]["unseen"], 1);
  EXPECT_EQ(of("blk.0.attn_output.weight")["moments"]["source"], "none");
  EXPECT_FALSE(of("output_norm.weight").contains("moments"));
  o.json = false;
  ASSERT_EQ(failure(), "");
  for (const char* line :
       {"blk.0.attn_q_b.weight - own, 5000 inputs, 500 held out",
        "blk.0.ffn_up.weight - those of blk.0.ffn_gate.weight, 5000 inputs, 500 held out",
        "blk.1.ffn_down_exps.weight - own, pooled, 5000 inputs, 500 held out",
        "blk.1.ffn_gate_exps.weight - own, 2 slices of 0 to 5000 inputs (1 without any: plain codes)",
        "blk.0.attn_output.weight - no second moments: plain codes"})
    EXPECT_NE(printed.find(line), std::string::npos) << line << "\n" << printed;
  EXPECT_FALSE(std::filesystem::exists(o.out));
}

/// As the imatrix is: who has the file knows that a quantizer made it.
TEST_F(quantizing_with_moments, are_named_in_the_output) {
  save();
  ASSERT_EQ(failure(), "");
  const auto named = [&] { return gguf::reader::open(o.out)->meta().string("quantize.hessian.file"); };
  ASSERT_TRUE(named());
  EXPECT_EQ(*named(), o.hessian.substr(0, 127));
  o.hessian.clear();
  ASSERT_EQ(failure(), "");
  EXPECT_FALSE(named());
}

TEST_F(quantizing_with_moments, reports_error_and_time) {
  save();
  ASSERT_EQ(failure(), "");
  const auto t = of("blk.1.ffn_down_exps.weight");
  EXPECT_TRUE(t["output"]["accepted"]);
  EXPECT_LT(t["output"]["chosen_nmse"], t["output"]["plain_nmse"]);
  EXPECT_GT(t["seconds"].get<double>(), 0);
}

TEST_F(quantizing_with_moments, data_that_does_not_fit_is_refused) {
  const auto good = store;
  const auto refuse = [&](const char* tensor, imatrix::moments m) {
    store = good;
    store.entries[tensor] = std::move(m);
    save();
    expect_failure({"moments.gguf", tensor, "do not fit"});
  };
  refuse("blk.0.attn_q_b.weight", correlated(128, 1));
  refuse("blk.0.attn_q_b.weight", correlated(256, 2));
  refuse("blk.1.ffn_down_exps.weight", correlated(256, 4));  // of a model with more experts
  store = {};
  store.entries["blk.7.attn_q_b.weight"] = correlated(256, 1);
  save();
  expect_failure({"moments.gguf", "in.gguf", "another model"});
}

TEST_F(quantizing_with_moments, damaged_files_are_refused) {
  const auto good = store;
  store.entries["blk.0.attn_q_b.weight"].sums[700] = std::numeric_limits<float>::quiet_NaN();
  save();
  expect_failure({"moments.gguf", "blk.0.attn_q_b.weight", "not finite"});
  store = good;
  store.entries["blk.0.attn_q_b.weight"].counts[0] = -1;
  save();
  expect_failure({"moments.gguf", "blk.0.attn_q_b.weight", "negative"});
  store = good;
  save();
  const auto whole = *file::read_text(o.hessian);
  ASSERT_TRUE(file::write(o.hessian, std::string_view(whole).substr(0, whole.size() - 100)));
  expect_failure({"moments.gguf"});
  ASSERT_TRUE(file::write(o.hessian, std::string_view(whole).substr(0, 100)));
  expect_failure({"moments.gguf"});
}

TEST_F(quantizing_with_moments, a_check_finds_the_gaps) {
  store.entries.erase("blk.0.attn_output.weight");
  save();
  const auto file = imatrix::moments_file::open(o.hessian);
  const auto model = gguf::reader::open(o.in);
  ASSERT_TRUE(file && model);
  const auto rows = mla::check_moments(*file, *model);
  ASSERT_TRUE(rows) << rows.error().message;
  for (const auto& r : *rows) EXPECT_EQ(r.gap(), r.name == "blk.0.attn_output.weight") << r.name;
}

TEST_F(quantizing_with_moments, an_allocation_follows_what_output_aware_codes_gain) {
  store.entries.erase("blk.1.ffn_down_exps.weight");  // of equal shape as gate, but its codes gain nothing
  save();
  o.target_types = "q8_0,q4_0,q2_K,q3_K,q6_K,iq4_nl", o.dry_run = true;
  const std::string moments = o.hessian;
  int with = 0, without = 0;  // what ffn_down gets more than ffn_gate
  for (const double bpw : {3.0, 4.0, 5.0})
    for (const bool aware : {true, false}) {
      o.target_bpw = bpw, o.hessian = aware ? moments : "";
      ASSERT_EQ(failure(), "");
      (aware ? with : without) += of("blk.1.ffn_down_exps.weight")["bytes"].get<int>() -
                                  of("blk.1.ffn_gate_exps.weight")["bytes"].get<int>();
    }
  EXPECT_GT(with, without);
}

TEST(moments_statistics, follow_their_definitions) {
  imatrix::moments m(4, 1);
  m.sums = {8, 0, 8, 0, 0, 8, 0, 0, 8, 8};  // 8 I and an 8 between the last two
  m.counts = {2}, m.held_counts = {1};
  m.mean = {1, 0, 0, 0};
  const auto s = mla::statistics_of("t", m);
  EXPECT_EQ(s.inputs, 2);
  EXPECT_DOUBLE_EQ(s.off_diagonal, 2.0 / 6);
  EXPECT_DOUBLE_EQ(s.effective_rank, 32.0 * 32 / (6 * 64));
  EXPECT_DOUBLE_EQ(s.mean_share, 2.0 / 32);
  EXPECT_DOUBLE_EQ(s.kept, kept_share(2, 4));
  m.counts = {0};
  EXPECT_EQ(mla::statistics_of("t", m).effective_rank, 0);
}

}  // namespace
}  // namespace quantal::plan
