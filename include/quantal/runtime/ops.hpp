// The library behind function pointers: one entry per format and arch, chosen at run time.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>

#include "quantal/executor.hpp"
#include "quantal/formats.hpp"
#include "quantal/kernel/args.hpp"
#include "quantal/status.hpp"

namespace quantal::runtime {

/// Operations of one format on one arch; the templates of kernel/ document each.
struct format_ops {
  void (*dequantize_row)(const std::byte* row, float* out, std::int64_t cols) noexcept;
  std::size_t (*mul_mat_workspace)(const mul_mat_args&, activation) noexcept;
  status (*mul_mat)(const mul_mat_args&, activation, executor_ref, std::span<std::byte> workspace) noexcept;
  std::size_t (*mul_mat_id_workspace)(const mul_mat_id_args&, activation) noexcept;
  status (*mul_mat_id)(const mul_mat_id_args&, activation, executor_ref,
                       std::span<std::byte> workspace) noexcept;
};

/// Pointers in the order of `format_table`.
using ops_table = std::array<const format_ops*, format_table.size()>;

/// quantal::quantize_row (quantize/quantize.hpp) of one format on one arch. The bytes are the same on every
/// arch.
using quantizer = status (*)(const float* x, const float* importance, std::byte* out,
                             std::int64_t cols) noexcept;

/// Pointers in the order of `format_table`; null where there is no quantizer.
using quantizer_table = std::array<quantizer, format_table.size()>;

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
    return i ? (*quantizers_)[*i] : nullptr;
  }

 private:
  std::string_view arch_;
  const ops_table* ops_;
  const quantizer_table* quantizers_;
};

/// quantal::quantize_row for a format known at run time, on the best arch of this machine.
inline status quantize_row(std::uint32_t gguf_id, const float* x, const float* importance, std::byte* out,
                           std::int64_t cols) noexcept {
  static const dispatcher best = dispatcher::best();
  if (const quantizer f = best.find_quantizer(gguf_id)) return f(x, importance, out, cols);
  return format_index(gguf_id) ? status::unsupported : status::unknown_format;
}

}  // namespace quantal::runtime
