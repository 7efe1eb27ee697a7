#include "measure.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "moments_error.hpp"
#include "quantal/gguf/input_scale.hpp"
#include "quantal/gguf/tensor_scale.hpp"
#include "quantal/runtime/ops.hpp"
#include "quantal/testing/accuracy.hpp"
#include "text.hpp"

namespace quantal::validate {
namespace {

constexpr std::int64_t probes = 4;                  ///< activation vectors of the product
constexpr std::int64_t elements_at_once = 1 << 18;  ///< of one work item

/// What one work item adds.
struct sums {
  testing::accuracy weights;
  double output_error = 0, output_norm = 0;
  std::int64_t bad_row = -1;  ///< reference row with NaN or infinity
  status failed = status::ok;
};

/// Rows [first, first + count) of one slice, all with the same importance vector.
struct item {
  std::int64_t row, count;
};

class comparison_of_two {
 public:
  comparison_of_two(const gguf::tensor_info& t, std::span<const std::byte> bytes,
                    const gguf::tensor_info& source, std::span<const std::byte> source_bytes,
                    const imatrix::importance* importance, gguf::tensor_scale scale,
                    gguf::tensor_scale source_scale, int workers)
      : scale_(std::move(scale)),
        source_scale_(std::move(source_scale)),
        t_(t),
        source_(source),
        bytes_(bytes),
        source_bytes_(source_bytes),
        importance_(importance),
        format_(*find_format(t.type)),
        source_format_(*find_format(source.type)),
        ops_(*runtime::dispatcher::best().find(t.type)),
        noise_(static_cast<std::size_t>(probes * t.cols())),
        scratch_(static_cast<std::size_t>(workers)) {
    std::mt19937_64 random(1);
    std::normal_distribution<float> normal;
    for (auto& v : noise_) v = normal(random);
    rows_per_vector_ = importance_ && importance_->rows_per_vector ? importance_->rows_per_vector : rows();
  }

  std::int64_t rows() const { return t_.rows() * t_.slices(); }

  std::vector<item> items() const {
    const std::int64_t most = std::max<std::int64_t>(elements_at_once / t_.cols(), 1);
    std::vector<item> out;
    for (std::int64_t r = 0; r < rows();) {
      const std::int64_t vector_end = (r / rows_per_vector_ + 1) * rows_per_vector_;
      const std::int64_t n = std::min({most, vector_end - r, rows() - r});
      out.push_back({r, n});
      r += n;
    }
    return out;
  }

  sums compare(const item& i, int worker) {
    sums s;
    buffers& b = scratch_[static_cast<std::size_t>(worker)];
    const float* w =
        importance_ ? importance_->row(i.row / t_.rows(), i.row % t_.rows(), t_.rows()) : nullptr;
    make_activations(w, b.activations);
    s.failed = multiply(i, b);
    const std::int64_t cols = t_.cols();
    b.original.resize(static_cast<std::size_t>(cols)), b.decoded.resize(static_cast<std::size_t>(cols));
    for (std::int64_t k = 0; k < i.count && s.bad_row < 0 && s.failed == status::ok; ++k) {
      const std::int64_t r = i.row + k;
      s.failed = runtime::dequantize_row(
          source_.type, source_bytes_.data() + r * source_format_.row_bytes(cols), b.original.data(), cols);
      if (s.failed != status::ok) break;
      ops_.dequantize_row(bytes_.data() + r * format_.row_bytes(cols), b.decoded.data(), cols);
      source_scale_.apply(r / t_.rows(), b.original.data(), cols);
      scale_.apply(r / t_.rows(), b.decoded.data(), cols);
      for (const float v : b.original)
        if (!std::isfinite(v)) s.bad_row = r;
      s.weights.add(b.original.data(), b.decoded.data(), w, cols);
      compare_outputs(b, k, i.count, scale_.of(r / t_.rows()), s);
    }
    return s;
  }

 private:
  struct buffers {
    std::vector<float> activations, out, original, decoded;
    std::vector<std::byte> workspace;
  };

  /// Activations with the collected second moments.
  void make_activations(const float* w, std::vector<float>& x) const {
    const auto cols = static_cast<std::size_t>(t_.cols());
    x = noise_;
    if (!w) return;
    for (std::size_t i = 0; i < x.size(); ++i) x[i] *= std::sqrt(w[i % cols]);
  }

  /// The product as an engine computes it: the model's bytes, the arch's kernel, rounded activations.
  status multiply(const item& i, buffers& b) const {
    const std::int64_t cols = t_.cols(), stride = format_.row_bytes(cols);
    b.out.resize(static_cast<std::size_t>(probes * i.count));
    const mul_mat_args a{bytes_.data() + i.row * stride,
                         i.count,
                         cols,
                         stride,
                         b.activations.data(),
                         probes,
                         cols,
                         b.out.data(),
                         i.count};
    b.workspace.resize(ops_.mul_mat_workspace(a, activation::q8));
    serial_executor here;
    return ops_.mul_mat(a, activation::q8, here, b.workspace);
  }

  void compare_outputs(const buffers& b, std::int64_t row, std::int64_t rows, double scale, sums& s) const {
    const auto cols = static_cast<std::size_t>(t_.cols());
    for (std::int64_t p = 0; p < probes; ++p) {
      double want = 0;
      const float* x = b.activations.data() + static_cast<std::size_t>(p) * cols;
      for (std::size_t c = 0; c < cols; ++c) want += static_cast<double>(x[c]) * b.original[c];
      const double e = scale * static_cast<double>(b.out[static_cast<std::size_t>(p * rows + row)]) - want;
      s.output_error += e * e, s.output_norm += want * want;
    }
  }

