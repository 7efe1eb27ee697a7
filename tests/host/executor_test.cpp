// What hosts do to executors: nested and simultaneous runs, forks, exceptions.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>

#include "quantal/runtime/ops.hpp"

namespace quantal::test {
namespace {

/// Adds 1 to an atomic number a task, over an executor.
template <class E>
int count_tasks(E& e, int tasks) {
  std::atomic<int> done{0};
  const executor_ref ref(e);
  EXPECT_TRUE(ref.for_each(tasks, [&](int, int) { ++done; }));
  return done;
}

TEST(ThreadPool, RunInsideATask) {
  thread_pool pool(2);
  for (int round = 0; round < 200; ++round) {
    std::atomic<int> inner{0};
    const executor_ref ref(pool);
    ASSERT_TRUE(ref.for_each(4, [&](int, int) { inner += count_tasks(pool, 3); }));
    ASSERT_EQ(inner, 12);
  }
}

TEST(ThreadPool, RunsOfTwoThreads) {
  thread_pool pool(3);
  std::atomic<int> total{0};
  const auto work = [&] {
    for (int i = 0; i < 500; ++i) total += count_tasks(pool, 7);
  };
  std::thread other(work);
  work();
  other.join();
  EXPECT_EQ(total, 2 * 500 * 7);
}

TEST(ThreadPool, AfterFork) {
  auto pool = std::make_unique<thread_pool>(2);
  EXPECT_EQ(count_tasks(*pool, 5), 5);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(20);  // a child that hangs is ended by a signal
    const bool right = count_tasks(*pool, 5) == 5;
    pool.reset();
    thread_pool own(2);
    _exit(right && count_tasks(own, 5) == 5 ? 0 : 1);
  }
  int result = -1;
  ASSERT_EQ(waitpid(child, &result, 0), child);
  EXPECT_TRUE(WIFEXITED(result) && WEXITSTATUS(result) == 0) << result;
  EXPECT_EQ(count_tasks(*pool, 5), 5);
}

/// Throws in run number `at`.
struct cancelled_executor {
  int at;
  int workers() const noexcept { return 1; }
  void run(int tasks, task_function body, void* context) {
    if (at-- == 0) throw std::runtime_error("cancelled");
    serial_executor{}.run(tasks, body, context);
  }
};

TEST(Executor, ThatThrowsIsReported) {
  const runtime::format_ops& ops = *runtime::dispatcher::best().find(q4_K::gguf_id);
  std::vector<std::byte> weights(4 * 144), memory(ops.packed_bytes(4, 256));
  std::vector<float> x(17 * 256), out(17 * 4);
  std::vector<std::int32_t> ids(17);
  const mul_mat_args a{weights.data(), 4, 256, 144, x.data(), 17, 256, out.data(), 4};
  const mul_mat_id_args routed{weights.data(), 1, 4, 256,        144, 0, x.data(), 17, 256, 0,
                               ids.data(),     1, 1, out.data(), 4,   4};
  for (const activation policy : {activation::exact, activation::q8})
    for (int at = 0; at < 4; ++at) {
      cancelled_executor e{at};
      std::vector<std::byte> workspace(ops.mul_mat_workspace(a, policy));
      EXPECT_EQ(ops.mul_mat(a, policy, e, workspace), at < 2 ? status::executor_failed : status::ok);
      const int steps = policy == activation::q8 ? 3 : 2;
      cancelled_executor of_routed{at};
      workspace.resize(ops.mul_mat_id_workspace(routed, policy));
      EXPECT_EQ(ops.mul_mat_id(routed, policy, of_routed, workspace),
                at < steps ? status::executor_failed : status::ok);
    }
  packed_weights packed;
  cancelled_executor e{0};
  EXPECT_EQ(ops.pack({weights.data(), 1, 4, 256, 144, 0}, memory, e, packed), status::executor_failed);
  EXPECT_EQ(packed.data, nullptr);
}

}  // namespace
}  // namespace quantal::test
