#include <charconv>
#include <unordered_map>

#include "products.hpp"
#include "quantal/cuda/operations.hpp"

namespace quantal::mla {
namespace {

class device_memory {
 public:
  device_memory() = default;
  device_memory(const device_memory&) = delete;
  device_memory& operator=(const device_memory&) = delete;
  ~device_memory() { cudaFree(data_); }

  /// At least `bytes`, or null; what it held is lost when it grows.
  void* grow(std::size_t bytes) {
    if (bytes <= size_ && data_) return data_;
    cudaFree(data_);
    data_ = nullptr;
    size_ = cudaMalloc(&data_, std::max<std::size_t>(bytes, 256)) == cudaSuccess ? bytes : 0;
    return size_ >= bytes ? data_ : nullptr;
  }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

class device_products final : public products {
 public:
  device_products(std::int64_t layers, std::int64_t blocks) : layers_(layers), blocks_(blocks) {}

  std::optional<result<void>> mul_mat(const matrix& m, const mul_mat_args& a) override {
    const auto* ops = operations_for(m);
    const std::byte* weights = ops ? weights_of(m) : nullptr;
    if (!weights) return std::nullopt;
    mul_mat_args on_device = a;
    on_device.weights = weights + (a.weights - m.data);
    on_device.activation_stride = a.cols;
    on_device.out_stride = a.rows;
    const std::size_t bytes = ops->mul_mat_workspace(on_device, cuda::precision::bf16, device_);
    on_device.activations = copy_in(x_, a.activations, a.cols, a.activation_stride, a.n);
    on_device.out = static_cast<float*>(out_.grow(4 * static_cast<std::size_t>(a.n * a.rows)));
    void* workspace = workspace_.grow(bytes);
    if (!on_device.activations || !on_device.out || !workspace) return failed(m, "out of device memory");
    const status s = ops->mul_mat(on_device, cuda::precision::bf16, device_, workspace, bytes, nullptr);
    if (not_its_own(s)) return std::nullopt;
    if (s != status::ok) return failed(m, to_string(s));
    return copy_out(m, a.out, a.out_stride, on_device.out, a.rows, a.n);
  }

  std::optional<result<void>> mul_mat_id(const matrix& m, const mul_mat_id_args& a) override {
    const auto* ops = operations_for(m);
    const bool dense = a.out_slot_stride == a.rows && a.out_token_stride == a.used * a.rows;
    const std::byte* weights = ops && dense ? weights_of(m) : nullptr;
    if (!weights) return std::nullopt;
    mul_mat_id_args on_device = a;
    on_device.weights = weights;
    const std::size_t bytes = ops->mul_mat_id_workspace(on_device, cuda::precision::bf16, device_);
    const std::int64_t x = (a.tokens - 1) * a.token_stride + (a.used - 1) * a.slot_stride + a.cols;
    on_device.activations = copy_in(x_, a.activations, x, x, 1);
    on_device.ids = copy_in(ids_, a.ids, a.used, a.ids_stride, a.tokens);
    on_device.ids_stride = a.used;
    on_device.out =
        static_cast<float*>(out_.grow(4 * static_cast<std::size_t>(a.tokens * a.out_token_stride)));
    void* workspace = workspace_.grow(bytes);
    if (!on_device.activations || !on_device.ids || !on_device.out || !workspace)
      return failed(m, "out of device memory");
    const status s = ops->mul_mat_id(on_device, cuda::precision::bf16, device_, workspace, bytes, nullptr);
    if (not_its_own(s)) return std::nullopt;
    if (s != status::ok) return failed(m, to_string(s));
    return copy_out(m, a.out, a.out_token_stride, on_device.out, a.out_token_stride, a.tokens);
  }

  bool ready() {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return false;
    device_ = cuda::device_info::of(0);
    return device_.multiprocessors > 0;
  }

 private:
  static result<void> failed(const matrix& m, std::string_view why) {
    return error{"tensor '" + m.name + "' on CUDA: " + std::string(why)};
  }
  /// What the device's kernels do not take, and the processor's do.
  static bool not_its_own(status s) noexcept {
    return s == status::unsupported || s == status::bad_alignment || s == status::bad_stride;
  }

  const cuda::operations* operations_for(const matrix& m) const {
    std::int64_t block = blocks_;  // of no block: output
    constexpr std::string_view prefix = "blk.";
    if (m.name.starts_with(prefix))
      std::from_chars(m.name.data() + prefix.size(), m.name.data() + m.name.size(), block);
    const bool taken = block < blocks_ ? block >= blocks_ - layers_ : layers_ > blocks_;
    return taken ? cuda::find_operations(m.format) : nullptr;
  }

  const std::byte* weights_of(const matrix& m) {
    auto& memory = weights_[m.data];
    if (memory) return static_cast<const std::byte*>(memory->grow(0));
    memory = std::make_unique<device_memory>();
    const auto bytes = static_cast<std::size_t>((m.slices - 1) * m.slice_stride + m.rows * m.row_stride);
    void* to = memory->grow(bytes);
    if (to && cudaMemcpy(to, m.data, bytes, cudaMemcpyHostToDevice) == cudaSuccess)
      return static_cast<const std::byte*>(to);
    weights_.erase(m.data);
    return nullptr;
  }

  /// `rows` runs of `width` values, without the gaps between them.
  template <class T>
  static const T* copy_in(device_memory& to, const T* from, std::int64_t width, std::int64_t stride,
                          std::int64_t rows) {
    const auto bytes = [](std::int64_t n) { return static_cast<std::size_t>(n) * sizeof(T); };
    void* data = to.grow(bytes(width * rows));
    if (!data || cudaMemcpy2D(data, bytes(width), from, bytes(rows > 1 ? stride : width), bytes(width),
                              static_cast<std::size_t>(rows), cudaMemcpyHostToDevice) != cudaSuccess)
      return nullptr;
    return static_cast<const T*>(data);
  }
  static result<void> copy_out(const matrix& m, float* to, std::int64_t stride, const float* from,
                               std::int64_t width, std::int64_t rows) {
    const auto bytes = [](std::int64_t n) { return static_cast<std::size_t>(n) * sizeof(float); };
    const auto e = cudaMemcpy2D(to, bytes(rows > 1 ? stride : width), from, bytes(width), bytes(width),
                                static_cast<std::size_t>(rows), cudaMemcpyDeviceToHost);
    if (e != cudaSuccess) return failed(m, cudaGetErrorString(e));
    return {};
  }

  std::int64_t layers_, blocks_;
  cuda::device_info device_;
  std::unordered_map<const std::byte*, std::unique_ptr<device_memory>> weights_;
  device_memory x_, ids_, out_, workspace_;
};

}  // namespace

result<std::unique_ptr<products>> cuda_products(std::int64_t layers, std::int64_t blocks) {
  auto p = std::make_unique<device_products>(layers, blocks);
  if (!p->ready()) return error{"-ngl: no CUDA device"};
  return std::unique_ptr<products>(std::move(p));
}

}  // namespace quantal::mla
