#include "threads.hpp"

#include <unistd.h>

#include <string>
#include <thread>

#include "arrays.hpp"

namespace quantal::python {
namespace {

constexpr int most_threads = 1024;

/// The pool that was asked for last; a forked process makes its own, since it has none of the threads. Read and written
/// with the GIL held. Never destroyed: the interpreter may end while a daemon thread works.
std::shared_ptr<thread_pool> pool_of(int threads) {
  struct kept {
    std::shared_ptr<thread_pool> pool;
    int threads = 0;
    pid_t process = 0;
  };
  static kept& last = *new kept;
  if (last.pool && last.threads == threads && last.process == getpid()) return last.pool;
  last = {std::make_shared<thread_pool>(threads), threads, getpid()};
  return last.pool;
}

/// Asked once: the question takes longer than a small product.
int all_cores() {
  static const int cores = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, most_threads);
  return cores;
}

}  // namespace

workers::workers(std::optional<int> wanted, std::int64_t values, std::int64_t worth_it) {
  if (wanted && (*wanted < 1 || *wanted > most_threads))
    bad_value("threads: " + std::to_string(*wanted) + " is not between 1 and " +
              std::to_string(most_threads));
  const int threads = wanted ? *wanted : values < worth_it ? 1 : all_cores();
  if (threads > 1) pool_ = pool_of(threads);
}

}  // namespace quantal::python
