// No output is an input, by whatever name.
#include "file_plan.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.hpp"
#include "shard_name.hpp"
#include "synthetic.hpp"

namespace quantal {
namespace {

namespace fs = std::filesystem;

class FilePlan : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name :
         {"in", "m-00001-of-00003.gguf", "m-00003-of-00003.gguf", "hf/model.safetensors", "hf/old.gguf"}) {
      fs::create_directories((dir / name).parent_path());
      ASSERT_TRUE(file::write(dir / name, "data"));
    }
  }
  static std::string message(const file_plan& p) {
    const auto r = p.check();
    return r ? "" : r.error().message;
  }
  std::string with_output(const fs::path& out) {
    file_plan p;
    p.input("IN", dir / "in")
        .input("-m", dir / "m-00001-of-00003.gguf")
        .input("HF_DIR", dir / "hf")
        .input("--none", "");
    return message(p.output("OUT", out));
  }

  test::temporary_folder dir;
};

TEST_F(FilePlan, InputsByEveryName) {
  fs::create_symlink("in", dir / "symbolic");
  fs::create_hard_link(dir / "in", dir / "hard");
  fs::create_directory_symlink(".", dir / "around");
  for (const auto& out :
       {dir / "in", dir.path() / "." / "in", dir.path() / "hf" / ".." / "in", dir / "symbolic", dir / "hard",
        dir.path() / "around" / "in", dir / "m-00001-of-00003.gguf", dir / "m-00003-of-00003.gguf",
        dir.path() / "hf" / "model.safetensors"})
    EXPECT_NE(with_output(out).find("OUT: " + out.string() + ": is the input "), std::string::npos)
        << out << with_output(out);
  EXPECT_EQ(with_output(dir / "new"), "");
  EXPECT_EQ(with_output(dir.path() / "hf" / "old.gguf"), "") << "an earlier result, which no converter reads";
  EXPECT_EQ(with_output("/dev/null"), "");
  EXPECT_NE(with_output(dir.path() / "none" / "new").find("cannot create"), std::string::npos);
  EXPECT_EQ(*file::read_text(dir / "in"), "data");
}

TEST_F(FilePlan, OutputsDiffer) {
  fs::create_symlink("later", dir / "link");
  const auto two = [&](const fs::path& a, const fs::path& b) {
    return message(file_plan().output("-a", a).output("-b", b));
  };
  EXPECT_NE(two(dir / "new", dir.path() / "hf" / ".." / "new").find("is also the output -a"),
            std::string::npos);
  EXPECT_NE(two(dir / "later", dir / "link").find("is also the output -a"), std::string::npos);
  EXPECT_NE(two(dir / "in", dir / "in").find("is also the output -a"), std::string::npos);
  EXPECT_EQ(two(dir / "new", dir / "other"), "");
  EXPECT_EQ(two("/dev/null", "/dev/null"), "");
}

/// Standard output redirected into a file of the command line.
TEST_F(FilePlan, RedirectedOutput) {
  const auto redirected = [&](const fs::path& to, const file_plan& plan) {
    std::fflush(stdout);
    const int saved = ::dup(1), fd = ::open(to.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(fd, 1);
    const auto m = message(plan);
    ::dup2(saved, 1);
    ::close(saved), ::close(fd);
    return m;
  };
  EXPECT_NE(redirected(dir / "in", file_plan().input("IN", dir / "in")).find("is also what standard output"),
            std::string::npos);
  EXPECT_NE(
      redirected(dir / "log", file_plan().output("OUT", dir / "log").prints()).find("is standard output"),
      std::string::npos);
  EXPECT_NE(
      redirected(dir / "log", file_plan().output("OUT", "/dev/stdout").prints()).find("is standard output"),
      std::string::npos);
  EXPECT_EQ(redirected(dir / "log", file_plan().output("OUT", "/dev/stdout")), "");
  EXPECT_EQ(redirected("/dev/null", file_plan().output("OUT", "/dev/null").prints()), "");
}

TEST(ShardName, Parsing) {
  const auto s = parse_shard_name("a/b-00002-of-00010.gguf");
  ASSERT_TRUE(s);
  EXPECT_EQ(s->prefix, "a/b");
  EXPECT_EQ(s->number, 2);
  EXPECT_EQ(s->count, 10);
  EXPECT_EQ(shard_files("p", 2)[1], "p-00002-of-00002.gguf");
  for (const char* other : {"a.gguf", "a-1-of-2.gguf", "a-00003-of-00002.gguf", "a-00000-of-00002.gguf",
                            "a-00001-of-00002.bin", "", "-of-00002.gguf", "a-00001-of-99999999999999.gguf"})
    EXPECT_FALSE(parse_shard_name(other)) << other;
}

}  // namespace
}  // namespace quantal
