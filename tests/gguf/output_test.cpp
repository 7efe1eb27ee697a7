// What an output may be: files are replaced, device nodes and FIFOs written to, links kept, everything else refused.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "small_file.hpp"

namespace quantal::test {
namespace {

namespace fs = std::filesystem;

class Output : public ::testing::Test {
 protected:
  static std::string refusal(const fs::path& path) {
    const auto f = atomic_file::create(path);
    EXPECT_FALSE(f) << path;
    const auto checked = atomic_file::check(path);
    EXPECT_FALSE(checked) << path;
    return f || checked ? "" : f.error().message;
  }
  static void expect_refusal(const fs::path& path, const char* part) {
    EXPECT_NE(refusal(path).find(part), std::string::npos) << refusal(path);
  }
  static result<void> write(const fs::path& path, std::string_view text) {
    auto f = atomic_file::create(path);
    if (!f) return f.error();
    if (auto w = f->write(text); !w) return w;
    return f->commit();
  }
  static void expect_written(const fs::path& path, std::string_view text) {
    const auto checked = atomic_file::check(path);
    EXPECT_TRUE(checked) << checked.error().message;
    const auto done = write(path, text);
    EXPECT_TRUE(done) << done.error().message;
  }
  static mode_t type_of(const fs::path& path) {
    struct ::stat s {};
    return ::lstat(path.c_str(), &s) == 0 ? s.st_mode & S_IFMT : 0;
  }
  static mode_t mode_of(const fs::path& path) {
    struct ::stat s {};
    return ::stat(path.c_str(), &s) == 0 ? s.st_mode & 07777 : 0;
  }

