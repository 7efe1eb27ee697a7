// The engine's own threads: all quantal asks of them is workers() and run().
#pragma once

#include <barrier>
#include <functional>
#include <thread>
#include <vector>

class pool {
 public:
  explicit pool(int threads) : start_(threads), done_(threads), workers_(threads) {
    for (int w = 1; w < threads; ++w)
      threads_.emplace_back([this, w] {
        for (start_.arrive_and_wait(); job_; done_.arrive_and_wait(), start_.arrive_and_wait()) job_(w);
      });
  }
  ~pool() { job_ = nullptr, start_.arrive_and_wait(); }

  int workers() const noexcept { return workers_; }
  /// body(context, task, worker) once for every task in [0, tasks).
  void run(int tasks, void (*body)(void*, int, int) noexcept, void* context) {
    job_ = [=, this](int worker) {
      for (int t = worker; t < tasks; t += workers_) body(context, t, worker);
    };
    start_.arrive_and_wait(), job_(0), done_.arrive_and_wait();
  }

 private:
  std::barrier<> start_, done_;
  int workers_;
  std::function<void(int)> job_;
  std::vector<std::jthread> threads_;
};
