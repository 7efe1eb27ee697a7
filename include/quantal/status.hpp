// What an entry point that takes run-time shapes can answer.
#pragma once

#include <cstdint>
#include <string_view>

namespace quantal {

/// Result of a library call. The library never throws and never aborts: every precondition that depends on
/// run-time values is checked at the API boundary and reported here.
enum class [[nodiscard]] status : std::uint8_t{
    ok,
    bad_shape,  ///< a dimension is negative, zero where it may not be, not a multiple of the block, or beyond
                ///< 2^30
    bad_stride,       ///< a stride is smaller than what it must step over, or leads out of the address space
    bad_alignment,    ///< a device pointer is not aligned as the function asks
    null_pointer,     ///< a required pointer is null
    small_workspace,  ///< the caller's workspace is smaller than the size query said
    bad_expert_id,    ///< mul_mat_id: an id lies outside [0, experts)
    unknown_format,   ///< no format has this id or name
    unsupported,  ///< the format exists but this operation does not (for example quantizing to an activation
                  ///< format)
    not_finite,   ///< a weight is NaN or infinite
    bad_importance,  ///< an importance is NaN, infinite or negative
    bad_moments,     ///< second moments are NaN, infinite, not symmetric or not positive
    device_error,    ///< a CUDA call failed; cudaGetLastError() says how
    overlap,  ///< results or the workspace share memory with what the function reads, or with each other
    executor_failed,  ///< the executor's run threw; results are unspecified
    short_buffer,     ///< the memory of a view is shorter than its extents and stride say
};

constexpr std::string_view to_string(status s) noexcept {
  switch (s) {
    case status::ok:
      return "ok";
    case status::bad_shape:
      return "bad shape";
    case status::bad_stride:
      return "bad stride";
    case status::bad_alignment:
      return "pointer is not aligned";
    case status::null_pointer:
      return "null pointer";
    case status::small_workspace:
      return "workspace too small";
    case status::bad_expert_id:
      return "expert id out of range";
    case status::unknown_format:
      return "unknown format";
    case status::unsupported:
      return "operation not supported for this format";
    case status::not_finite:
      return "weight is not finite";
    case status::bad_importance:
      return "importance is not finite or negative";
    case status::bad_moments:
      return "second moments are not finite, symmetric and positive";
    case status::device_error:
      return "CUDA call failed";
    case status::overlap:
      return "memory overlaps";
    case status::executor_failed:
      return "executor threw an exception";
    case status::short_buffer:
      return "memory is shorter than its extents";
  }
  return "unknown status";
}

}  // namespace quantal
