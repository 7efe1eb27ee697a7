#include "operations.hpp"

#include <cmath>
#include <cstring>
#include <vector>

#include "device.hpp"
#include "quantal/finite.hpp"
#include "quantal/testing/accuracy.hpp"
#include "threads.hpp"

namespace quantal::python {
namespace {

constexpr std::int64_t worth_threads = 1 << 15;          ///< values to quantize or to decode
constexpr std::int64_t worth_product_threads = 1 << 22;  ///< multiplications

/// One vector of weights for every row, or one for each run of rows.
class importance_rows {
 public:
  importance_rows(nb::handle given, std::int64_t rows, std::int64_t cols) {
    if (given.is_none()) return;
    const nb::object weights =
        nb::hasattr(given, "weights") ? nb::object(given.attr("weights")) : nb::borrow(given);
    const number_array a = number_array::of(weights, "importance");
    if (a.cols() != cols || a.rows() < 1 || (rows && rows % a.rows() != 0))
      bad_value("importance: shape " + text(a.shape()) + " does not fit " + std::to_string(rows) +
                " rows of " + std::to_string(cols) + " columns: wanted (" + std::to_string(cols) +
                ",), or (n, " + std::to_string(cols) + ") with n a divisor of the rows");
    values_.resize(static_cast<std::size_t>(a.shape().elements()));
    a.copy_to(values_.data());
    for (std::size_t i = 0; i < values_.size(); ++i)
      if (!is_finite(values_[i]) || values_[i] < 0)
        bad_value("importance: element " + std::to_string(i) + " is " + std::to_string(values_[i]) +
                  "; importances are finite and not negative");
    cols_ = cols, rows_per_vector_ = std::max<std::int64_t>(rows / a.rows(), 1);
  }
  explicit operator bool() const noexcept { return !values_.empty(); }
  const float* of(std::int64_t row) const noexcept {
    return values_.empty() ? nullptr : values_.data() + row / rows_per_vector_ * cols_;
  }

 private:
  std::vector<float> values_;
  std::int64_t cols_ = 0, rows_per_vector_ = 1;
};

/// A row of floats for each worker, where rows have to be converted.
class scratch_rows {
 public:
  scratch_rows(int workers, std::int64_t cols, bool needed = true)
      : cols_(needed ? cols : 0), values_(static_cast<std::size_t>(cols_ * workers)) {}
  float* of(int worker) noexcept { return values_.data() + worker * cols_; }

 private:
  std::int64_t cols_;
  std::vector<float> values_;
};

/// "not finite" becomes the element that is not.
std::string cause(const number_array& a, std::int64_t row, status s) {
  if (s != status::not_finite) return std::string(to_string(s));
  std::vector<float> scratch(static_cast<std::size_t>(a.cols()));
  const float* const values = a.row(row, scratch.data());
  for (std::int64_t c = 0; c < a.cols(); ++c)
    if (!is_finite(values[c])) return "column " + std::to_string(c) + " is " + std::to_string(values[c]);
  return std::string(to_string(s));
}

activation activation_of(const std::string& name) {
  if (name == "q8") return activation::q8;
  if (name == "exact") return activation::exact;
  bad_value("activation: '" + name + "' is neither 'q8' nor 'exact', which products on the CPU have");
}

[[noreturn]] void refused(const char* what, const quantized& w, const extents& x, status s) {
  bad_value(std::string(what) + ": weights " + w.description() + ", x " + text(x) + ": " +
            std::string(to_string(s)));
}

std::int64_t product_size(std::int64_t rows, std::int64_t cols, std::int64_t vectors) noexcept {
  std::int64_t out;
  if (__builtin_mul_overflow(rows * cols, vectors, &out)) return worth_product_threads;
  return out;
}

/// Expert numbers as int32, in place where they are; ValueError for those that no expert has.
class expert_ids {
 public:
  expert_ids(nb::handle given, std::int64_t experts) {
    nb::ndarray<nb::ro, nb::device::cpu> a;
    if (!nb::try_cast(given, a, false)) bad_type("ids: not an array of integers on the CPU");
    const auto code = static_cast<nb::dlpack::dtype_code>(a.dtype().code);
    const bool is_signed = code == nb::dlpack::dtype_code::Int;
    if ((!is_signed && code != nb::dlpack::dtype_code::UInt) || a.dtype().lanes != 1)
      bad_type("ids: not integers");
    if (a.ndim() != 2) bad_value("ids: " + std::to_string(a.ndim()) + " dimensions, wanted (tokens, slots)");
    tokens_ = static_cast<std::int64_t>(a.shape(0)), slots_ = static_cast<std::int64_t>(a.shape(1));
    values_.reserve(a.size());
    for (std::int64_t t = 0; t < tokens_; ++t)
      for (std::int64_t s = 0; s < slots_; ++s)
        push(a, t * a.stride(0) + s * a.stride(1), is_signed, experts);
  }
  std::int64_t tokens() const noexcept { return tokens_; }
  std::int64_t slots() const noexcept { return slots_; }
  matrix_view<const std::int32_t> view() const noexcept {
    return {std::span<const std::int32_t>(values_), tokens_, slots_};
  }

