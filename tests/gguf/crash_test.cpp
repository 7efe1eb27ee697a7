// A process that dies while it writes leaves the old file as it was.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "small_file.hpp"

namespace quantal::test {
namespace {

/// Forks a child that writes `parts` of ten parts of the tensor data over `path` and then kills itself.
void die_writing(const std::filesystem::path& path, int parts) {
  const pid_t child = ::fork();
  if (child == 0) {
    auto w = gguf::writer::create(path, every_type(), some_tensors());
    if (!w) ::_exit(3);
    std::string all;
    for (const auto& t : some_tensors()) all += tensor_bytes_of(t);
    const std::size_t n = all.size() * static_cast<std::size_t>(parts) / 10;
    // One tensor at a time, as the writer wants it.
    std::size_t at = 0;
    for (const auto& t : some_tensors()) {
      const std::string bytes = tensor_bytes_of(t);
      const std::size_t take = std::min(bytes.size(), n - at);
      if (take && !w->append(std::as_bytes(std::span(bytes.data(), take)))) ::_exit(3);
      if ((at += take) >= n) break;
    }
    ::kill(::getpid(), SIGKILL);
  }
  ASSERT_GT(child, 0);
  int state = 0;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  ASSERT_TRUE(WIFSIGNALED(state) && WTERMSIG(state) == SIGKILL);
}

TEST(GgufWriterCrash, TheOldFileStaysWhole) {
  temp_dir dir;
  write_small(dir / "a.gguf");
  const std::string before = read_file(dir / "a.gguf");
  for (const int parts : {0, 3, 10}) {
    die_writing(dir / "a.gguf", parts);
    EXPECT_EQ(read_file(dir / "a.gguf"), before) << parts;
    EXPECT_TRUE(gguf::reader::open(dir / "a.gguf")) << parts;
  }
}

TEST(GgufWriterCrash, NoFileAppearsHalfWritten) {
  temp_dir dir;
  die_writing(dir / "new.gguf", 5);
  EXPECT_FALSE(std::filesystem::exists(dir / "new.gguf"));
}

}  // namespace
}  // namespace quantal::test
