// How the functions of c.h answer: a status, and a sentence for quantal_last_error().
#pragma once

#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "quantal/c.h"
#include "quantal/result.hpp"
#include "quantal/status.hpp"

namespace quantal::c {

/// Keeps the sentence for this thread.
inline quantal_status fail(quantal_status s, std::string_view function, std::string_view why) noexcept {
  try {
    quantal_set_last_error((std::string(function) + ": " + std::string(why)).c_str());
  } catch (...) {
    quantal_set_last_error("out of memory");
  }
  return s;
}
inline quantal_status fail(quantal_status s, std::string_view function) noexcept {
  return fail(s, function, quantal_status_text(s));
}
inline quantal_status file_error(std::string_view function, const error& e) noexcept {
  return fail(QUANTAL_FILE_ERROR, function, e.message);
}

/// Runs a function's body: no exception leaves it.
template <class Body>
quantal_status guarded(const char* function, Body&& body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(QUANTAL_OUT_OF_MEMORY, function, "out of memory");
  } catch (const std::exception& e) {
    return fail(QUANTAL_BAD_ARGUMENT, function, e.what());
  } catch (...) {
    return fail(QUANTAL_BAD_ARGUMENT, function, "an unknown exception");
  }
}

/// Makes a handle of what `make` answers, a result<T>.
template <class Handle, class Make>
quantal_status new_handle(const char* function, Handle** out, Make&& make) noexcept {
  if (!out) return fail(QUANTAL_NULL_POINTER, function);
  *out = nullptr;
  return guarded(function, [&] {
    auto made = make();
    if (!made) return file_error(function, made.error());
    *out = new Handle{std::move(*made)};
    return QUANTAL_OK;
  });
}

}  // namespace quantal::c