 private:
  void push(const nb::ndarray<nb::ro, nb::device::cpu>& a, std::int64_t at, bool is_signed,
            std::int64_t experts) {
    const std::size_t bytes = a.itemsize();
    const auto* const from = static_cast<const std::byte*>(static_cast<const void*>(a.data()));
    std::int64_t id = 0;
    std::memcpy(&id, from + at * static_cast<std::int64_t>(bytes), bytes);
    const int unused = static_cast<int>(64 - 8 * bytes);
    if (is_signed) id = static_cast<std::int64_t>(static_cast<std::uint64_t>(id) << unused) >> unused;
    if (id < 0 || id >= experts)
      bad_value("ids: element " + std::to_string(values_.size()) + " is " + std::to_string(id) +
                ", and there are " + std::to_string(experts) + " experts");
    values_.push_back(static_cast<std::int32_t>(id));
  }

  std::vector<std::int32_t> values_;
  std::int64_t tokens_ = 0, slots_ = 0;
};

/// What error() measures against: rows of a quantized array, or of another array of numbers.
class decoded_rows {
 public:
  explicit decoded_rows(nb::handle given) {
    if (nb::isinstance<quantized>(given))
      quantized_ = &nb::cast<const quantized&>(given), bytes_ = quantized_->bytes().data(),
      ops_ = runtime::best_variant().find(quantized_->format().gguf_id);
    else
      array_ = number_array::of(given, "decoded");
  }
  const extents& shape() const noexcept { return array_ ? array_->shape() : quantized_->shape(); }
  const float* row(std::int64_t r, float* scratch) const noexcept {
    if (array_) return array_->row(r, scratch);
    ops_->dequantize_row(bytes_ + r * quantized_->row_bytes(), scratch, quantized_->cols());
    return scratch;
  }

