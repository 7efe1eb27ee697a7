// A scheduler of c.h as the library takes it.
#pragma once

#include <system_error>

#include "quantal/c.h"
#include "quantal/executor.hpp"

namespace quantal::c {

class executor_adapter {
 public:
  /// NULL: the calling thread.
  explicit executor_adapter(const quantal_executor* e) noexcept : executor_(e) {}

  static constexpr const char* unusable = "the executor has no function or no worker";
  bool usable() const noexcept { return !executor_ || (executor_->run && executor_->workers > 0); }
  int workers() const noexcept { return executor_ ? executor_->workers : 1; }
  void run(int tasks, task_function body, void* context) const {
    if (!executor_) return serial_executor{}.run(tasks, body, context);
    if (executor_->run(executor_->self, tasks, body, context) != 0)
      throw std::system_error(std::make_error_code(std::errc::operation_canceled));
  }

 private:
  const quantal_executor* executor_;
};

}  // namespace quantal::c
