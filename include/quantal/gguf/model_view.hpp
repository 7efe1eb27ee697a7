// What planning and quantizing need of a model: keys, the tensor table, and the rows of every tensor,
// wherever they come from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quantal/gguf/metadata.hpp"
#include "quantal/gguf/tensor_info.hpp"

namespace quantal::gguf {

/// The rows of one tensor in its own type, counted through all slices: views of memory that holds the whole
/// tensor, or rows made one by one.
class row_source {
 public:
  /// Returns the bytes of a row, either its own or `scratch`, which has room for one row. Called from several
  /// threads at once, each with its own scratch.
  using maker = std::function<const std::byte*(std::int64_t row, std::byte* scratch)>;
  /// Writes the floats that a row stood for before it got its type.
  using original = std::function<void(std::int64_t row, float* out)>;

  row_source(std::span<const std::byte> whole, std::uint64_t row_bytes)
      : whole_(whole), row_bytes_(row_bytes) {}
  explicit row_source(maker make, original before = {})
      : make_(std::move(make)), before_(std::move(before)) {}

  const std::byte* row(std::int64_t r, std::byte* scratch) const {
    return make_ ? make_(r, scratch) : whole_.data() + static_cast<std::uint64_t>(r) * row_bytes_;
  }
  /// True if rows are made; then nobody has validated them.
  bool made() const noexcept { return static_cast<bool>(make_); }
  /// What the rows were made from, if that can be told.
  const original& before() const noexcept { return before_; }
  /// The whole tensor, if it is in memory.
  std::span<const std::byte> whole() const noexcept { return whole_; }

 private:
  maker make_;
  original before_;
  std::span<const std::byte> whole_;
  std::uint64_t row_bytes_ = 0;
};

class model_view {
 public:
  virtual ~model_view() = default;

  /// For messages.
  virtual const std::string& path() const noexcept = 0;
  virtual const metadata& meta() const noexcept = 0;
  virtual const std::vector<tensor_info>& tensors() const noexcept = 0;
  /// Null if there is no such tensor.
  virtual const tensor_info* find(std::string_view name) const = 0;
  /// `t` is one of tensors(). The model must outlive the answer.
  virtual result<row_source> rows(const tensor_info& t) const = 0;

 protected:
  model_view() = default;
  model_view(const model_view&) = default;
  model_view(model_view&&) = default;
  model_view& operator=(const model_view&) = default;
  model_view& operator=(model_view&&) = default;
};

}  // namespace quantal::gguf
