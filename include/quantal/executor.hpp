// Bring your own threads: the one thing kernels ask of a scheduler, and two that serve when there is none.
#pragma once

#include <atomic>
#include <concepts>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace quantal {

/// One piece of a parallel loop: `task` in [0, tasks), `worker` in [0, workers()). No two pieces that run at
/// the same time have the same worker, so `worker` selects a piece of scratch memory.
using task_function = void (*)(void* context, int task, int worker) noexcept;

/// A scheduler. `run` calls body(context, t, w) exactly once for every t in [0, tasks), in any order and on any
/// threads, and returns when all calls have returned.
template <class E>
concept executor = requires(E& e, int tasks, task_function body, void* context) {
  { e.workers() } -> std::convertible_to<int>;
  { e.run(tasks, body, context) };
};

/// Type-erased, trivially copyable handle to an executor; the executor must outlive it.
class executor_ref {
 public:
  template <executor E>
    requires(!std::same_as<std::remove_cvref_t<E>, executor_ref>)
  executor_ref(E& e) noexcept
      : self_(&e), workers_(e.workers()), run_([](void* self, int tasks, task_function body, void* context) {
          static_cast<E*>(self)->run(tasks, body, context);
        }) {}

  int workers() const noexcept { return workers_; }
  void run(int tasks, task_function body, void* context) const { run_(self_, tasks, body, context); }

  /// Calls f(task, worker) for every task; f must not throw.
  template <class F>
  void for_each(int tasks, F&& f) const {
    using fn = std::remove_reference_t<F>;
    run(tasks, [](void* c, int task, int worker) noexcept { (*static_cast<fn*>(c))(task, worker); },
        const_cast<void*>(static_cast<const void*>(&f)));
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

/// A fixed set of std::threads that take tasks from a shared counter. The calling thread works too (worker 0),
/// so `threads` counts it. One `run` at a time; tasks must not call `run` on the same pool.
class thread_pool {
 public:
  explicit thread_pool(int threads) {
    for (int w = 1; w < threads; ++w) helpers_.emplace_back([this, w] { serve(w); });
  }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;
  ~thread_pool() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (auto& h : helpers_) h.join();
  }

  int workers() const noexcept { return static_cast<int>(helpers_.size()) + 1; }

  void run(int tasks, task_function body, void* context) {
    if (helpers_.empty() || tasks <= 1) {
      for (int t = 0; t < tasks; ++t) body(context, t, 0);
      return;
    }
    {
      std::lock_guard lock(mutex_);
      body_ = body;
      context_ = context;
      tasks_ = tasks;
      next_.store(0, std::memory_order_relaxed);
      busy_ = static_cast<int>(helpers_.size());
      ++generation_;
    }
    wake_.notify_all();
    drain(0);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void drain(int worker) {
    for (int t; (t = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) body_(context_, t, worker);
  }

  void serve(int worker) {
    std::uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
        if (stopping_) return;
        seen = generation_;
      }
      drain(worker);
      std::lock_guard lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> helpers_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  task_function body_ = nullptr;
  void* context_ = nullptr;
  int tasks_ = 0;
  int busy_ = 0;
  std::uint64_t generation_ = 0;
  bool stopping_ = false;
  std::atomic<int> next_{0};
};

}  // namespace quantal
