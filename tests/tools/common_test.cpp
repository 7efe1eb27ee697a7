#include <gtest/gtest.h>

#include <cstdlib>
#include <limits>

#include "file.hpp"
#include "json.hpp"
#include "pattern.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "text.hpp"

namespace quantal {
namespace {

namespace fs = std::filesystem;

class common_files : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::path(::testing::TempDir()) / ("quantal_common_" + std::to_string(::getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  fs::path dir_;
};

TEST_F(common_files, raw_round_trip) {
  const std::vector<float> v{1.0f, -2.5f, 3.25f};
  ASSERT_TRUE(file::write_raw(dir_ / "v.f32", v));
  const auto back = file::read_raw<float>(dir_ / "v.f32");
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, v);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), fs::directory_iterator{}), 1) << "no temporary stays";
}

TEST_F(common_files, errors_name_the_file) {
  EXPECT_NE(
      file::read_raw<float>(dir_ / "none").error().message.find((dir_ / "none").string() + ": cannot open"),
      std::string::npos);
  ASSERT_TRUE(file::write(dir_ / "odd", "12345"));
  EXPECT_NE(
      file::read_raw<float>(dir_ / "odd").error().message.find("5 bytes are not a whole number of 4-byte"),
      std::string::npos);
  EXPECT_NE(file::write(dir_ / "no" / "folder", "x").error().message.find("cannot create"),
            std::string::npos);
  EXPECT_FALSE(file::read_text(dir_)) << "a folder is no file";
}

TEST_F(common_files, empty_text) {
  ASSERT_TRUE(file::write(dir_ / "empty", ""));
  EXPECT_EQ(*file::read_text(dir_ / "empty"), "");
}

TEST(text, sizes_and_times) {
  EXPECT_EQ(text::human_size(0), "0 B");
  EXPECT_EQ(text::human_size(1023), "1023 B");
  EXPECT_EQ(text::human_size(1536), "1.50 KiB");
  EXPECT_EQ(text::human_size(std::uint64_t{3} << 30), "3.00 GiB");
  EXPECT_EQ(text::human_time(1.5), "1.500 s");
  EXPECT_EQ(text::human_time(185), "3m05s");
  EXPECT_EQ(text::human_time(3725), "1h02m");
}

TEST(text, strings) {
  EXPECT_EQ(text::lower("Q4_K_M"), "q4_k_m");
  EXPECT_EQ(text::trim("  a b\t\r\n"), "a b");
  EXPECT_EQ(text::trim(" \n"), "");
  EXPECT_EQ(text::printable("a\x1b[31m\n"), "a?[31m?");
  EXPECT_EQ(text::thread_count(3), 3);
  EXPECT_GE(text::thread_count(), 1);
}

TEST(progress, line_has_share_and_remaining_time) {
  const progress p("load", 200, false);
  EXPECT_EQ(p.line(0, 0, ""), "load [........................]   0.0%");
  EXPECT_EQ(p.line(100, 10, "x"), "load [############............]  50.0%  eta 10.000 s  x");
  EXPECT_EQ(p.line(200, 20, ""), "load [########################] 100.0%");
  EXPECT_EQ(p.line(900, 20, ""), "load [########################] 100.0%");
}

TEST(json_output, non_finite_numbers_are_null) {
  EXPECT_EQ(json_number(std::numeric_limits<double>::quiet_NaN()).dump(), "null");
  EXPECT_EQ(json_number(2.5).dump(), "2.5");
}

TEST(Pattern, SearchesAsEcmaScriptDoes) {
  const struct {
    const char *pattern, *name;
    bool found;
  } cases[] = {{"ffn_(?:up|down)", "blk.0.ffn_up.weight", true},
               {"ffn_(up|down)_exps", "blk.0.ffn_up.weight", false},
               {"^attn", "blk.0.attn_q.weight", false},
               {"blk\\.[0-9]{1,2}\\.attn_[qk]\\.weight$", "blk.12.attn_k.weight", true},
               {"weight$", "a.weight\n", false},
               {"\\u0061b", "ab", true},
               {"[^]", "x", true},
               {"(a)|\\1b", "b", true},
               {"BLK", "blk.0", false},
               {"", "", true}};
  for (const auto& c : cases) EXPECT_EQ(*pattern::compile(c.pattern)->found_in(c.name), c.found) << c.pattern;
}

TEST(Pattern, StepsAreBounded) {
  const std::string name = "blk.10.ffn_gate_exps.weight";
  for (const char* endless : {"(.*)*(.*)*(.*)*x_", "(a|a)*(a|a)*(.|.)*x_", "(\\w+\\w*.?)+x_", "((.*)*)*x_"}) {
    const auto found = pattern::compile(endless)->found_in(name);
    ASSERT_FALSE(found) << endless;
    EXPECT_NE(found.error().message.find("too many steps"), std::string::npos) << found.error().message;
  }
  // The standard library's matcher goes one call deeper for every character.
  EXPECT_FALSE(*pattern::compile("^(?:a|b)*c$")->found_in(std::string(20'000, 'b')));
  EXPECT_TRUE(*pattern::compile(".*.*.*weight")->found_in(name));
}

TEST(Pattern, BadOnesSayWhy) {
  for (const auto& [bad, why] : {std::pair{std::string(1001, 'a'), "longer than 1000"},
                                 {std::string("(a)\\44444444444444444444444"), "bad regular expression"},
                                 {std::string("a{99999999999999999999}"), "bad regular expression"},
                                 {std::string("(a"), "at character 2"},
                                 {std::string(500, '(') + std::string(500, ')'), "bad regular expression"},
                                 {std::string("((a{999}){999}){999}"), "bad regular expression"}}) {
    const auto r = pattern::compile(bad);
    ASSERT_FALSE(r) << bad;
    EXPECT_NE(r.error().message.find(why), std::string::npos) << r.error().message;
  }
}

}  // namespace
}  // namespace quantal
