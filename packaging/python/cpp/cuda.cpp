// A build with CUDA: products and decoding where the blocks lie.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "device.hpp"
#include "operations.hpp"
#include "quantal/cuda/operations.hpp"
#include "quantal/runtime.hpp"

namespace quantal::python {
namespace {

[[noreturn]] void device_failed(const std::string& what, cudaError_t e) {
  raise(PyExc_RuntimeError, what + ": " + cudaGetErrorString(e));
}

/// Makes a device the current one as long as it lives.
class current_device {
 public:
  explicit current_device(int device) {
    if (cudaGetDevice(&before_) == cudaSuccess && before_ == device) return;
    if (const cudaError_t e = cudaSetDevice(device); e != cudaSuccess)
      device_failed("cuda:" + std::to_string(device), e);
    changed_ = true;
  }
  ~current_device() {
    if (changed_) cudaSetDevice(before_);
  }
  current_device(const current_device&) = delete;
  current_device& operator=(const current_device&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

const cuda::operations& operations_of(const format_info& f) {
  const cuda::operations* const found = cuda::find_operations(f.gguf_id);
  if (!found) bad_value(cuda::missing_format(f.name));
  return *found;
}

cuda::precision precision_of(const std::string& activation) {
  if (activation == "q8") return cuda::precision::q8;
  if (activation == "bf16") return cuda::precision::bf16;
  if (activation == "fp8") return cuda::precision::fp8;
  bad_value("activation: '" + activation +
            "' is neither 'q8' nor 'bf16' nor 'fp8', which products on CUDA devices have");
}

const char* name_of(array_library l) noexcept { return l == array_library::torch ? "torch" : "cupy"; }

/// An operand on the device of the weights; TypeError for others.
device_array operand(nb::handle given, const char* role, const place& weights) {
  auto found = device_array::of(given);
  if (!found || found->where().cuda != weights.cuda)
    bad_type(std::string(role) + ": lies on " + (found ? found->where().name() : "the CPU, or is no array") +
             ", and the weights on " + weights.name());
  return std::move(*found);
}

/// What the library of an operand makes of it, where it does not lie as the kernels want it.
device_array converted(const device_array& from, nb::handle given, const char* role, bool integers) {
  const place& where = from.where();
  if (where.library == array_library::none)
    bad_type(std::string(role) + ": not " + (integers ? "int32 values" : "float32 rows") +
             " side by side, and only arrays of torch and cupy are converted");
  return operand(device_helper("converted")(name_of(where.library), given, integers), role, where);
}

/// What is put on a stream from now on begins when what lies on the other one now is done.
void order(std::intptr_t earlier, std::intptr_t later, const char* role) {
  if (earlier == later) return;
  cudaEvent_t done{};
  cudaError_t e = cudaEventCreateWithFlags(&done, cudaEventDisableTiming);
  if (e == cudaSuccess) {
    e = cudaEventRecord(done, reinterpret_cast<cudaStream_t>(earlier));
    if (e == cudaSuccess) e = cudaStreamWaitEvent(reinterpret_cast<cudaStream_t>(later), done, 0);
    cudaEventDestroy(done);  // what waits for it does so all the same
  }
  if (e != cudaSuccess) device_failed(std::string(role) + ": its stream", e);
}

/// Products want what slices of rows do not always have.
void check_alignment(const char* what, const quantized& w) {
  if (!begins_aligned(w.device_bytes().data()))
    bad_value(std::string(what) + ": the rows of " + w.description() + " on " + w.where().name() +
              " do not begin at a multiple of 16 bytes, as the kernels want it: begin the slice elsewhere, "
              "or copy it");
}

/// Float32 rows with one stride on a device.
class device_rows {
 public:
  device_rows(nb::handle given, const char* role, const place& weights)
      : array_(operand(given, role, weights)) {
    if (!array_.is_floating()) bad_dtype(role, given);
    if (!fits()) array_ = converted(array_, given, role, false);
    shape_ = array_.shape();
    if (shape_.count() == 0) bad_value(std::string(role) + ": a 0-dimensional array has no rows");
    rows_ = shape_.rows(), stride_ = *row_stride_of(shape_, array_.strides());
  }
  const place& where() const noexcept { return array_.where(); }
  const device_array& array() const noexcept { return array_; }
  const extents& shape() const noexcept { return shape_; }
  std::int64_t rows() const noexcept { return rows_; }
  std::int64_t cols() const noexcept { return shape_.back(); }
  std::int64_t stride() const noexcept { return stride_; }
  std::span<float> values() const noexcept {
    const std::int64_t n = rows_ ? (rows_ - 1) * stride_ + cols() : 0;
    return {static_cast<float*>(const_cast<void*>(static_cast<const void*>(array_.memory().data()))),
            static_cast<std::size_t>(n)};
  }

 private:
  bool fits() const {
    const extents shape = array_.shape(), strides = array_.strides();
    return array_.is_float32() && shape.count() > 0 &&
           (shape.back() <= 1 || strides.back() == static_cast<std::int64_t>(sizeof(float))) &&
           row_stride_of(shape, strides);
  }

  device_array array_;
  extents shape_;
  std::int64_t rows_ = 0, stride_ = 0;
};

/// The caller's memory for results, or nothing.
class device_output {
 public:
  device_output(nb::handle out, const extents& shape, const place& where) {
    if (out.is_none()) return;
    array_ = operand(out, "out", where);
    const device_array& a = *array_;
    if (!a.is_writable()) bad_type("out: a read-only array on a CUDA device");
    const auto stride =
        a.is_float32() && a.shape().count() > 0 ? row_stride_of(a.shape(), a.strides()) : std::nullopt;
    const bool dense =
        stride && (a.shape().back() <= 1 || a.strides().back() == static_cast<std::int64_t>(sizeof(float)));
    if (!dense) bad_type("out: not float32 rows that lie one behind another");
    if (!(a.shape() == shape)) bad_value("out: shape " + text(a.shape()) + ", wanted " + text(shape));
    stride_ = *stride;
    given_ = nb::borrow(out);
  }
  explicit operator bool() const noexcept { return array_.has_value(); }
  const device_array& array() const noexcept { return *array_; }
  float* data() const noexcept {
    return static_cast<float*>(const_cast<void*>(static_cast<const void*>(array_->memory().data())));
  }
  std::int64_t stride() const noexcept { return stride_; }
  const nb::object& given() const noexcept { return given_; }

 private:
  std::optional<device_array> array_;
  std::int64_t stride_ = 0;
  nb::object given_;
};

/// Results, a workspace and the stream: from the library that made the operands, or from the caller and the driver.
class launch {
 public:
  launch(const place& where, std::intptr_t stream, const device_output& out, const extents& shape,
         std::size_t workspace)
      : shape_(shape), size_(workspace), stream_(reinterpret_cast<cudaStream_t>(stream)) {
    if (out) result_ = out.given(), data_ = out.data(), stride_ = out.stride();
    const bool own = where.library == array_library::none;
    if (own && !out) bad_value("out: needed for arrays that are of neither torch nor cupy");
    if (!own) from_library(where);
    if (out) join(out.array(), "out");
    if (own) allocate(where);
  }
  ~launch() {
    if (own_space_) cudaFreeAsync(space_, stream_);
  }
  launch(const launch&) = delete;
  launch& operator=(const launch&) = delete;

  matrix_view<float> results() const {
    const std::int64_t rows = shape_.rows(), cols = shape_.back();
    return {{data_, static_cast<std::size_t>(rows ? (rows - 1) * stride_ + cols : 0)}, rows, cols, stride_};
  }
  void* workspace() const noexcept { return space_; }
  std::size_t workspace_size() const noexcept { return size_; }
  cudaStream_t stream() const noexcept { return stream_; }
  /// Lets the launch wait for the stream of an array, and result() that stream for the launch.
  void join(const device_array& a, const char* role) {
    if (!a.stream()) return;
    order(*a.stream(), number(), role);
    joined_.push_back(*a.stream());
  }
  nb::object result() const {
    for (const std::intptr_t other : joined_) order(number(), other, "out");
    return result_;
  }

 private:
  std::intptr_t number() const noexcept { return reinterpret_cast<std::intptr_t>(stream_); }
  void allocate(const place& where) {
    const cudaError_t e = cudaMallocAsync(&space_, std::max<std::size_t>(size_, 1), stream_);
    if (e != cudaSuccess)
      device_failed("workspace of " + std::to_string(size_) + " bytes on " + where.name(), e);
    own_space_ = true;
  }
  void from_library(const place& where) {
    const bool make = !result_.is_valid();
    const auto made = nb::cast<nb::tuple>(device_helper("launch_memory")(
        name_of(where.library), where.cuda, make ? nb::object(shape_.tuple()) : nb::none(), size_));
    if (make) {
      result_ = made[0];
      data_ = reinterpret_cast<float*>(nb::cast<std::uintptr_t>(nb::object(made[1])));
      stride_ = shape_.back();
    }
    kept_ = made[2];
    space_ = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(nb::object(made[3])));
    stream_ = reinterpret_cast<cudaStream_t>(nb::cast<std::intptr_t>(nb::object(made[4])));
  }

  extents shape_;
  std::size_t size_;
  cudaStream_t stream_;
  std::vector<std::intptr_t> joined_;
  nb::object result_, kept_;
  void* space_ = nullptr;
  bool own_space_ = false;
  float* data_ = nullptr;
  std::int64_t stride_ = 0;
};

[[noreturn]] void refused(const char* what, const quantized& w, const std::string& operands, status s) {
  std::string why =
      std::string(what) + ": weights " + w.description() + operands + ": " + std::string(to_string(s));
  if (s == status::device_error) device_failed(why, cudaPeekAtLastError());
  bad_value(why);
}

/// int32 ids side by side.
device_array ids_on_device(nb::handle given, const place& weights) {
  device_array a = operand(given, "ids", weights);
  const auto is_int32 = [](const device_array& ids) {
    const auto t = ids.memory().dtype();
    return t.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Int) && t.bits == 32 &&
           ids.is_contiguous();
  };
  const auto code = static_cast<nb::dlpack::dtype_code>(a.memory().dtype().code);
  if (code != nb::dlpack::dtype_code::Int && code != nb::dlpack::dtype_code::UInt)
    bad_type("ids: not integers");
  if (a.shape().count() != 2)
    bad_value("ids: " + std::to_string(a.shape().count()) + " dimensions, wanted (tokens, slots)");
  return is_int32(a) ? std::move(a) : converted(a, given, "ids", true);
}

}  // namespace

nb::tuple cuda_formats() {
  nb::list out;
  for (const auto* o : cuda::all_operations()) out.append(nb::str(o->name.data(), o->name.size()));
  return nb::tuple(out);
}

void require_cuda(const format_info& f) { static_cast<void>(operations_of(f)); }

int device_of(const void* memory) {
  cudaPointerAttributes a{};
  if (cudaPointerGetAttributes(&a, memory) == cudaSuccess && a.device >= 0) return a.device;
  static_cast<void>(cudaGetLastError());
  return 0;
}

void wait_for_producer(const device_array& a) {
  if (!a.stream()) return;
  const current_device guard(a.where().cuda);
  cudaError_t e;
  {
    const nb::gil_scoped_release released;
    e = cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(*a.stream()));
  }
  if (e != cudaSuccess) device_failed("data: its stream on " + a.where().name(), e);
}