 private:
  std::optional<number_array> array_;
  const quantized* quantized_ = nullptr;
  const std::byte* bytes_ = nullptr;
  const runtime::format_ops* ops_ = nullptr;
};

/// Sums in the order of the rows, whatever the threads: one accuracy per run of rows.
testing::accuracy compare(const number_array& original, const decoded_rows& decoded,
                          const importance_rows& importance, std::optional<int> threads) {
  const std::int64_t rows = original.rows(), cols = original.cols();
  workers pool(threads, original.shape().elements(), worth_threads);
  scratch_rows first(pool.count(), cols), second(pool.count(), cols);
  const std::int64_t run = std::max<std::int64_t>(1, (1 << 18) / std::max<std::int64_t>(cols, 1));
  const std::int64_t runs = (rows + run - 1) / run;
  std::vector<testing::accuracy> sums(static_cast<std::size_t>(runs));
  row_failure none;
  for_rows(runs, run * cols, decoding, pool, none, [&](std::int64_t i, int worker) {
    for (std::int64_t r = i * run; r < std::min(rows, (i + 1) * run); ++r)
      sums[static_cast<std::size_t>(i)].add(original.row(r, first.of(worker)),
                                            decoded.row(r, second.of(worker)), importance.of(r), cols);
    return status::ok;
  });
  testing::accuracy all;
  for (const auto& s : sums) all += s;
  return all;
}

nb::dict error(nb::handle original, nb::handle decoded, nb::handle importance, std::optional<int> threads) {
  const number_array a = number_array::of(original, "original");
  const decoded_rows b(decoded);
  if (!(a.shape() == b.shape()))
    bad_value("error: shapes " + text(a.shape()) + " and " + text(b.shape()) + " differ");
  const importance_rows w(importance, a.rows(), a.cols());
  const testing::accuracy found = compare(a, b, w, threads);
  nb::dict out;
  out["nmse"] = found.nmse();
  if (w) out["wnmse"] = found.nmse_weighted();
  out["cosine"] = found.cosine();
  out["max_error"] = found.max_error;
  return out;
}

}  // namespace

quantized quantize(nb::handle array, nb::handle format, nb::handle importance, std::optional<int> threads) {
  const number_array x = number_array::of(array, "array");
  const format_info& f = format_of(format);
  const runtime::quantizer encode = runtime::best_variant().find_quantizer(f.gguf_id);
  if (!encode) bad_value("quantize: " + std::string(f.name) + " has no quantizer");
  if (x.shape().count() > 4) bad_value("quantize: shape " + text(x.shape()) + " has more than 4 dimensions");
  const std::int64_t rows = x.rows(), cols = x.cols(), row_bytes = f.row_bytes(cols),
                     size = bytes_for(f, x.shape());
  const importance_rows weights(importance, rows, cols);
  std::shared_ptr<std::byte[]> bytes(uninitialized<std::byte>(size).release());
  workers pool(threads, x.shape().elements(), worth_threads);
  scratch_rows scratch(pool.count(), cols, !x.in_place());
  row_failure failure;
  for_rows(rows, cols, searching, pool, failure, [&](std::int64_t r, int worker) {
    return encode(x.row(r, scratch.of(worker)), weights.of(r), bytes.get() + r * row_bytes, cols);
  });
  if (failure.row() >= 0)
    bad_value("quantize: row " + std::to_string(failure.row()) + " of an array of shape " + text(x.shape()) +
              " to " + std::string(f.name) + ": " + cause(x, failure.row(), failure.what()));
  const std::byte* const start = bytes.get();
  return {f, x.shape(), start, std::move(bytes)};
}

nb::object dequantize(const quantized& q, nb::handle out, std::optional<int> threads) {
  if (q.where().on_device()) return dequantize_on_device(q, out);
  const std::byte* const bytes = q.bytes().data();
  float_output result(out, q.shape());
  workers pool(threads, q.shape().elements(), worth_threads);
  const auto* const ops = runtime::best_variant().find(q.format().gguf_id);
  row_failure none;
  const std::int64_t cols = q.cols(), row_bytes = q.row_bytes(), stride = result.stride();
  float* const to = result.data();
  for_rows(q.rows(), cols, decoding, pool, none, [=](std::int64_t r, int) {
    ops->dequantize_row(bytes + r * row_bytes, to + r * stride, cols);
    return status::ok;
  });
  return std::move(result).result(nb::none());
}

void check_vectors(const quantized& w, const extents& x) {
  if (x.back() != w.cols())
    bad_value("mul_mat: weights " + w.description() + " want rows of " + std::to_string(w.cols()) +
              " values, x is " + text(x));
}

bool check_slots(const quantized& w, const extents& x, std::int64_t tokens, std::int64_t slots) {
  const extents shared{tokens, w.cols()}, each{tokens, slots, w.cols()};
  if (!(x == shared) && !(x == each))
    bad_value("mul_mat_id: weights " + w.description() + ", ids " + text({tokens, slots}) + ": x is " +
              text(x) + ", wanted " + text(shared) + " or " + text(each));
  return x == shared;
}

nb::object mul_mat(const quantized& w, nb::handle x, nb::handle out, const std::string& policy,
                   std::optional<int> threads) {
  if (w.shape().count() != 2) bad_value("mul_mat: weights " + w.description() + " are not a matrix");
  if (w.where().on_device()) return mul_mat_on_device(w, x, out, policy);
  const number_array given = number_array::of(x, "x");
  check_vectors(w, given.shape());
  const std::int64_t rows = w.shape()[0], n = given.rows();
  const product_options o{.policy = activation_of(policy)};
  const float_matrix vectors(given);
  float_output result(out, given.shape().with_last(rows));
  const runtime::weight_view weights(w.format().gguf_id, w.bytes(), rows, w.cols());
  const matrix_view<const float> in(vectors.values(), n, w.cols(), vectors.stride());
  const matrix_view<float> to(result.values(), n, rows, result.stride());
  const auto space = static_cast<std::int64_t>(runtime::mul_mat_workspace(weights, in, o.policy));
  const auto workspace = uninitialized<std::byte>(space);
  workers pool(threads, product_size(rows, w.cols(), n), worth_product_threads);
  status s = status::ok;
  {
    const nb::gil_scoped_release released;
    s = runtime::mul_mat(weights, in, to,
                         {o.policy, pool.executor(), {workspace.get(), static_cast<std::size_t>(space)}});
  }
  if (s != status::ok) refused("mul_mat", w, given.shape(), s);
  return std::move(result).result(x);
}

nb::object mul_mat_id(const quantized& w, nb::handle x, nb::handle ids, nb::handle out,
                      const std::string& policy, std::optional<int> threads) {
  if (w.shape().count() != 3)
    bad_value("mul_mat_id: weights " + w.description() + " are not (experts, rows, cols)");
  if (w.where().on_device()) return mul_mat_id_on_device(w, x, ids, out, policy);
  const number_array given = number_array::of(x, "x");
  const expert_ids chosen(ids, w.shape()[0]);
  const std::int64_t tokens = chosen.tokens(), slots = chosen.slots(), rows = w.shape()[1], cols = w.cols();
  const bool shared = check_slots(w, given.shape(), tokens, slots);
  const activation kind = activation_of(policy);
  const float_matrix vectors(given);
  const std::int64_t stride = vectors.stride();
  float_output result(out, {tokens, slots, rows});
  const runtime::weight_stack_view weights(w.format().gguf_id, w.bytes(), w.shape()[0], rows, cols);
  const auto in =
      shared ? slots_view<const float>(matrix_view<const float>(vectors.values(), tokens, cols, stride))
             : slots_view<const float>(vectors.values(), tokens, slots, cols, stride * slots, stride);
  const slots_view<float> to(result.values(), tokens, slots, rows, result.stride() * slots, result.stride());
  const auto space = static_cast<std::int64_t>(runtime::mul_mat_id_workspace(weights, in, slots, kind));
  const auto workspace = uninitialized<std::byte>(space);
  workers pool(threads, product_size(rows, cols, tokens * slots), worth_product_threads);
  status s = status::ok;
  {
    const nb::gil_scoped_release released;
    s = runtime::mul_mat_id(weights, in, chosen.view(), to,
                            {kind, pool.executor(), {workspace.get(), static_cast<std::size_t>(space)}});
  }
  if (s != status::ok) refused("mul_mat_id", w, given.shape(), s);
  return std::move(result).result(x);
}

void bind_operations(nb::module_& m) {
  using namespace nb::literals;
  m.def("quantize", &quantize, "array"_a, "format"_a, "importance"_a = nb::none(), nb::kw_only(),
        "threads"_a = nb::none(),
        nb::sig("def quantize(array: ArrayLike, format: FormatLike, importance: ArrayLike | Importance | "
                "None = None, *, "
                "threads: int | None = None) -> QuantizedArray"),
        R"(Quantizes an array of weights, row by row.

array: (..., rows, cols), 1 to 4 dimensions of float32, float16, bfloat16 or float64 on the CPU; cols is a multiple of
    the format's block. float32 rows are read in place, others are converted one at a time.
format: a name ("q4_K", in any case) or the type number of GGUF files.
importance: one weight per column, (cols,), or (n, cols) where each vector serves rows / n consecutive rows; finite and
    not negative. Only ratios within a vector matter.
threads: 1 to 1024; None: all cores where there is enough to do. The bytes do not depend on it.

Raises ValueError for shapes that do not fit, NaN and infinities (it names row and column). Ctrl-C ends it.)");
  m.def(
      "dequantize",
      [](nb::handle data, nb::handle format, nb::handle shape, nb::handle out, std::optional<int> threads) {
        return dequantize(from_buffer(data, format, shape), out, threads);
      },
      "data"_a, "format"_a, "shape"_a, "out"_a = nb::none(), nb::kw_only(), "threads"_a = nb::none(),
      nb::sig("def dequantize(data: Buffer, format: FormatLike, shape: int | Sequence[int], out: FloatArray "
              "| None = "
              "None, *, threads: int | None = None) -> FloatArray"),
      R"(Decodes raw blocks, bit-exactly.

data: bytes, or anything with contiguous memory, of exactly the bytes that format and shape say.
shape: (..., rows, cols) in weights, 1 to 4 dimensions.
out: a float32 array of that shape to write to.

Returns a float32 array of that shape.)");
  m.def("mul_mat", &mul_mat, "weights"_a, "x"_a, "out"_a = nb::none(), nb::kw_only(), "activation"_a = "q8",
        "threads"_a = nb::none(),
        nb::sig("def mul_mat(weights: QuantizedArray, x: A, out: FloatArray | None = None, *, activation: "
                "Activation = 'q8', threads: int | None = None) -> A"),
        R"(out[..., r] = sum over c of weights[r, c] * x[..., c].

weights: (rows, cols). x: (..., cols), float32 in place where rows have one distance, other floats converted; on the device
    of the weights where they are on one.
out: a float32 array (..., rows) to write to.
activation: "q8" rounds x to int8 with a scale per 128 values (normalised MSE <= 5e-5), "exact" keeps float32. On a CUDA
    device: "bf16" (relative error about 3e-3), "q8" where that is faster (about 1e-2), "fp8" (about 4e-2).
threads: None: all cores for large products, else the calling thread.

Returns (..., rows), float32: a torch.Tensor for a torch.Tensor, a cupy array for one, else a numpy array. Kernels of a
device are launched on the current stream of torch or cupy, and not waited for.)");
  m.def(
      "mul_mat_id", &mul_mat_id, "weights"_a, "x"_a, "ids"_a, "out"_a = nb::none(), nb::kw_only(),
      "activation"_a = "q8", "threads"_a = nb::none(),
      nb::sig(
          "def mul_mat_id(weights: QuantizedArray, x: A, ids: IntArray, out: FloatArray | None = None, *, "
          "activation: Activation = 'q8', threads: int | None = None) -> A"),
      R"(out[t, j, r] = sum over c of weights[ids[t, j], r, c] * x[t, j, c]: products of a mixture of experts.

weights: (experts, rows, cols). ids: (tokens, slots), integers below experts (on a device others are not seen, and their
    results are NaN).
x: (tokens, slots, cols), or (tokens, cols) where all slots of a token share its vector.

Returns (tokens, slots, rows), float32; out, activation and threads as in mul_mat.)");
  m.def(
      "error", &error, "original"_a, "decoded"_a, "importance"_a = nb::none(), nb::kw_only(),
      "threads"_a = nb::none(),
      nb::sig("def error(original: ArrayLike, decoded: ArrayLike | QuantizedArray, importance: ArrayLike | "
              "Importance "
              "| None = None, *, threads: int | None = None) -> dict[str, float]"),
      R"(How far quantized weights are from their source, in float64; quantized rows are decoded one at a time.

original, decoded: arrays of one shape. importance: as for quantize().

Returns the measures of quantal-validate: nmse (squared error / squared weights), wnmse (the same, weighted by
importance; only with it), cosine (of the angle between both), max_error (largest absolute difference; infinite where
a decoded weight is not finite).)");
}

}  // namespace quantal::python
