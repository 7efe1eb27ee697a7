// The one list of formats. Adding a format is one header in format/ and one line here; the run-time table,
// kernels, quantizers, tests, benches and tools are folds over the list.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "quantal/format.hpp"
#include "quantal/format/bf16.hpp"
#include "quantal/format/f16.hpp"
#include "quantal/format/f32.hpp"
#include "quantal/format/iq1_bn.hpp"
#include "quantal/format/iq1_kt.hpp"
#include "quantal/format/iq1_m.hpp"
#include "quantal/format/iq1_s.hpp"
#include "quantal/format/iq2_bn.hpp"
#include "quantal/format/iq2_k.hpp"
#include "quantal/format/iq2_kl.hpp"
#include "quantal/format/iq2_ks.hpp"
#include "quantal/format/iq2_kt.hpp"
#include "quantal/format/iq2_s.hpp"
#include "quantal/format/iq2_xs.hpp"
#include "quantal/format/iq2_xxs.hpp"
#include "quantal/format/iq3_k.hpp"
#include "quantal/format/iq3_ks.hpp"
#include "quantal/format/iq3_kt.hpp"
#include "quantal/format/iq3_s.hpp"
#include "quantal/format/iq3_xxs.hpp"
#include "quantal/format/iq4_k.hpp"
#include "quantal/format/iq4_ks.hpp"
#include "quantal/format/iq4_kss.hpp"
#include "quantal/format/iq4_kt.hpp"
#include "quantal/format/iq4_nl.hpp"
#include "quantal/format/iq4_xs.hpp"
#include "quantal/format/iq5_k.hpp"
#include "quantal/format/iq5_ks.hpp"
#include "quantal/format/iq6_k.hpp"
#include "quantal/format/mxfp4.hpp"
#include "quantal/format/nvfp4.hpp"
#include "quantal/format/q1_0.hpp"
#include "quantal/format/q2_0.hpp"
#include "quantal/format/q2_K.hpp"
#include "quantal/format/q3_K.hpp"
#include "quantal/format/q4_0.hpp"
#include "quantal/format/q4_1.hpp"
#include "quantal/format/q4_K.hpp"
#include "quantal/format/q5_0.hpp"
#include "quantal/format/q5_1.hpp"
#include "quantal/format/q5_K.hpp"
#include "quantal/format/q6_0.hpp"
#include "quantal/format/q6_K.hpp"
#include "quantal/format/q8_0.hpp"
#include "quantal/format/q8_1.hpp"
#include "quantal/format/q8_K.hpp"
#include "quantal/format/tq1_0.hpp"
#include "quantal/format/tq2_0.hpp"

namespace quantal {

using all_formats = format_list<                             //
    f32, f16, bf16,                                          //
    q4_0, q4_1, q5_0, q5_1, q6_0, q8_0,                      //
    q2_K, q3_K, q4_K, q5_K, q6_K,                            //
    iq4_nl, iq4_xs,                                          //
    iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m,    //
    iq2_k, iq3_k, iq4_k, iq5_k, iq6_k,                       //
    iq2_ks, iq2_kl, iq3_ks, iq4_ks, iq4_kss, iq5_ks,         //
    iq1_kt, iq2_kt, iq3_kt, iq4_kt,                          //
    iq1_bn, iq2_bn, tq1_0, tq2_0, q1_0, q2_0, mxfp4, nvfp4,  //
    q8_1, q8_K>;

/// What is known about a format at run time.
struct format_info {
  std::string_view name;
  std::uint32_t gguf_id;
  block_layout layout;
  role usage;
  bool is_float;

  /// Bytes of a row; `cols` must be a multiple of layout.elements.
  constexpr std::int64_t row_bytes(std::int64_t cols) const noexcept {
    return layout.row_meta + cols / layout.elements * layout.bytes;
  }
};

namespace detail {
template <class... Fs>
constexpr auto make_format_table(format_list<Fs...>) {
  static_assert((check_format<Fs>() && ...));
  return std::array<format_info, sizeof...(Fs)>{
      format_info{Fs::name, Fs::gguf_id, Fs::layout, Fs::usage, float_format<Fs>}...};
}
}  // namespace detail

/// One entry per format, in the order of `all_formats`.
inline constexpr auto format_table = detail::make_format_table(all_formats{});

/// Position in `format_table` (and in every other per-format table), or nothing for an unknown id.
constexpr std::optional<std::size_t> format_index(std::uint32_t gguf_id) noexcept {
  for (std::size_t i = 0; i < format_table.size(); ++i)
    if (format_table[i].gguf_id == gguf_id) return i;
  return std::nullopt;
}
constexpr const format_info* find_format(std::uint32_t gguf_id) noexcept {
  const auto i = format_index(gguf_id);
  return i ? &format_table[*i] : nullptr;
}
/// By name, case-insensitively ("q4_K", "Q4_K", "q4_k").
constexpr const format_info* find_format(std::string_view name) noexcept {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  for (const auto& f : format_table) {
    bool same = f.name.size() == name.size();
    for (std::size_t i = 0; same && i < name.size(); ++i) same = lower(f.name[i]) == lower(name[i]);
    if (same) return &f;
  }
  return nullptr;
}

namespace detail {
template <class Fn, class... Fs>
constexpr bool visit_format(std::uint32_t gguf_id, Fn&& fn, format_list<Fs...>) {
  return ((Fs::gguf_id == gguf_id ? (fn.template operator()<Fs>(), true) : false) || ...);
}
}  // namespace detail

/// Calls `fn.template operator()<F>()` for the format with this id; false if there is none.
template <class Fn>
constexpr bool visit_format(std::uint32_t gguf_id, Fn&& fn) {
  return detail::visit_format(gguf_id, static_cast<Fn&&>(fn), all_formats{});
}

}  // namespace quantal