quantized copy_of_device(const quantized& q) {
  const auto from = q.device_bytes();
  std::shared_ptr<std::byte[]> to(uninitialized<std::byte>(static_cast<std::int64_t>(from.size())).release());
  const current_device guard(q.where().cuda);
  cudaError_t e;
  {
    const nb::gil_scoped_release released;
    e = cudaDeviceSynchronize();
    if (e == cudaSuccess) e = cudaMemcpy(to.get(), from.data(), from.size(), cudaMemcpyDeviceToHost);
  }
  if (e != cudaSuccess) device_failed("copy of " + q.description() + " from " + q.where().name(), e);
  const std::byte* const start = to.get();
  return {q.format(), q.shape(), start, std::move(to)};
}

nb::object dequantize_on_device(const quantized& q, nb::handle out) {
  const cuda::operations& o = operations_of(q.format());
  const device_output given(out, q.shape(), q.where());
  const current_device guard(q.where().cuda);
  const launch l(q.where(), 0, given, q.shape(), 0);
  const matrix_view<float> to = l.results();
  const status s = o.dequantize(q.device_bytes().data(), q.rows(), q.cols(), q.row_bytes(), to.data.data(),
                                to.stride, l.stream());
  if (s != status::ok) refused("dequantize", q, "", s);
  return l.result();
}

