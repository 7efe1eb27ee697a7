// An output file. A regular file appears whole or not at all: it is written without a name, or under a temporary one in
// the same folder, synced, and takes its name at the end, with the mode and owner of what it replaces. Symbolic links stay
// links. Device nodes and FIFOs are written to as they are.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string_view>

#include "quantal/output_target.hpp"
#include "quantal/temporary_names.hpp"

namespace quantal {

class atomic_file {
 public:
  static result<atomic_file> create(const std::filesystem::path& path) {
    auto target = output_target::find(path);
    if (!target) return target.error();
    atomic_file f;
    f.target_ = std::move(*target);
    if (auto opened = f.target_.stream ? f.open_stream() : f.open_file(); !opened) return opened.error();
    return f;
  }
  /// Whether create() would succeed now. Nothing is left behind, and the reader of a FIFO notices nothing.
  static result<void> check(const std::filesystem::path& path) {
    auto target = output_target::find(path);
    if (!target) return target.error();
    if (target->stream) return {};
    auto file = create(path);
    return file ? result<void>{} : file.error();
  }

  atomic_file(atomic_file&& o) noexcept
      : target_(std::move(o.target_)),
        temporary_(std::move(o.temporary_)),
        kept_(std::move(o.kept_)),
        fd_(std::exchange(o.fd_, -1)) {}
  atomic_file& operator=(atomic_file&& o) noexcept {
    std::swap(target_, o.target_);
    std::swap(temporary_, o.temporary_);
    std::swap(kept_, o.kept_);
    std::swap(fd_, o.fd_);
    return *this;
  }
  /// Without commit() nothing stays behind, and an existing file is as it was.
  ~atomic_file() {
    if (fd_ < 0) return;
    ::close(fd_);
    drop_temporary();
  }

  result<void> write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return failed("write");
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return {};
  }
  result<void> write(std::string_view text) {
    return write(std::as_bytes(std::span(text.data(), text.size())));
  }

  /// Takes the space that the whole file needs, so that a full disk is found before the work. Where a file system
  /// cannot do that, nothing happens.
  result<void> reserve([[maybe_unused]] std::uint64_t bytes) {
#if defined(FALLOC_FL_KEEP_SIZE)
    if (target_.stream || bytes == 0) return {};
    int done = 0;
    do done = ::fallocate(fd_, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes));
    while (done != 0 && errno == EINTR);
    if (done != 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
      return detail::output_error(target_.path,
                                  std::to_string(bytes) + " bytes do not fit: " + std::strerror(errno));
#endif
    return {};
  }

  /// Makes the file visible under its name.
  result<void> commit() {
    if (auto s = sync(); !s) return s;
    const detail::renaming in_progress;
    if (auto p = publish(); !p) return p;
    return close();
  }

  /// Makes all of the files visible or none: if one cannot be, what the others replaced is put back. Replaced
  /// files are kept as PATH.old.PID meanwhile, so that a process killed in the middle loses none of them
  /// either.
  static result<void> commit_all(std::span<atomic_file* const> files) {
    if (files.size() == 1) return files[0]->commit();
    for (auto* f : files)
      if (auto s = f->sync(); !s) return s;
    const detail::renaming in_progress;
    for (std::size_t i = 0; i < files.size(); ++i) {
      auto done = files[i]->replace();
      if (done) continue;
      while (i-- > 0) files[i]->restore();
      return done;
    }
    result<void> closed;
    for (auto* f : files) {
      if (!f->kept_.empty()) ::unlink(f->kept_.c_str());
      if (auto c = f->close(); !c) closed = c;
    }
    return closed;
  }

 private:
  atomic_file() = default;

  error failed(const char* what) const {
    return detail::output_error(target_.path, std::string(what) + " failed: " + std::strerror(errno));
  }

