// Arrays of other libraries as the library's functions want them: float32 rows, read in place wherever they lie as such.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>

namespace quantal::python {

namespace nb = nanobind;

/// Up to eight dimensions, outermost first.
class extents {
 public:
  static constexpr int most = 8;

  extents() = default;
  extents(std::initializer_list<std::int64_t> sizes) {
    for (const auto n : sizes) push(n);
  }

  int count() const noexcept { return count_; }
  std::int64_t operator[](int i) const noexcept { return sizes_[static_cast<std::size_t>(i)]; }
  std::int64_t& operator[](int i) noexcept { return sizes_[static_cast<std::size_t>(i)]; }
  std::int64_t back() const noexcept { return (*this)[count_ - 1]; }
  bool operator==(const extents& o) const noexcept { return count_ == o.count_ && sizes_ == o.sizes_; }

  void push(std::int64_t n);
  /// Without the first `n` dimensions.
  extents without_first(int n) const;
  /// With another last dimension.
  extents with_last(std::int64_t n) const;
  /// Product of all but the last dimension; ValueError where 64 bits do not hold it.
  std::int64_t rows() const;
  /// Product of all dimensions, as above.
  std::int64_t elements() const;
  nb::tuple tuple() const;

 private:
  std::array<std::int64_t, most> sizes_{};
  int count_ = 0;
};

/// "(3, 4)".
std::string text(const extents& e);

/// Raises an exception of this type; the GIL may be held or not. Bytes that are no UTF-8 (of paths, of damaged files) are shown
/// as \\xff.
[[noreturn]] void raise(PyObject* type, const std::string& message);
/// ValueError, TypeError.
[[noreturn]] void bad_value(const std::string& message);
[[noreturn]] void bad_type(const std::string& message);

/// str() of an object.
std::string shown(nb::handle h);

/// A str as UTF-8. `role` names it in messages: TypeError for other objects, ValueError for lone surrogates.
std::string text_of(nb::handle h, const std::string& role);

/// Dimensions from an integer or a sequence of integers; ValueError for negative ones.
extents extents_of(nb::handle shape);

enum class number : std::uint8_t { f32, f16, bf16, f64 };

/// A floating-point array of somebody else. Holds on to its memory.
class number_array {
 public:
  /// `role` names the argument in messages. TypeError and ValueError say what is wrong with it.
  static number_array of(nb::handle source, const char* role);

  const extents& shape() const noexcept { return shape_; }
  std::int64_t rows() const noexcept { return rows_; }
  std::int64_t cols() const noexcept { return shape_.back(); }
  /// Rows are float32 side by side within themselves: they are read where they lie.
  bool in_place() const noexcept { return in_place_; }
  /// Values between rows, if they all have the same distance and can be read in place.
  std::optional<std::int64_t> row_stride() const noexcept;
  const std::byte* data() const noexcept { return data_; }
  /// The row, either itself or converted into `scratch` of cols() values.
  const float* row(std::int64_t r, float* scratch) const noexcept;
  /// All rows, side by side.
  void copy_to(float* out) const noexcept;

 private:
  const std::byte* start_of(std::int64_t r) const noexcept;

  nb::ndarray<nb::ro> memory_;
  extents shape_, strides_;  ///< strides in bytes
  std::int64_t rows_ = 0;
  std::int64_t step_ = 0;  ///< bytes between rows; 0: their distances differ
  const std::byte* data_ = nullptr;
  number kind_ = number::f32;
  bool in_place_ = false;
};

/// Values between rows that all have the same distance, from strides in bytes of float32; nothing where they have not.
std::optional<std::int64_t> row_stride_of(const extents& shape, const extents& strides) noexcept;

/// The library that made an array on a device: it makes the results, on its current stream.
enum class array_library : std::uint8_t { none, torch, cupy };

/// TypeError for a dtype that is no floating-point one.
[[noreturn]] void bad_dtype(const std::string& role, nb::handle array);

/// A function of quantal._device.
nb::object device_helper(const char* name);

/// Where memory lies.
struct place {
  int cuda = -1;  ///< number of the CUDA device, or -1: in the memory of the process
  array_library library = array_library::none;