  temp_dir dir;
};

/// A private node, so that the machine's own is safe whatever the code does.
TEST_F(Output, DeviceNodesStay) {
  if (::mknod((dir / "null").c_str(), S_IFCHR | 0600, makedev(1, 3)) != 0)
    GTEST_SKIP() << "only root makes device nodes";
  const int usable = ::open((dir / "null").c_str(), O_WRONLY);
  if (usable < 0) GTEST_SKIP() << "device nodes do not work here";
  ::close(usable);
  write_small(dir / "null");
  EXPECT_EQ(type_of(dir / "null"), static_cast<mode_t>(S_IFCHR));
  fs::create_symlink("null", dir / "link");
  write_small(dir / "link");
  EXPECT_EQ(type_of(dir / "link"), static_cast<mode_t>(S_IFLNK));
  EXPECT_EQ(type_of(dir / "null"), static_cast<mode_t>(S_IFCHR));
  EXPECT_EQ(dir.files(), 2u);
}

TEST_F(Output, FifosAreWrittenTo) {
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(atomic_file::check(dir / "pipe")) << "asking must not wait for a reader";
  std::string got;
  std::thread reader([&] { got = read_file(dir / "pipe"); });
  write_small(dir / "pipe");
  reader.join();
  write_small(dir / "file");
  EXPECT_EQ(got, read_file(dir / "file"));
  EXPECT_EQ(type_of(dir / "pipe"), static_cast<mode_t>(S_IFIFO));
}

TEST_F(Output, LinksAreFollowed) {
  write_file(dir / "old", "old");
  fs::create_symlink("old", dir / "one");
  fs::create_symlink(dir / "one", dir / "two");
  expect_written(dir / "two", "new");
  EXPECT_EQ(read_file(dir / "old"), "new");
  fs::create_symlink("later", dir / "dangling");
  expect_written(dir / "dangling", "made");
  EXPECT_EQ(read_file(dir / "later"), "made");
  for (const char* link : {"one", "two", "dangling"}) EXPECT_TRUE(fs::is_symlink(dir / link)) << link;
  fs::create_symlink("loop", dir / "loop");
  expect_refusal(dir / "loop", "cannot create");
  fs::create_symlink("none/x", dir / "nowhere");
  expect_refusal(dir / "nowhere", "cannot create");
  EXPECT_EQ(dir.files(), 7u);
}

TEST_F(Output, ModesStay) {
  write_file(dir / "secret", "old");
  ASSERT_EQ(::chmod((dir / "secret").c_str(), 0600), 0);
  expect_written(dir / "secret", "new");
  EXPECT_EQ(mode_of(dir / "secret"), 0600u);
  const mode_t before = ::umask(027);
  expect_written(dir / "fresh", "new");
  ::umask(before);
  EXPECT_EQ(mode_of(dir / "fresh"), 0640u);
}

TEST_F(Output, OthersAreRefusedByName) {
  fs::create_directory(dir / "folder");
  expect_refusal(dir / "folder", "folder: is a folder");
  expect_refusal(dir / "folder/", "is a folder");
  expect_refusal(dir / "new/", "slash");
  expect_refusal(dir / "none/file", "cannot create: No such file");
  write_file(dir / "file", "old");
  expect_refusal(dir / "file/x", "cannot create: Not a directory");
  expect_refusal(dir / std::string(300, 'x'), "cannot create: File name too long");
  expect_refusal("", "no name");
  const int s = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::snprintf(a.sun_path, sizeof a.sun_path, "%s", (dir / "socket").c_str());
  ASSERT_EQ(::bind(s, reinterpret_cast<const sockaddr*>(&a), sizeof a), 0);
  expect_refusal(dir / "socket", "is a socket");
  ::close(s);
  EXPECT_EQ(read_file(dir / "file"), "old");
  EXPECT_EQ(dir.files(), 3u);
}

/// Root may write everything: the child gives its rights up.
TEST_F(Output, ProtectedFilesAndFoldersAreRefused) {
  write_file(dir / "file", "old");
  ASSERT_EQ(::chmod((dir / "file").c_str(), 0444), 0);
  fs::create_directory(dir / "closed");
  ASSERT_EQ(::chmod((dir / "closed").c_str(), 0555), 0);
  ASSERT_EQ(::chmod((dir / ".").c_str(), 0777), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(9);
    const auto file = atomic_file::check(dir / "file"), folder = atomic_file::check(dir / "closed/x");
    ::_exit((file ? 1 : 0) + (folder ? 2 : 0));
  }
  int state = 0;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_EQ(WEXITSTATUS(state), 0);
}

TEST_F(Output, LongAndOddNamesWork) {
  expect_written(dir / std::string(250, 'y'), "new");
  expect_written(dir / "\xff\xfe name\n", "new");
  EXPECT_EQ(read_file(dir / "\xff\xfe name\n"), "new");
  EXPECT_EQ(dir.files(), 2u);
}

/// Appended to what another descriptor wrote, not over it.
TEST_F(Output, OwnDescriptorsAreShared) {
  const int fd = ::open((dir / "log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  ASSERT_EQ(::write(fd, "first ", 6), 6);
  for (const char* folder : {"/proc/self/fd/", "/dev/fd/"})
    expect_written(folder + std::to_string(fd), "second ");
  ASSERT_EQ(::write(fd, "last", 4), 4);
  ::close(fd);
  EXPECT_EQ(read_file(dir / "log"), "first second second last");
  const int reading = ::open((dir / "log").c_str(), O_RDONLY);
  expect_refusal("/dev/fd/" + std::to_string(reading), "open for reading only");
  ::close(reading);
  expect_refusal("/dev/fd/" + std::to_string(reading), "cannot");
}

TEST_F(Output, AFileThatAppearsMeanwhileIsReplaced) {
  auto f = atomic_file::create(dir / "file");
  ASSERT_TRUE(f->write("new"));
  write_file(dir / "file", "meanwhile");
  ASSERT_TRUE(f->commit());
  EXPECT_EQ(read_file(dir / "file"), "new");
  auto g = atomic_file::create(dir / "other");
  ASSERT_EQ(::mkfifo((dir / "other").c_str(), 0600), 0);
  const auto done = g->commit();
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find("no regular file any more"), std::string::npos);
}

TEST_F(Output, AFullDiskIsFoundFirst) {
  auto f = atomic_file::create(dir / "huge");
  const auto r = f->reserve(std::uint64_t{1} << 60);
  if (r) GTEST_SKIP() << "this file system does not reserve";
  EXPECT_NE(r.error().message.find("do not fit"), std::string::npos) << r.error().message;
  EXPECT_FALSE(
      gguf::writer::create(dir / "huge", {}, {{"t", f32::gguf_id, 1, {std::int64_t{1} << 58, 1, 1, 1}}}));
  EXPECT_TRUE(f->reserve(1 << 16));
}

/// What a program prints after its standard streams were closed must not land in its files.
TEST_F(Output, ClosedStandardStreamsGetNoFile) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (const int fd : {0, 1, 2}) ::close(fd);
    auto f = atomic_file::create(dir / "file");
    ::mkfifo((dir / "pipe").c_str(), 0600);
    const int other_end = ::fcntl(::open((dir / "pipe").c_str(), O_RDWR), F_DUPFD, 3);
    ::close(0);
    auto stream = atomic_file::create(dir / "pipe");
    if (!f || !stream || other_end < 0) ::_exit(1);
    for (const int fd : {0, 1, 2})
      if (::write(fd, "log", 3) >= 0) ::_exit(2);
    if (!f->write("data") || !f->commit()) ::_exit(3);
    ::_exit(0);
  }
  int state = 0;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_EQ(WEXITSTATUS(state), 0);
  EXPECT_EQ(read_file(dir / "file"), "data");
}

/// Where the system has files without names, even SIGKILL leaves nothing.
TEST_F(Output, NothingStaysOfAKilledProcess) {
#if defined(O_TMPFILE)
  const int fd = ::open((dir / ".").c_str(), O_TMPFILE | O_RDWR, 0600);
  if (fd < 0) GTEST_SKIP() << "no unnamed files here";
  ::close(fd);
  const pid_t child = ::fork();
  if (child == 0) {
    auto f = atomic_file::create(dir / "file");
    (void)f->write("data");
    ::kill(::getpid(), SIGKILL);
  }
  int state = 0;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_EQ(dir.files(), 0u);
#endif
}

/// Elsewhere the names are known to a program's signal handler.
TEST_F(Output, TemporaryNamesAreRemovedOnRequest) {
  write_file(dir / "temporary", "x");
  const std::string name = dir / "temporary";
  detail::remember_temporary(name.c_str());
  {
    const detail::renaming in_progress;
    EXPECT_FALSE(leave_no_temporary_files(SIGURG)) << "files are changing their names";
    EXPECT_TRUE(fs::exists(name));
  }
  EXPECT_TRUE(leave_no_temporary_files(SIGURG));
  EXPECT_FALSE(fs::exists(name));
  detail::forget_temporary(name.c_str());
  write_file(dir / "temporary", "x");
  EXPECT_TRUE(leave_no_temporary_files(SIGURG));
  EXPECT_TRUE(fs::exists(name));
}

}  // namespace
}  // namespace quantal::test
