// Types for a size: the solver against exhaustive search, and the whole allocation.
#include "allocate.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "json.hpp"
#include "quantal/gguf/reader.hpp"
#include "run.hpp"
#include "synthetic.hpp"

namespace quantal::plan {
namespace {

double loss_of(const std::vector<std::vector<choice_of_type>>& t, const std::vector<std::size_t>& taken) {
  double sum = 0;
  for (std::size_t i = 0; i < t.size(); ++i) sum += t[i][taken[i]].loss;
  return sum;
}
std::uint64_t bytes_of(const std::vector<std::vector<choice_of_type>>& t,
                       const std::vector<std::size_t>& taken) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < t.size(); ++i) sum += t[i][taken[i]].bytes;
  return sum;
}

/// The least loss of all combinations within the budget.
double best_of(const std::vector<std::vector<choice_of_type>>& t, std::uint64_t budget, std::size_t at = 0,
               std::uint64_t bytes = 0, double loss = 0) {
  if (bytes > budget) return INFINITY;
  if (at == t.size()) return loss;
  double best = INFINITY;
  for (const auto& c : t[at])
    best = std::min(best, best_of(t, budget, at + 1, bytes + c.bytes, loss + c.loss));
  return best;
}

TEST(Solve, IsNearTheBestOfAllCombinations) {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::vector<choice_of_type>> t(7);
    for (auto& choices : t) {
      const double size = 100 + random() % 1000, weight = 1 + random() % 20;
      for (const double bpw : {2.0, 3.0, 4.5, 6.5})
        choices.push_back({nullptr, static_cast<std::uint64_t>(size * bpw), weight * std::pow(4.0, -bpw)});
    }
    std::uint64_t least = 0, most = 0;
    for (const auto& c : t) least += c.front().bytes, most += c.back().bytes;
    const std::uint64_t budget = least + random() % (most - least);
    const auto taken = solve(t, budget);
    ASSERT_EQ(taken.size(), t.size());
    EXPECT_LE(bytes_of(t, taken), budget);
    EXPECT_LE(loss_of(t, taken), 1.35 * best_of(t, budget) + 1e-12) << round;
  }
}