  result<void> open_stream() {
    const int fd = target_.descriptor >= 0 ? ::fcntl(target_.descriptor, F_DUPFD_CLOEXEC, 3)
                                           : ::open(target_.path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
    fd_ = detail::above_standard_streams(fd);
    if (fd_ < 0)
      return detail::output_error(target_.path, std::string("cannot open: ") + std::strerror(errno));
    return {};
  }

  result<void> open_file() {
    if (!open_unnamed() && !open_named()) return detail::cannot_create(target_.path, errno);
    if (!target_.exists) return {};
    // Who may not give files away keeps them; the set-user bits do not pass to another owner.
    const bool owned = ::fchown(fd_, target_.status.st_uid, target_.status.st_gid) == 0;
    if (::fchmod(fd_, target_.status.st_mode & (owned ? 07777u : 0777u)) != 0) return failed("chmod");
    return {};
  }

  /// A file without a name needs no cleaning up, whatever ends the process.
  bool open_unnamed() {
#if defined(O_TMPFILE)
    fd_ = make_unnamed();
    if (fd_ < 0) return false;
    if (can_be_named()) return true;
    ::close(std::exchange(fd_, -1));
#endif
    return false;
  }
#if defined(O_TMPFILE)
  int make_unnamed() const {
    return detail::above_standard_streams(
        ::open(detail::folder_of(target_.path).c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0666));
  }
  /// Tried on another such file: a file can take a name only once.
  bool can_be_named() const {
    const int trial = make_unnamed();
    if (trial < 0) return false;
    const auto name = with_free_name([&](const char* n) { return give_name(trial, n); });
    if (!name.empty()) ::unlink(name.c_str());
    ::close(trial);
    return !name.empty();
  }
#endif

  bool open_named() {
    auto name = with_free_name([&](const char* n) {
      fd_ = detail::above_standard_streams(::open(n, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
      return fd_ >= 0;
    });
    if (name.empty()) return false;
    set_temporary(name);
    return true;
  }

  static bool give_name(int fd, const char* name) {
    const std::string open_file = "/proc/self/fd/" + std::to_string(fd);
    return ::linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0;
  }

  /// The first name beside the target that `take` gets; empty if it fails for another reason than a name in use.
  template <class Take>
  std::string with_free_name(Take take) const {
    static std::atomic<unsigned> serial{0};
    const auto stem = target_.path.filename().string().substr(0, 200);
    for (int attempt = 0; attempt < 100; ++attempt) {
      auto name = (target_.path.parent_path() /
                   (stem + ".tmp." + std::to_string(::getpid()) + "." + std::to_string(serial.fetch_add(1))))
                      .string();
      if (take(name.c_str())) return name;
      if (errno != EEXIST) return {};
    }
    return {};
  }

  void set_temporary(const std::string& name) {
    temporary_ = std::make_unique<std::string>(name);
    detail::remember_temporary(temporary_->c_str());
  }
  void drop_temporary() noexcept {
    if (!temporary_) return;
    ::unlink(temporary_->c_str());
    forget_temporary();
  }
  void forget_temporary() noexcept {
    detail::forget_temporary(temporary_->c_str());
    temporary_.reset();
  }

  result<void> sync() {
    if (!target_.stream && ::fsync(fd_) != 0) return failed("sync");
    return {};
  }
  result<void> close() {
    if (::close(std::exchange(fd_, -1)) != 0) return failed("close");
    return {};
  }

  /// Gives the complete file its name; whatever else has taken that name meanwhile is left alone.
  result<void> publish() {
    if (target_.stream) return {};
    if (!temporary_) {
      if (give_name(fd_, target_.path.c_str())) return {};
      if (errno != EEXIST) return failed("link");
      const auto name = with_free_name([&](const char* n) { return give_name(fd_, n); });
      if (name.empty()) return failed("link");
      set_temporary(name);
    }
    struct ::stat now {};
    if (::lstat(target_.path.c_str(), &now) == 0 && !S_ISREG(now.st_mode))
      return detail::output_error(target_.path, "is no regular file any more");
    if (::rename(temporary_->c_str(), target_.path.c_str()) != 0) return failed("rename");
    forget_temporary();
    return {};
  }

  /// A second name for what is to be replaced; on file systems without hard links it moves to that name.
  result<void> keep_replaced() {
    const auto& path = target_.path;
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) return detail::output_error(path, "is a folder");
    std::string kept = path.string() + ".old." + std::to_string(::getpid());
    if (::link(path.c_str(), kept.c_str()) != 0) {
      if (errno == ENOENT) return {};
      if (errno == EEXIST || ::rename(path.c_str(), kept.c_str()) != 0)
        return detail::output_error(path, "cannot be kept as " + kept + ": " + std::strerror(errno));
    }
    kept_ = std::move(kept);
    return {};
  }
  result<void> replace() {
    if (target_.stream) return {};
    if (auto k = keep_replaced(); !k) return k;
    auto done = publish();
    if (!done && !kept_.empty()) restore();
    return done;
  }
  /// Where both names are the same file still, the renaming does nothing.
  void restore() noexcept {
    if (target_.stream) return;
    if (kept_.empty()) {
      ::unlink(target_.path.c_str());
      return;
    }
    if (::rename(kept_.c_str(), target_.path.c_str()) == 0) ::unlink(kept_.c_str());
    kept_.clear();
  }

  output_target target_;
  std::unique_ptr<std::string> temporary_;  ///< keeps its address when the object moves
  std::string kept_;
  int fd_ = -1;
};

}  // namespace quantal
