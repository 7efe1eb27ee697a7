// The library behind function pointers: one entry per format and arch, chosen at run time.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>

#include "quantal/checks.hpp"
#include "quantal/executor.hpp"
#include "quantal/formats.hpp"
#include "quantal/kernel/args.hpp"
#include "quantal/kernel/pack_args.hpp"
#include "quantal/quantize/output_coder.hpp"
#include "quantal/status.hpp"

namespace quantal::runtime {

/// pack() and the products of what it made (kernel/pack.hpp) on one arch; reached through format_ops.
struct packed_ops {
  std::size_t (*bytes)(const kernel::weight_format&, std::int64_t experts, std::int64_t rows,
                       std::int64_t cols) noexcept;
  status (*pack)(const kernel::weight_format&, const pack_args&, std::span<std::byte> memory, executor_ref,
                 packed_weights&) noexcept;
  std::size_t (*mul_mat_workspace)(const packed_weights&, const mul_mat_args&) noexcept;
  status (*mul_mat)(const packed_weights&, const mul_mat_args&, executor_ref,
                    std::span<std::byte> workspace) noexcept;
  std::size_t (*mul_mat_id_workspace)(const packed_weights&, const mul_mat_id_args&) noexcept;
  status (*mul_mat_id)(const packed_weights&, const mul_mat_id_args&, executor_ref,
                       std::span<std::byte> workspace) noexcept;
};

/// Operations of one format on one arch; the templates of kernel/ document each.
struct format_ops {
  void (*dequantize_row)(const std::byte* row, float* out, std::int64_t cols) noexcept;
  std::size_t (*mul_mat_workspace)(const mul_mat_args&, activation) noexcept;
  status (*mul_mat)(const mul_mat_args&, activation, executor_ref, std::span<std::byte> workspace) noexcept;
  std::size_t (*mul_mat_id_workspace)(const mul_mat_id_args&, activation) noexcept;
  status (*mul_mat_id)(const mul_mat_id_args&, activation, executor_ref,
                       std::span<std::byte> workspace) noexcept;
  const kernel::weight_format* format;
  const packed_ops* packed;

  /// Bytes of memory that pack() wants; 0 for float formats, which it does not take.
  std::size_t packed_bytes(std::int64_t rows, std::int64_t cols, std::int64_t experts = 1) const noexcept {
    return packed->bytes(*format, experts, rows, cols);
  }
  status pack(const pack_args& a, std::span<std::byte> memory, executor_ref executor,
              packed_weights& out) const noexcept {
    return packed->pack(*format, a, memory, executor, out);
  }
  /// Weights that another format or arch packed are unsupported.
  std::size_t packed_mul_mat_workspace(const packed_weights& w, const mul_mat_args& a) const noexcept {
    return w.format == format ? packed->mul_mat_workspace(w, a) : 0;
  }
  status packed_mul_mat(const packed_weights& w, const mul_mat_args& a, executor_ref executor,
                        std::span<std::byte> workspace) const noexcept {
    return w.format == format ? packed->mul_mat(w, a, executor, workspace) : status::unsupported;
  }
  std::size_t packed_mul_mat_id_workspace(const packed_weights& w, const mul_mat_id_args& a) const noexcept {
    return w.format == format ? packed->mul_mat_id_workspace(w, a) : 0;
  }
  status packed_mul_mat_id(const packed_weights& w, const mul_mat_id_args& a, executor_ref executor,
                           std::span<std::byte> workspace) const noexcept {
    return w.format == format ? packed->mul_mat_id(w, a, executor, workspace) : status::unsupported;
  }
};

/// Pointers in the order of `format_table`.
using ops_table = std::array<const format_ops*, format_table.size()>;

/// quantal::quantize_row (quantize/quantize.hpp) of one format on one arch. The bytes are the same on every
/// arch.
using quantizer = status (*)(const float* x, const float* importance, std::byte* out,
                             std::int64_t cols) noexcept;

/// The quantizers of one arch, in the order of `format_table`.
struct quantizer_table {
  std::array<quantizer, format_table.size()> rows;                 ///< null where there is none
  std::array<quantize::output_coder, format_table.size()> coders;  ///< `choose` is null where there is none
  quantize::row_product product;
  quantize::factor_product factor_product;
};

/// One arch's variant of the library.
class dispatcher {
 public:
  dispatcher(std::string_view arch, const ops_table& ops, const quantizer_table& quantizers) noexcept
      : arch_(arch), ops_(&ops), quantizers_(&quantizers) {}

  /// The best variant that this binary carries and this machine runs.
  static dispatcher best() noexcept;
  /// A variant by name ("scalar", "avx2", ...); nothing if the binary lacks it or the machine cannot run it.
  static std::optional<dispatcher> named(std::string_view arch) noexcept;
  /// Every variant in the binary, best first, whether this machine runs it or not.
  static std::span<const std::string_view> compiled() noexcept;

  std::string_view arch() const noexcept { return arch_; }
  /// Operations of a format, nullptr for an unknown id.
  const format_ops* find(std::uint32_t gguf_id) const noexcept {
    const auto i = format_index(gguf_id);
    return i ? (*ops_)[*i] : nullptr;
  }
  /// Quantizer of a format, nullptr for an unknown id and for formats without one.
  quantizer find_quantizer(std::uint32_t gguf_id) const noexcept {
    const auto i = format_index(gguf_id);
    return i ? quantizers_->rows[*i] : nullptr;
  }
  /// What quantize_rows (quantize/output_aware.hpp) needs of a format, nullptr where it has no codes to choose.
  const quantize::output_coder* find_coder(std::uint32_t gguf_id) const noexcept {
    const auto i = format_index(gguf_id);
    return i && quantizers_->coders[*i].choose ? &quantizers_->coders[*i] : nullptr;
  }
  /// And of the arch.
  quantize::row_product product() const noexcept { return quantizers_->product; }
  /// For output_metric::prepare.
  quantize::factor_product factor_product() const noexcept { return quantizers_->factor_product; }

 private:
  std::string_view arch_;
  const ops_table* ops_;
  const quantizer_table* quantizers_;
};

/// The variant that functions take where none is named: the best one of this machine.
inline const dispatcher& best_variant() noexcept {
  static const dispatcher best = dispatcher::best();
  return best;
}

/// quantal::quantize_row for a format known at run time, on the best arch of this machine.
inline status quantize_row(std::uint32_t gguf_id, const float* x, const float* importance, std::byte* out,
                           std::int64_t cols) noexcept {
  if (const quantizer f = best_variant().find_quantizer(gguf_id)) return f(x, importance, out, cols);
  return format_index(gguf_id) ? status::unsupported : status::unknown_format;
}

/// True if quantize_row knows this format.
inline bool can_quantize(std::uint32_t gguf_id) noexcept {
  return best_variant().find_quantizer(gguf_id) != nullptr;
}

/// quantal::dequantize_row for a format known at run time, on the best arch of this machine; the same bits.
inline status dequantize_row(std::uint32_t gguf_id, const std::byte* row, float* out,
                             std::int64_t cols) noexcept {
  const format_info* const f = find_format(gguf_id);
  if (!f) return status::unknown_format;
  if (const status s = checks::check_row(checks::rows_of(f->layout), row, out, nullptr, cols);
      s != status::ok)
    return s;
  best_variant().find(gguf_id)->dequantize_row(row, out, cols);
  return status::ok;
}

}  // namespace quantal::runtime
