// Turns the projections of a checkpoint into packed integers, 4-bit or 8-bit floats at random, in the layouts
// that the libraries write, and tells what they stand for. Written from those layouts, not from the
// converter.
#pragma once

#include "checkpoint_maker.hpp"

namespace quantal::test {

enum class stored_as {
  int4,
  int4_zeros,
  int4_channel,
  int8,
  int8_plain,
  gptq,
  gptq_symmetric,
  awq,
  mxfp4,
  nvfp4,
  nvfp4_modelopt,
  fp8_tensor,
  fp8_channel,
  fp8_powers
};

inline float from_bits(std::uint32_t u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline float from_bf16(std::uint16_t b) { return from_bits(static_cast<std::uint32_t>(b) << 16); }
inline float from_e2m1(int code) {
  constexpr float magnitude[] = {0, .5f, 1, 1.5f, 2, 3, 4, 6};
  return code & 8 ? -magnitude[code & 7] : magnitude[code & 7];
}

template <class T>
std::string bytes_of(const std::vector<T>& v) {
  return {reinterpret_cast<const char*>(v.data()), v.size() * sizeof(T)};
}

class quantized_checkpoint {
 public:
  quantized_checkpoint(const fake_checkpoint& from, stored_as how) : how_(how), plain(from), stored(from) {
    stored.tensors.clear();
    for (auto& t : plain.tensors) {
      if (t.name.find("_proj") == std::string::npos || t.name.ends_with("norm.weight")) {
        stored.tensors.push_back(t);
        continue;
      }
      module_ = t.name.substr(0, t.name.size() - 7), rows_ = t.shape[0], cols_ = t.shape[1];
      add_matrix();
      std::vector<std::uint16_t> rounded;
      for (const float v : exact[t.name])
        rounded.push_back(to_bf16(how_is_half() ? detail::half_to_float(detail::float_to_half(v)) : v));
      t.bytes = bytes_of(rounded);
    }
    stored.config["quantization_config"] = config();
  }

  /// Code times scale, before anything is rounded.
  std::map<std::string, std::vector<float>> exact;

 private:
  stored_as how_;

 public:
  fake_checkpoint plain;   ///< the values in bf16
  fake_checkpoint stored;  ///< quantized

 private:
  std::uint32_t random() { return state_ = state_ * 1664525u + 1013904223u, state_ >> 8; }
  bool is(std::initializer_list<stored_as> any) const {
    return std::find(any.begin(), any.end(), how_) != any.end();
  }
  bool how_is_half() const { return is({stored_as::gptq, stored_as::gptq_symmetric, stored_as::awq}); }

  static json weights(int bits, const char* type, const char* strategy, json group, bool symmetric) {
    return {{"num_bits", bits},
            {"type", type},
            {"strategy", strategy},
            {"group_size", std::move(group)},
            {"symmetric", symmetric}};
  }
  static json compressed(const char* format, const json& w) {
    return {{"quant_method", "compressed-tensors"},
            {"format", format},
            {"ignore", {"lm_head", "re:.*mlp[.]gate$"}},
            {"config_groups", {{"group_0", {{"targets", {"Linear"}}, {"weights", w}}}}}};
  }
  json config() const {
    switch (how_) {
      case stored_as::int4:
        return compressed("pack-quantized", weights(4, "int", "group", 32, true));
      case stored_as::int4_zeros:
        return compressed("pack-quantized", weights(4, "int", "group", 32, false));
      case stored_as::int4_channel:
        return compressed("pack-quantized", weights(4, "int", "channel", nullptr, true));
      case stored_as::int8:
        return compressed("pack-quantized", weights(8, "int", "group", 32, true));
      case stored_as::int8_plain:
        return compressed("int-quantized", weights(8, "int", "channel", nullptr, true));
      case stored_as::mxfp4:
        return compressed("mxfp4-pack-quantized", weights(4, "float", "group", 32, true));
      case stored_as::nvfp4:
        return compressed("nvfp4-pack-quantized", weights(4, "float", "tensor_group", 16, true));
      case stored_as::fp8_tensor:
        return compressed("float-quantized", weights(8, "float", "tensor", nullptr, true));
      case stored_as::fp8_channel:
        return compressed("float-quantized", weights(8, "float", "channel", nullptr, true));
      case stored_as::gptq:
        return {
            {"quant_method", "gptq"}, {"bits", 4}, {"group_size", 32}, {"sym", false}, {"desc_act", false}};
      case stored_as::gptq_symmetric:
        return {
            {"quant_method", "gptq"}, {"bits", 4}, {"group_size", 32}, {"sym", true}, {"desc_act", false}};
      case stored_as::awq:
        return {{"quant_method", "awq"},
                {"bits", 4},
                {"group_size", 32},
                {"zero_point", true},
                {"version", "gemm"}};
      case stored_as::nvfp4_modelopt:
        return {{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}, {"ignore", {"lm_head"}}};
      case stored_as::fp8_powers:
        return {{"quant_method", "fp8"},
                {"fmt", "e4m3"},
                {"scale_fmt", "ue8m0"},
                {"weight_block_size", {128, 128}}};
    }
    return {};
  }

  void add(const char* suffix, const char* dtype, std::vector<std::int64_t> shape, std::string data) {
    stored.tensors.push_back({module_ + suffix, dtype, std::move(shape), std::move(data)});
  }
  std::vector<float>& values() { return exact[module_ + ".weight"]; }

  void add_matrix() {
    if (is({stored_as::mxfp4, stored_as::nvfp4, stored_as::nvfp4_modelopt})) return add_fp4();
    if (is({stored_as::fp8_tensor, stored_as::fp8_channel, stored_as::fp8_powers})) return add_fp8();
    if (how_is_half()) return add_columns();
    add_packed();
  }

  void add_packed() {
    const int bits = is({stored_as::int8, stored_as::int8_plain}) ? 8 : 4;
    const bool groups = is({stored_as::int4, stored_as::int4_zeros, stored_as::int8}),
               zeros = how_ == stored_as::int4_zeros;
    const std::int64_t group = groups ? 32 : cols_, n = cols_ / group, per = 32 / bits;
    std::vector<std::uint16_t> scale;
    for (std::int64_t i = 0; i < rows_ * n; ++i)
      scale.push_back(to_bf16(static_cast<float>(random() % 200 + 20) * 1.3e-5f));
    std::vector<std::uint32_t> zero(static_cast<std::size_t>((rows_ + 7) / 8 * n)),
        words(static_cast<std::size_t>(rows_ * ((cols_ + per - 1) / per)));
    std::vector<std::int8_t> bytes;
    std::vector<int> point;
    for (std::int64_t r = 0; r < rows_; ++r)
      for (std::int64_t g = 0; g < n; ++g) {
        point.push_back(zeros ? static_cast<int>(random() % 16) : 1 << (bits - 1));
        zero[static_cast<std::size_t>(r / 8 * n + g)] |= static_cast<std::uint32_t>(point.back())
                                                         << (r % 8 * 4);
      }
    for (std::int64_t r = 0; r < rows_; ++r)
      for (std::int64_t c = 0; c < cols_; ++c) {
        const auto i = static_cast<std::size_t>(r * n + c / group);
        const auto code = random() % (1u << bits);
        words[static_cast<std::size_t>(r * (cols_ / per) + c / per)] |= code << (c % per * bits);
        bytes.push_back(static_cast<std::int8_t>(static_cast<int>(code) - 128));
        values().push_back(static_cast<float>(static_cast<int>(code) - point[i]) * from_bf16(scale[i]));
      }
    if (how_ == stored_as::int8_plain)
      add(".weight", "I8", {rows_, cols_}, bytes_of(bytes));
    else
      add(".weight_packed", "I32", {rows_, cols_ / per}, bytes_of(words));
    add(".weight_scale", "BF16", {rows_, n}, bytes_of(scale));
    if (how_ != stored_as::int8_plain)
      add(".weight_shape", "I64", {2}, bytes_of(std::vector<std::int64_t>{rows_, cols_}));
    if (zeros) add(".weight_zero_point", "I32", {(rows_ + 7) / 8, n}, bytes_of(zero));
  }

  void add_columns() {
    const bool gptq = how_ != stored_as::awq;
    const std::int64_t n = cols_ / 32;
    std::vector<std::uint16_t> scale;
    std::vector<int> point;
    for (std::int64_t i = 0; i < n * rows_; ++i) {
      scale.push_back(detail::float_to_half(static_cast<float>(random() % 200 + 20) * 1.3e-5f));
      point.push_back(how_ == stored_as::gptq_symmetric ? 8 : static_cast<int>(random() % 16));
    }
    std::vector<std::uint32_t> words(static_cast<std::size_t>(rows_ * cols_ / 8)),
        zeros(static_cast<std::size_t>(n * rows_ / 8));
    constexpr int awq_place[] = {0, 4, 1, 5, 2, 6, 3, 7};  // nibble of each of eight outputs
    for (std::int64_t g = 0; g < n; ++g)
      for (std::int64_t r = 0; r < rows_; ++r) {
        const int p = point[static_cast<std::size_t>(g * rows_ + r)];
        zeros[static_cast<std::size_t>(g * (rows_ / 8) + r / 8)] |=
            gptq ? static_cast<std::uint32_t>((p - 1) & 15) << (r % 8 * 4)
                 : static_cast<std::uint32_t>(p) << (4 * awq_place[r % 8]);
      }
    for (std::int64_t r = 0; r < rows_; ++r)
      for (std::int64_t c = 0; c < cols_; ++c) {
        const auto i = static_cast<std::size_t>(c / 32 * rows_ + r);
        const auto code = random() % 16;
        if (gptq)
          words[static_cast<std::size_t>(c / 8 * rows_ + r)] |= code << (c % 8 * 4);
        else
          words[static_cast<std::size_t>(c * (rows_ / 8) + r / 8)] |= code << (4 * awq_place[r % 8]);
        values().push_back(static_cast<float>(static_cast<int>(code) - point[i]) *
                           detail::half_to_float(scale[i]));
      }
    if (gptq)
      add(".qweight", "I32", {cols_ / 8, rows_}, bytes_of(words));
    else
      add(".qweight", "I32", {cols_, rows_ / 8}, bytes_of(words));
    add(".qzeros", "I32", {n, rows_ / 8}, bytes_of(zeros));
    add(".scales", "F16", {n, rows_}, bytes_of(scale));
    std::vector<std::int32_t> order;
    for (std::int64_t c = 0; c < cols_; ++c) order.push_back(static_cast<std::int32_t>(c / 32));
    if (gptq) add(".g_idx", "I32", {cols_}, bytes_of(order));
  }

  void add_fp4() {
    const bool mx = how_ == stored_as::mxfp4, divides = how_ == stored_as::nvfp4;
    const std::int64_t group = mx ? 32 : 16, n = cols_ / group;
    const float global = divides ? 4096.0f : 1.0f / 4096;  // a power of two: its inverse is exact
    std::string codes, scales;
    for (std::int64_t i = 0; i < rows_ * n; ++i)
      scales += static_cast<char>(mx ? 110 + random() % 10 : 1 + random() % 126);
    for (std::int64_t r = 0; r < rows_; ++r)
      for (std::int64_t c = 0; c < cols_; ++c) {
        const auto s = static_cast<std::uint8_t>(scales[static_cast<std::size_t>(r * n + c / group)]);
        const auto code = static_cast<int>(random() % 16);
        if (c % 2 == 0)
          codes += static_cast<char>(code);
        else
          codes.back() = static_cast<char>(codes.back() | code << 4);
        values().push_back(from_e2m1(code) * (mx ? std::ldexp(1.0f, s - 127) : from_e4m3(s) / 4096));
      }
    add(how_ == stored_as::nvfp4_modelopt ? ".weight" : ".weight_packed", "U8", {rows_, cols_ / 2}, codes);
    add(".weight_scale", mx ? "U8" : "F8_E4M3", {rows_, n}, scales);
    if (divides) {
      add(".weight_global_scale", "F32", {1}, bytes_of(std::vector<float>{global}));
      add(".input_global_scale", "F32", {1}, bytes_of(std::vector<float>{2.0f}));
    }
    if (how_ == stored_as::nvfp4_modelopt) {
      add(".weight_scale_2", "F32", {}, bytes_of(std::vector<float>{global}));
      add(".input_scale", "F32", {}, bytes_of(std::vector<float>{0.5f}));
    }
  }

  void add_fp8() {
    const bool powers = how_ == stored_as::fp8_powers, rows = how_ == stored_as::fp8_channel;
    const std::int64_t down = powers ? (rows_ + 127) / 128
                              : rows ? rows_
                                     : 1,
                       across = powers ? (cols_ + 127) / 128 : 1;
    std::vector<std::uint16_t> scale;
    std::string exponents, codes;
    for (std::int64_t i = 0; i < down * across; ++i) {
      scale.push_back(to_bf16(static_cast<float>(random() % 200 + 20) * 1.3e-6f));
      exponents += static_cast<char>(110 + random() % 10);
    }
    for (std::int64_t r = 0; r < rows_; ++r)
      for (std::int64_t c = 0; c < cols_; ++c) {
        auto code = static_cast<std::uint8_t>(random());
        if ((code & 0x7f) == 0x7f) code ^= 1;
        codes += static_cast<char>(code);
        const auto i = static_cast<std::size_t>(powers ? r / 128 * across + c / 128 : rows ? r : 0);
        values().push_back(from_e4m3(code) *
                           (powers ? std::ldexp(1.0f, exponents[i] - 127) : from_bf16(scale[i])));
      }
    add(".weight", "F8_E4M3", {rows_, cols_}, codes);
    if (powers)
      add(".weight_scale_inv", "F8_E8M0", {down, across}, exponents);
    else
      add(".weight_scale", "BF16", rows ? std::vector<std::int64_t>{rows_, 1} : std::vector<std::int64_t>{1},
          bytes_of(scale));
  }

  std::string module_;
  std::int64_t rows_ = 0, cols_ = 0;
  std::uint32_t state_ = 1;
};

}  // namespace quantal::test