nb::object mul_mat_on_device(const quantized& w, nb::handle x, nb::handle out,
                             const std::string& activation) {
  const cuda::operations& o = operations_of(w.format());
  const cuda::precision precision = precision_of(activation);
  check_alignment("mul_mat", w);
  const device_rows given(x, "x", w.where());
  check_vectors(w, given.shape());
  const std::int64_t rows = w.shape()[0];
  const extents shape = given.shape().with_last(rows);
  const device_output results(out, shape, w.where());
  const current_device guard(w.where().cuda);
  const runtime::weight_view weights(w.format().gguf_id, w.device_bytes(), rows, w.cols());
  const matrix_view<const float> in(given.values(), given.rows(), w.cols(), given.stride());
  const auto device = cuda::device_info::of(w.where().cuda);
  const std::size_t space = o.mul_mat_workspace(args_of(weights, in, {}), precision, device);
  const launch l(given.where(), given.array().stream().value_or(0), results, shape, space);
  status s = runtime::detail::check_views(weights, in, l.results());
  if (s == status::ok)
    s = o.mul_mat(args_of(weights, in, l.results()), precision, device, l.workspace(), l.workspace_size(),
                  l.stream());
  if (s != status::ok) refused("mul_mat", w, ", x " + text(given.shape()), s);
  return l.result();
}

