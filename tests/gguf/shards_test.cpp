// The shards of a model become visible together or not at all, and what they would replace is never lost.
#include <gtest/gtest.h>

#include "quantal/gguf/writer.hpp"
#include "small_file.hpp"
#include "support/temp_dir.hpp"

namespace quantal::test {
namespace {

class Shards : public ::testing::Test {
 protected:
  std::filesystem::path path(int i) const { return dir / ("m-0000" + std::to_string(i) + "-of-00003.gguf"); }
  /// Three complete shards, invisible so far.
  std::vector<gguf::writer> written() const {
    std::vector<gguf::writer> out;
    for (int i = 1; i <= 3; ++i) {
      auto w = gguf::writer::create(path(i), every_type(), {{"t", f32::gguf_id, 1, {4, 1, 1, 1}}});
      EXPECT_TRUE(w) << w.error().message;
      EXPECT_TRUE(w->append(std::vector<std::byte>(16)));
      out.push_back(std::move(*w));
    }
    return out;
  }
  void expect_failure(const char* part) {
    auto shards = written();
    // Nobody could know of it when the files were opened.
    std::filesystem::create_directory(path(3));
    const auto done = gguf::writer::finish_all(shards);
    ASSERT_FALSE(done);
    EXPECT_NE(done.error().message.find(part), std::string::npos) << done.error().message;
    shards.clear();
    std::filesystem::remove(path(3));
  }

  temp_dir dir;
};

TEST_F(Shards, AppearTogether) {
  write_file(path(2), "old");
  auto shards = written();
  for (const int i : {1, 3}) EXPECT_FALSE(std::filesystem::exists(path(i))) << i;
  const auto done = gguf::writer::finish_all(shards);
  ASSERT_TRUE(done) << done.error().message;
  for (int i = 1; i <= 3; ++i) EXPECT_TRUE(gguf::reader::open(path(i))) << i;
  EXPECT_EQ(dir.files(), 3u);
}

TEST_F(Shards, LeaveWhatTheyWouldReplace) {
  write_file(path(1), "old 1");
  write_file(path(2), "old 2");
  expect_failure("m-00003-of-00003.gguf: is a folder");
  EXPECT_EQ(read_file(path(1)), "old 1");
  EXPECT_EQ(read_file(path(2)), "old 2");
  EXPECT_EQ(dir.files(), 2u);
}

TEST_F(Shards, LeaveNothingWhereNothingWas) {
  write_file(path(2), "old 2");
  expect_failure("is a folder");
  EXPECT_FALSE(std::filesystem::exists(path(1)));
  EXPECT_EQ(read_file(path(2)), "old 2");
  EXPECT_EQ(dir.files(), 1u);
}

TEST_F(Shards, AnIncompleteOneStopsAll) {
  write_file(path(1), "old 1");
  auto shards = written();
  auto w = gguf::writer::create(path(3), every_type(), {{"t", f32::gguf_id, 1, {4, 1, 1, 1}}});
  shards.back() = std::move(*w);
  EXPECT_FALSE(gguf::writer::finish_all(shards));
  EXPECT_EQ(read_file(path(1)), "old 1");
}

/// The second name of a replaced file is taken: perhaps by something that an earlier process kept.
TEST_F(Shards, OverwriteNothingElse) {
  const auto taken = path(2).string() + ".old." + std::to_string(::getpid());
  write_file(path(1), "old 1");
  write_file(path(2), "old 2");
  write_file(taken, "kept");
  auto shards = written();
  const auto done = gguf::writer::finish_all(shards);
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find("cannot be kept as"), std::string::npos) << done.error().message;
  shards.clear();
  EXPECT_EQ(read_file(path(1)), "old 1");
  EXPECT_EQ(read_file(path(2)), "old 2");
  EXPECT_EQ(read_file(taken), "kept");
  EXPECT_EQ(dir.files(), 3u);
}

}  // namespace
}  // namespace quantal::test