  bool on_device() const noexcept { return cuda >= 0; }
  /// "cpu", "cuda:0".
  std::string name() const { return on_device() ? "cuda:" + std::to_string(cuda) : "cpu"; }
};

/// An array on a CUDA device. Holds on to its memory, which is neither copied nor waited for.
class device_array {
 public:
  /// Nothing for what does not lie on a CUDA device. Takes DLPack and __cuda_array_interface__.
  static std::optional<device_array> of(nb::handle source);

  const place& where() const noexcept { return where_; }
  /// What the producer works on, where the memory is ready in the order of that stream alone; torch and cupy do not say.
  std::optional<std::intptr_t> stream() const noexcept { return stream_; }
  bool is_writable() const noexcept { return writable_; }
  const nb::ndarray<>& memory() const noexcept { return memory_; }
  extents shape() const;
  /// Bytes.
  extents strides() const;
  bool is_float32() const noexcept;
  /// float32, float16, bfloat16 or float64.
  bool is_floating() const noexcept;
  bool is_contiguous() const;

 private:
  static device_array from_torch(nb::handle source);
  static std::optional<device_array> from_interface(nb::handle source);
  static std::optional<device_array> from_dlpack(nb::handle source, array_library library);

  nb::ndarray<> memory_;
  place where_;
  std::optional<std::intptr_t> stream_;
  bool writable_ = true;
};

/// Float32 rows with one stride, in place or copied.
class float_matrix {
 public:
  explicit float_matrix(const number_array& from);
  std::span<const float> values() const noexcept { return values_; }
  std::int64_t stride() const noexcept { return stride_; }

 private:
  std::unique_ptr<float[]> copy_;
  std::span<const float> values_;
  std::int64_t stride_ = 0;
};

/// A float32 array that results are written to: a new one, or the caller's.
class float_output {
 public:
  /// `given`: None, or a writable float32 array of this shape whose rows lie side by side within themselves.
  float_output(nb::handle given, const extents& shape);
  float* data() noexcept { return data_; }
  std::int64_t stride() const noexcept { return stride_; }
  std::span<float> values() noexcept;
  /// The array for the caller, as torch.Tensor where `like` is one.
  nb::object result(nb::handle like) &&;

 private:
  void use(nb::handle given);

  extents shape_;
  std::unique_ptr<float[]> own_;
  nb::object given_;
  nb::ndarray<float, nb::device::cpu> memory_;
  float* data_ = nullptr;
  std::int64_t stride_ = 0;
};

/// A numpy array that owns the memory.
template <class T>
nb::object numpy_array(std::unique_ptr<T[]> memory, const extents& shape) {
  std::array<std::size_t, extents::most> sizes{};
  for (int i = 0; i < shape.count(); ++i)
    sizes[static_cast<std::size_t>(i)] = static_cast<std::size_t>(shape[i]);
  T* const data = memory.get();
  const nb::capsule owner(memory.release(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::cast(
      nb::ndarray<nb::numpy, T>(data, static_cast<std::size_t>(shape.count()), sizes.data(), owner));
}

/// A read-only numpy array of memory that `owner` keeps.
template <class T>
nb::object numpy_view(const void* data, const extents& shape, std::shared_ptr<const void> owner) {
  std::array<std::size_t, extents::most> sizes{};
  for (int i = 0; i < shape.count(); ++i)
    sizes[static_cast<std::size_t>(i)] = static_cast<std::size_t>(shape[i]);
  using held = std::shared_ptr<const void>;
  const nb::capsule keeper(new held(std::move(owner)),
                           [](void* p) noexcept { delete static_cast<held*>(p); });
  return nb::cast(nb::ndarray<nb::numpy, const T>(
      static_cast<const T*>(data), static_cast<std::size_t>(shape.count()), sizes.data(), keeper));
}

/// Memory that is not set to zero first; MemoryError, with its size, where there is none.
template <class T>
std::unique_ptr<T[]> uninitialized(std::int64_t count) {
  T* const memory = new (std::nothrow) T[static_cast<std::size_t>(count)];
  if (!memory)
    raise(PyExc_MemoryError,
          "no memory for " + std::to_string(count) + " x " + std::to_string(sizeof(T)) + " bytes");
  return std::unique_ptr<T[]>(memory);
}

}  // namespace quantal::python