nb::object mul_mat_id_on_device(const quantized& w, nb::handle x, nb::handle ids, nb::handle out,
                                const std::string& activation) {
  const cuda::operations& o = operations_of(w.format());
  const cuda::precision precision = precision_of(activation);
  check_alignment("mul_mat_id", w);
  const device_array chosen = ids_on_device(ids, w.where());
  const device_rows given(x, "x", w.where());
  const std::int64_t tokens = chosen.shape()[0], slots = chosen.shape()[1], rows = w.shape()[1],
                     cols = w.cols();
  const bool shared = check_slots(w, given.shape(), tokens, slots);
  const device_output results(out, {tokens, slots, rows}, w.where());
  const current_device guard(w.where().cuda);
  const runtime::weight_stack_view weights(w.format().gguf_id, w.device_bytes(), w.shape()[0], rows, cols);
  const std::span<const float> values = given.values();
  const auto in =
      shared ? slots_view<const float>(matrix_view<const float>(values, tokens, cols, given.stride()))
             : slots_view<const float>(values, tokens, slots, cols, given.stride() * slots, given.stride());
  const matrix_view<const std::int32_t> experts(
      {static_cast<const std::int32_t*>(chosen.memory().data()), static_cast<std::size_t>(tokens * slots)},
      tokens, slots);
  const auto device = cuda::device_info::of(w.where().cuda);
  const std::size_t space =
      o.mul_mat_id_workspace(args_of(weights, in, experts, slots_view<float>{}), precision, device);
  launch l(given.where(), given.array().stream().value_or(0), results, {tokens, slots, rows}, space);
  l.join(chosen, "ids");
  const matrix_view<float> flat = l.results();
  const slots_view<float> to(flat.data, tokens, slots, rows, flat.stride * slots, flat.stride);
  status s = runtime::detail::check_views(weights, in, experts, to);
  if (s == status::ok)
    s = o.mul_mat_id(args_of(weights, in, experts, to), precision, device, l.workspace(), l.workspace_size(),
                     l.stream());
  if (s != status::ok) refused("mul_mat_id", w, ", x " + text(given.shape()), s);
  return l.result();
}

}  // namespace quantal::python