TEST(Solve, IsTheBestOfAllCombinationsByteForByte) {
  std::mt19937 random(2);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::vector<choice_of_type>> t(5);
    std::uint64_t least = 0, most = 0;
    for (auto& choices : t) {
      for (int k = 0; k < 4; ++k)
        choices.push_back(
            {nullptr, 32 * (10 + random() % 100) + random() % 3, static_cast<double>(1 + random() % 1000)});
      std::sort(choices.begin(), choices.end(),
                [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
      least += choices.front().bytes, most += choices.back().bytes;
    }
    const std::uint64_t budget = least + random() % (most - least + 1);
    const auto taken = solve(t, budget);
    ASSERT_EQ(taken.size(), t.size());
    EXPECT_LE(bytes_of(t, taken), budget);
    EXPECT_DOUBLE_EQ(loss_of(t, taken), best_of(t, budget)) << round;
  }
}

TEST(Solve, ManyLargeTensorsFitToo) {
  std::vector<std::vector<choice_of_type>> t(2000);
  std::uint64_t least = 0;
  for (std::size_t i = 0; i < t.size(); ++i) {
    const std::uint64_t size = 1'000'003 + 7919 * (i % 101);
    for (const double bits : {2.0, 3.0, 4.5})
      t[i].push_back(
          {nullptr, static_cast<std::uint64_t>(static_cast<double>(size) * bits), std::exp2(-bits)});
    least += t[i].front().bytes;
  }
  const std::uint64_t budget = least + 1'000'000'001;
  const auto taken = solve(t, budget);
  ASSERT_EQ(taken.size(), t.size());
  EXPECT_LE(bytes_of(t, taken), budget);
  EXPECT_GE(bytes_of(t, taken), budget - 1'000'003);
}

TEST(Solve, TakesTheBestThereIsIfItFits) {
  const std::vector<std::vector<choice_of_type>> t{{{nullptr, 10, 1.0}, {nullptr, 20, 0.1}},
                                                   {{nullptr, 5, 0.5}}};
  EXPECT_EQ(solve(t, 25), (std::vector<std::size_t>{1, 0}));
  EXPECT_EQ(solve(t, 24), (std::vector<std::size_t>{0, 0}));
  EXPECT_TRUE(solve(t, 14).empty());
}

TEST(Sensitivities, SayWhatIsWrong) {
  EXPECT_TRUE(
      parse_sensitivities(R"({"classes": [{"tensors": "a", "kld_per_nmse": 0.5, "count": 3}]})", "s"));
  for (const char* text :
       {"", "{}", R"({"classes": []})", R"({"classes": [1]})", R"({"classes": [{"tensors": "a"}]})",
        R"({"classes": [{"tensors": "(", "kld_per_nmse": 1}]})",
        R"({"classes": [{"tensors": "a", "kld_per_nmse": -1}]})"}) {
    const auto r = parse_sensitivities(text, "s.json");
    ASSERT_FALSE(r) << text;
    EXPECT_EQ(r.error().message.find("s.json: "), 0u) << r.error().message;
  }
}

class Allocate : public ::testing::Test {
 protected:
  void SetUp() override {
    test::shape s;
    s.blocks = 2, s.experts = 1;
    test::write_model(dir / "in.gguf", test::deepseek2_metadata(s), test::deepseek2(s));
    o.in = dir / "in.gguf", o.out = dir / "out.gguf", o.type = "Q4_K_M", o.target_bpw = 5,
    o.target_types = "q8_0,q4_0,q2_K,q6_K";
    o.json = true, o.threads = 2;
  }
  double bpw_of_output() {
    const auto r = gguf::reader::open(o.out);
    EXPECT_TRUE(r);
    double bytes = 0, elements = 0;
    for (const auto& t : r->tensors())
      bytes += static_cast<double>(t.nbytes), elements += static_cast<double>(t.elements());
    return 8 * bytes / elements;
  }
  result<void> quiet_run() {
    ::testing::internal::CaptureStdout();
    auto r = run(o);
    text = ::testing::internal::GetCapturedStdout();
    return r;
  }
  test::temporary_folder dir;
  run_options o;
  std::string text;
};

TEST_F(Allocate, MeetsTheSize) {
  for (const double bpw : {3.5, 6.0}) {
    o.target_bpw = bpw;
    const auto r = quiet_run();
    ASSERT_TRUE(r) << r.error().message;
    EXPECT_LE(bpw_of_output(), bpw);
    EXPECT_GE(bpw_of_output(), bpw - 0.25);
  }
}

TEST_F(Allocate, AnOutputHasAtMostTheBytesAskedFor) {
  o.target_bpw = 0;
  for (const std::uint64_t bytes : {1'500'000u, 1'234'567u}) {
    o.target_size = bytes;
    const auto r = quiet_run();
    ASSERT_TRUE(r) << r.error().message;
    EXPECT_LE(std::filesystem::file_size(o.out), bytes);
    EXPECT_GE(std::filesystem::file_size(o.out), bytes - 20'000);
  }
  o.target_size = 1000, o.out = dir / "none.gguf";
  const auto r = quiet_run();
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("--target-size 1000 cannot be reached: the smallest types give"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(o.out));
}

TEST_F(Allocate, TheRulesGiveTheSameModel) {
  ASSERT_TRUE(quiet_run());
  const auto first = json::parse(text);
  const auto rules = first["custom_q"].get<std::string>();
  o.target_bpw = 0;
  o.rules = {rules};
  ASSERT_TRUE(quiet_run());
  const auto second = json::parse(text);
  for (std::size_t i = 0; i < first["tensors"].size(); ++i)
    EXPECT_EQ(first["tensors"][i]["type"], second["tensors"][i]["type"]) << first["tensors"][i]["name"];
}

TEST_F(Allocate, UsersRulesWinAndCount) {
  o.rules = {"attn_v_b=q8_0"};
  o.output_type = "q8_0";
  ASSERT_TRUE(quiet_run());
  const auto document = json::parse(text);
  for (const auto& t : document["tensors"]) {
    const auto name = t["name"].get<std::string>();
    if (name == "output.weight" || name.find("attn_v_b") != std::string::npos) {
      EXPECT_EQ(t["type"], "q8_0") << name;
    }
  }
  EXPECT_LE(bpw_of_output(), 5);
}

TEST_F(Allocate, SensitiveTensorsGetMore) {
  std::ofstream(dir / "s.json")
      << R"({"classes": [{"tensors": "ffn_down", "kld_per_nmse": 1000}, {"tensors": ".", "kld_per_nmse": 1}]})";
  o.sensitivity = (dir / "s.json").string();
  ASSERT_TRUE(quiet_run());
  double down = 0, up = 0;
  const auto document = json::parse(text);
  for (const auto& t : document["tensors"]) {
    const auto name = t["name"].get<std::string>();
    if (name == "blk.1.ffn_down_exps.weight") down = t["bytes"].get<double>();
    if (name == "blk.1.ffn_up_exps.weight") up = t["bytes"].get<double>();
  }
  EXPECT_GT(down, up);
}

TEST_F(Allocate, SaysWhatIsWrong) {
  const auto fails_with = [&](const char* part) {
    const auto r = quiet_run();
    ASSERT_FALSE(r);
    EXPECT_NE(r.error().message.find(part), std::string::npos) << r.error().message;
    EXPECT_FALSE(std::filesystem::exists(o.out));
  };
  o.target_bpw = 1;
  fails_with("--target-bpw 1 cannot be reached: the smallest types give");
  o.target_bpw = 5, o.target_types = "q4_0,nope";
  fails_with("--target-types: unknown type 'nope'");
  o.target_types = "q2_K";
  fails_with("no candidate type fits its 128 columns");
  o.target_types = "", o.sensitivity = (dir / "none.json").string();
  fails_with("none.json");
}

}  // namespace
}  // namespace quantal::plan
