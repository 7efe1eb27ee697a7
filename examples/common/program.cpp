#include "program.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

#include "quantal/temporary_names.hpp"
#include "text.hpp"

namespace quantal {
namespace {

/// What the handler of std::terminate says; it gets no arguments.
const char* running_program = "";
int failure_code = cli::exit_failure;

/// A closed standard output must not swallow results: writing to it fails. Standard error closed means silence.
void take_standard_descriptors() {
  constexpr int modes[] = {O_RDONLY, O_RDONLY, O_WRONLY};
  for (int fd = 0; fd < 3; ++fd)
    if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF && ::open("/dev/null", modes[fd]) < 0)
      (void)::open("/", O_RDONLY);
}

void end_by_signal(int signal) {
  const int cause = errno;
  if (leave_no_temporary_files(signal)) {
    ::signal(signal, SIG_DFL);
    ::raise(signal);
  }
  errno = cause;
}

void watch_signals() {
  for (const int s : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGXCPU}) {
    struct sigaction now {};
    if (::sigaction(s, nullptr, &now) != 0 || now.sa_handler == SIG_IGN) continue;  // as nohup wants it
    now = {};
    now.sa_handler = end_by_signal;
    now.sa_flags = SA_RESTART;
    ::sigaction(s, &now, nullptr);
  }
  ::signal(SIGXFSZ, SIG_IGN);  // a write beyond the limit fails with a message instead
}

int fail_with(const char* cause) {
  std::fprintf(stderr, "%s: %s\n", running_program, text::printable(cause).c_str());
  return failure_code;
}

/// What the current exception says.
int fail_with_exception() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return fail_with("out of memory");
  } catch (const std::exception& e) {
    return fail_with(e.what());
  } catch (...) {
    return fail_with("unknown exception");
  }
}

/// Exceptions of threads and of functions that promise to throw none end here.
[[noreturn]] void end_by_exception() {
  if (std::current_exception())
    fail_with_exception();
  else
    fail_with("internal error");
  leave_no_temporary_files(0);
  std::_Exit(failure_code);
}

/// Whether all text arrived.
bool arrived(std::FILE* stream, const char* what) {
  errno = 0;
  const bool had_failed = std::ferror(stream) != 0;
  if (std::fflush(stream) == 0 && !had_failed) return true;
  // The cause of an earlier failure is forgotten; most descriptors repeat it.
  if (errno == 0) (void)!::write(::fileno(stream), "", 0);
  const std::string cause = errno ? std::string(": ") + std::strerror(errno) : std::string();
  fail_with((std::string(what) + ": write failed" + cause).c_str());
  return false;
}

}  // namespace

int run_program(const char* name, int argc, char** argv, int (*body)(int, char**), int failure) {
  running_program = name;
  failure_code = failure;
  take_standard_descriptors();
  watch_signals();
  std::set_terminate(end_by_exception);
  int code = failure;
  try {
    code = body(argc, argv);
  } catch (...) {
    code = fail_with_exception();
  }
  const bool out = arrived(stdout, "standard output"), log = arrived(stderr, "standard error");
  return out && log ? code : failure;
}

}  // namespace quantal
