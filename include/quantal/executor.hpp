// Bring your own threads: the one thing kernels ask of a scheduler, and two that serve when there is none.
#pragma once

#include <atomic>
#include <concepts>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

#include "quantal/float_environment.hpp"

namespace quantal {

/// One piece of a parallel loop: `task` in [0, tasks), `worker` in [0, workers()). No two pieces of a loop
/// that run at the same time have the same worker, so `worker` selects a piece of its scratch memory.
using task_function = void (*)(void* context, int task, int worker) noexcept;

/// A scheduler. `run` calls body(context, t, w) exactly once for every t in [0, tasks), in any order and on
/// any threads, and returns when all calls have returned. Where it cannot, it throws, with no call running or
/// to come: products then return status::executor_failed.
template <class E>
concept executor = requires(E& e, int tasks, task_function body, void* context) {
  { e.workers() } -> std::convertible_to<int>;
  {e.run(tasks, body, context)};
};

/// Type-erased, trivially copyable handle to an executor; the executor must outlive it.
class executor_ref {
 public:
  template <executor E>
  requires(!std::same_as<std::remove_cvref_t<E>, executor_ref>) executor_ref(E& e)
  noexcept(noexcept(e.workers()))
      : self_(&e), workers_(e.workers()), run_([](void* self, int tasks, task_function body, void* context) {
          static_cast<E*>(self)->run(tasks, body, context);
        }) {}

  int workers() const noexcept { return workers_; }
  void run(int tasks, task_function body, void* context) const { run_(self_, tasks, body, context); }

  /// Calls f(task, worker) for every task, under the library's own floating-point settings; f must not throw.
  /// False if the executor threw.
  template <class F>
  bool for_each(int tasks, F&& f) const noexcept {
    using fn = std::remove_reference_t<F>;
    const task_function body = [](void* c, int task, int worker) noexcept {
      const float_environment settings;
      (*static_cast<fn*>(c))(task, worker);
    };
    void* const context = const_cast<void*>(static_cast<const void*>(&f));
#if defined(__cpp_exceptions)
    try {
      run(tasks, body, context);
    } catch (...) {
      return false;
    }
#else
    run(tasks, body, context);
#endif
    return true;
  }

 private:
  void* self_;
  int workers_;
  void (*run_)(void*, int, task_function, void*);
};

/// Runs everything on the calling thread.
struct serial_executor {
  int workers() const noexcept { return 1; }
  void run(int tasks, task_function body, void* context) const noexcept {
    for (int t = 0; t < tasks; ++t) body(context, t, 0);
  }
};

/// A fixed set of std::threads that take tasks from a shared counter. The calling thread works too (worker
/// 0), so `threads` counts it; there are fewer where the system does not grant them. One run at a time has
/// the threads: a run inside a task, or of another thread meanwhile, works alone. So does a process forked
/// from the one that made the pool, which has none of its threads.
class thread_pool {
 public:
  explicit thread_pool(int threads) : shared_(std::make_unique<shared_state>()) { shared_->start(threads); }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;
  ~thread_pool() {
    // A forked process can neither join threads that it lacks nor destroy what they wait for.
    if (forked())
      static_cast<void>(shared_.release());
    else
      shared_->stop();
  }

  int workers() const noexcept { return static_cast<int>(shared_->helpers.size()) + 1; }

  void run(int tasks, task_function body, void* context) {
    if (shared_->helpers.empty() || tasks <= 1 || forked() ||
        taken_.exchange(true, std::memory_order_acquire))
      return serial_executor{}.run(tasks, body, context);
    shared_->run(tasks, body, context);
    taken_.store(false, std::memory_order_release);
  }

 private:
  static long process() noexcept {
#if defined(__unix__) || defined(__APPLE__)
    return static_cast<long>(getpid());
#else
    return 0;
#endif
  }
  bool forked() const noexcept { return process() != made_by_; }

  struct shared_state {
    std::vector<std::thread> helpers;
    std::mutex mutex;
    std::condition_variable wake, done;
    task_function body = nullptr;
    void* context = nullptr;
    int tasks = 0;
    int busy = 0;
    std::uint64_t generation = 0;
    bool stopping = false;
    std::atomic<int> next{0};

    void start(int threads) {
      if (threads > 1) helpers.reserve(static_cast<std::size_t>(threads - 1));
#if defined(__cpp_exceptions)
      try {
        for (int w = 1; w < threads; ++w) helpers.emplace_back([this, w] { serve(w); });
      } catch (const std::system_error&) {
      }
#else
      for (int w = 1; w < threads; ++w) helpers.emplace_back([this, w] { serve(w); });
#endif
    }
    void stop() {
      {
        std::lock_guard lock(mutex);
        stopping = true;
      }
      wake.notify_all();
      for (auto& h : helpers) h.join();
    }

    void run(int count, task_function function, void* argument) {
      {
        std::lock_guard lock(mutex);
        body = function;
        context = argument;
        tasks = count;
        next.store(0, std::memory_order_relaxed);
        busy = static_cast<int>(helpers.size());
        ++generation;
      }
      wake.notify_all();
      drain(0);
      std::unique_lock lock(mutex);
      done.wait(lock, [this] { return busy == 0; });
    }
    void drain(int worker) {
      for (int t; (t = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) body(context, t, worker);
    }
    void serve(int worker) {
      std::uint64_t seen = 0;
      for (;;) {
        {
          std::unique_lock lock(mutex);
          wake.wait(lock, [&] { return stopping || generation != seen; });
          if (stopping) return;
          seen = generation;
        }
        drain(worker);
        std::lock_guard lock(mutex);
        if (--busy == 0) done.notify_one();
      }
    }
  };

  std::unique_ptr<shared_state> shared_;
  const long made_by_ = process();
  std::atomic<bool> taken_{false};
};

}  // namespace quantal
