// A value or an error message: what file readers and writers return.
#pragma once

#include <cassert>
#include <string>
#include <utility>
#include <variant>

namespace quantal {

/// Why an operation on a file failed, in one sentence that names the file, the tensor or key, and the cause.
struct error {
  std::string message;
};

/// Either a T or an error. `if (!r) return r.error();` is the idiom; `*r` and `r->` reach the value.
template <class T>
class [[nodiscard]] result {
 public:
  result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  result(quantal::error e) : state_(std::in_place_index<1>, std::move(e)) {}

  explicit operator bool() const noexcept { return state_.index() == 0; }
  bool ok() const noexcept { return state_.index() == 0; }

  T& value() & {
    assert(ok());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    assert(ok());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    assert(ok());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const quantal::error& error() const {
    assert(!ok());
    return *std::get_if<1>(&state_);
  }

 private:
  std::variant<T, quantal::error> state_;
};

/// A result without a value.
template <>
class [[nodiscard]] result<void> {
 public:
  result() = default;
  result(quantal::error e) : error_(std::move(e)), failed_(true) {}
  explicit operator bool() const noexcept { return !failed_; }
  bool ok() const noexcept { return !failed_; }
  const quantal::error& error() const {
    assert(failed_);
    return error_;
  }

 private:
  quantal::error error_{};
  bool failed_ = false;
};

}  // namespace quantal
