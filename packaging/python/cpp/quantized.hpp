// quantal.QuantizedArray: rows of one format that lie side by side, in memory that it shares.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "arrays.hpp"
#include "quantal/formats.hpp"
#include "quantal/runtime.hpp"

namespace quantal::python {

/// A format by name, by its number in GGUF files, or itself; ValueError lists the names.
const format_info& format_of(nb::handle name_or_number);

/// ValueError where there are no columns or no whole blocks of them, or too many for 64 bits. Rows there may be none.
std::int64_t bytes_for(const format_info& f, const extents& shape);

class quantized {
 public:
  /// `bytes` are as many as bytes_for() says.
  quantized(const format_info& f, const extents& shape, const std::byte* bytes,
            std::shared_ptr<const void> owner, place where = {})
      : format_(&f),
        shape_(shape),
        bytes_(bytes),
        size_(bytes_for(f, shape)),
        owner_(std::move(owner)),
        where_(where) {}

  const format_info& format() const noexcept { return *format_; }
  const extents& shape() const noexcept { return shape_; }
  std::int64_t rows() const { return shape_.rows(); }
  std::int64_t cols() const noexcept { return shape_.back(); }
  std::int64_t row_bytes() const noexcept { return format_->row_bytes(cols()); }
  const place& where() const noexcept { return where_; }
  /// TypeError where they lie on a device.
  std::span<const std::byte> bytes() const {
    if (where_.on_device()) bad_type(description() + " lies on " + where_.name() + ": use .cpu()");
    return {bytes_, static_cast<std::size_t>(size_)};
  }
  /// Wherever they lie.
  std::span<const std::byte> device_bytes() const noexcept {
    return {bytes_, static_cast<std::size_t>(size_)};
  }
  const std::shared_ptr<const void>& owner() const noexcept { return owner_; }

  /// "q4_K (512, 1024)".
  std::string description() const;
  /// One or several of the outermost dimension, without copying.
  quantized at(nb::handle index) const;

 private:
  quantized part(std::int64_t first, std::int64_t count, bool drop) const;

  const format_info* format_;
  extents shape_;
  const std::byte* bytes_;
  std::int64_t size_;
  std::shared_ptr<const void> owner_;
  place where_;
};

/// Kernels of products want blocks that begin at a multiple of 16 bytes.
inline bool begins_aligned(const std::byte* blocks) noexcept {
  return reinterpret_cast<std::uintptr_t>(blocks) % 16 == 0;
}

/// Any contiguous memory: bytes, memoryview, arrays of uint8 of any library, on a CUDA device too. Not copied unless it is
/// misaligned (on devices: never).
quantized from_buffer(nb::handle data, nb::handle format, nb::handle shape);

void bind_formats(nb::module_& m);
void bind_quantized(nb::module_& m);
void bind_operations(nb::module_& m);
void bind_imatrix(nb::module_& m);
void bind_metadata(nb::module_& m);
void bind_gguf(nb::module_& m);

}  // namespace quantal::python