  gguf::tensor_scale scale_, source_scale_;
  const gguf::tensor_info &t_, &source_;
  std::span<const std::byte> bytes_, source_bytes_;
  const imatrix::importance* importance_;
  const format_info &format_, &source_format_;
  const runtime::format_ops& ops_;
  std::int64_t rows_per_vector_ = 1;
  std::vector<float> noise_;
  std::vector<buffers> scratch_;
};

/// Integer tensors are the same or they are not.
metrics compare_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  const bool same = a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
  return {{"nmse", same ? 0.0 : std::numeric_limits<double>::infinity()}};
}

/// Adds a metric that has a value; the importances of a tensor may all be zero.
double ratio(double error, double norm) { return norm > 0 ? error / norm : error; }

}  // namespace

result<pairing> pair_tensors(const gguf::reader& model, const gguf::reader& reference) {
  pairing p;
  for (const auto& t : model.tensors()) {
    if (gguf::scaled_tensor(model, t)) continue;  // part of what it scales
    const auto* source = reference.find(t.name);
    if (!source && gguf::input_scaled_tensor(model, t)) continue;  // no weights; compared where both have it
    if (!source) {
      p.only_in_model.push_back(t.name);
      continue;
    }
    if (source->ne != t.ne) {
      const auto shape = [](const gguf::tensor_info& i) {
        std::string s = "[";
        for (const auto n : i.ne) s += (s.size() > 1 ? ", " : "") + std::to_string(n);
        return s + "]";
      };
      return error{model.path() + ": tensor '" + t.name + "' is " + shape(t) + ", in " + reference.path() +
                   " it is " + shape(*source)};
    }
    p.both.emplace_back(&t, source);
  }
  for (const auto& t : reference.tensors())
    if (!model.find(t.name) && !gguf::scaled_tensor(reference, t) && !gguf::input_scaled_tensor(reference, t))
      p.only_in_reference.push_back(t.name);
  return p;
}

result<tensor_report> measure(const gguf::reader& model, const gguf::tensor_info& t,
                              const gguf::reader& reference, const gguf::tensor_info& source,
                              const imatrix::store* statistics, const imatrix::moments_file* moments,
                              executor_ref threads) {
  tensor_report out{
      t.name, gguf::type_name(t.type), gguf::type_name(source.type), t.nbytes, source.nbytes, {}, {}};
  const auto bytes = model.data(t);
  if (!bytes) return bytes.error();
  const auto source_bytes = reference.data(source);
  if (!source_bytes) return source_bytes.error();
  const auto decodes = [](std::uint32_t type) {
    const auto* f = find_format(type);
    return f && f->usage == role::weight;
  };
  if (!decodes(t.type) || !decodes(source.type)) {
    if (t.type != source.type)
      return error{model.path() + ": tensor '" + t.name + "': " + out.type + " cannot be compared with " +
                   out.reference_type};
    out.values = compare_bytes(*bytes, *source_bytes);
    return out;
  }
  if (t.elements() == 0) return out;

  imatrix::importance importance;
  if (statistics) {
    auto found = imatrix::resolve(*statistics, reference, source, imatrix::shape_of(reference.meta()));
    if (found) importance = std::move(*found);
    // Statistics of another layout of the same model do not fit; token_embd has none that mean anything.
    if (!found && t.name != "token_embd.weight")
      return error{reference.path() + ": " + found.error().message};
    if (importance) out.importance = to_string(importance.from);
  }
  auto scale = gguf::read_scale(model, t), source_scale = gguf::read_scale(reference, source);
  if (!scale) return scale.error();
  if (!source_scale) return source_scale.error();
  comparison_of_two c(t, *bytes, source, *source_bytes, importance ? &importance : nullptr, std::move(*scale),
                      std::move(*source_scale), threads.workers());
  const auto items = c.items();
  std::vector<sums> parts(items.size());
  threads.for_each(static_cast<int>(items.size()), [&](int i, int worker) {
    parts[static_cast<std::size_t>(i)] = c.compare(items[static_cast<std::size_t>(i)], worker);
  });
  sums all;
  for (const auto& p : parts) {  // in the order of rows: sums do not depend on the threads
    if (p.bad_row >= 0)
      return error{reference.path() + ": tensor '" + t.name + "', row " + std::to_string(p.bad_row) +
                   " is not finite"};
    if (p.failed != status::ok)
      return error{model.path() + ": tensor '" + t.name + "': product: " + std::string(to_string(p.failed))};
    all.weights += p.weights;
    all.output_error += p.output_error, all.output_norm += p.output_norm;
  }
  out.values = {
      {"nmse", all.weights.nmse()}, {"cosine", all.weights.cosine()}, {"max_error", all.weights.max_error}};
  if (t.rows() * t.slices() > 1) out.values["output_nmse"] = ratio(all.output_error, all.output_norm);
  if (importance) out.values["wnmse"] = all.weights.nmse_weighted();
  if (!moments) return out;
  const auto e = moments_error(model, t, reference, source, *moments, threads);
  if (!e) return e.error();
  if (*e) out.values["hessian_nmse"] = **e;
  return out;
}

}  // namespace quantal::validate
