#include "quantization.hpp"

#include <algorithm>
#include <cctype>

#include "key_reader.hpp"

namespace quantal::hf {
namespace {

constexpr std::int64_t widest = 1 << 20;
/// What the names of a wrapper's text part begin with; lists of modules have it or not.
constexpr std::string_view wrapper = "language_model.";

/// The module that is called `name`, or one in it.
bool is_within(std::string_view module, std::string_view name) {
  return module.starts_with(name) && (module.size() == name.size() || module[name.size()] == '.');
}

bool is_size(const document& n) {
  return n.is_number_unsigned() && n.get<std::uint64_t>() >= 1 &&
         n.get<std::uint64_t>() <= static_cast<std::uint64_t>(widest);
}

}  // namespace

std::string_view to_string(coding c) noexcept {
  constexpr std::array<std::string_view, 6> names{"fp8", "packed integers", "nvfp4", "mxfp4", "GPTQ", "AWQ"};
  return names[static_cast<std::size_t>(c)];
}

std::string_view to_string(sharing s) noexcept {
  constexpr std::array<std::string_view, 5> names{"tensor", "channel", "group", "block", "block"};
  return names[static_cast<std::size_t>(s)];
}

result<module_pattern> module_pattern::parse(const std::string& text) {
  module_pattern p;
  p.name_ = text;
  if (text.starts_with("re:")) {
    auto compiled = pattern::compile("^(?:" + text.substr(3) + ")");
    if (!compiled) return compiled.error();
    p.expression_ = std::move(*compiled);
    return p;
  }
  p.is_class_ = !text.empty() && std::isupper(static_cast<unsigned char>(text.front())) &&
                text.find('.') == std::string::npos;
  return p;
}

result<bool> module_pattern::names(const std::string& module) const {
  if (is_class_) return false;
  const bool wrapped = module.starts_with(wrapper);
  for (const auto& m : {module, wrapped ? module.substr(wrapper.size()) : std::string(wrapper) + module}) {
    if (!expression_) {
      if (is_within(m, name_)) return true;
      continue;
    }
    const auto found = expression_->found_in(m);
    if (!found || *found) return found;
  }
  return false;
}

namespace {

/// "layers.0.attention.wq" as "model.layers.0.self_attn.q_proj".
std::string in_words(std::string_view module, std::span<const module_word> words) {
  std::string out;
  while (!module.empty()) {
    const auto it = std::find_if(words.begin(), words.end(),
                                 [&](const module_word& w) { return is_within(module, w.own); });
    const auto word = it == words.end() ? module.substr(0, module.find('.')) : it->own;
    module.remove_prefix(std::min(word.size() + 1, module.size()));
    out += (out.empty() ? "" : ".") + std::string(it == words.end() ? word : it->other);
    if (it != words.end() && it->keeps_rest) words = {};
  }
  return out == "lm_head" ? out : "model." + out;
}

}  // namespace

result<bool> quantization::any_names(const std::vector<module_pattern>& patterns,
                                     const std::string& module) const {
  std::vector<std::string> names = {module};
  if (!words_.empty()) names.push_back(in_words(module, words_));
  for (const auto& p : patterns)
    for (const auto& name : names) {
      const auto named = p.names(name);
      if (!named || *named) return named;
    }
  return false;
}

result<const weight_scheme*> quantization::find(const std::string& module) const {
  const auto ignored = any_names(ignored_, module);
  if (!ignored) return ignored.error();
  if (*ignored) return nullptr;
  for (const auto& e : entries_) {
    const auto named = any_names(e.targets, module);
    if (!named) return named.error();
    if (*named) return &e.scheme;
  }
  for (const auto& e : entries_)
    if (e.targets.empty() ||
        std::any_of(e.targets.begin(), e.targets.end(), [](auto& p) { return p.is_class(); }))
      return &e.scheme;
  return nullptr;
}

/// Reads one quantization_config.
class quantization_reader {
 public:
  quantization_reader(const document& config, std::string where)
      : config_(config), k_(config, where), where_(std::move(where)) {}

  result<quantization> read() {
    const auto method = k_.text_or("quant_method", "");
    if (method == "fp8")
      fp8();
    else if (method == "compressed-tensors")
      compressed_tensors();
    else if (method == "modelopt")
      modelopt();
    else if (method == "gptq" || method == "gptqmodel")
      gptq();
    else if (method == "awq")
      awq();
    else if (method == "mxfp4")
      simple(coding::mxfp4, 32);
    else
      k_.fail("method " + text::in_quotes(method) +
              " is not supported (fp8, compressed-tensors, modelopt, gptq, awq and mxfp4 are)");
    for (const char* key : {"ignore", "modules_to_not_convert", "ignored_layers", "exclude_modules"})
      patterns(config_, key, out_.ignored_);
    if (!k_.message().empty()) return error{k_.message()};
    return std::move(out_);
  }

 private:
  void add(weight_scheme s, std::vector<module_pattern> targets = {}) {
    if (s.where.empty()) s.where = where_;
    out_.entries_.push_back({std::move(s), std::move(targets)});
  }

  void patterns(const document& object, const char* key, std::vector<module_pattern>& out) {
    const auto* list = member(object, key);
    if (!list) return;
    if (!list->is_array()) return k_.fail(key, "is no list of modules");
    for (const auto& entry : *list) {
      if (!entry.is_string()) return k_.fail(key, "has an entry that is no string");
      auto p = module_pattern::parse(entry.get<std::string>());
      if (!p) return k_.fail(key, text::in_quotes(entry.get<std::string>()) + ": " + p.error().message);
      out.push_back(std::move(*p));
    }
  }

  void block_of(const document& pair, const char* key, weight_scheme& s) {
    if (pair.is_array() && pair.size() == 2 && is_size(pair[0]) && is_size(pair[1]))
      s.block = {pair[0].get<std::int64_t>(), pair[1].get<std::int64_t>()};
    else
      k_.fail(key, "is no pair of sizes");
  }

  void fp8() {
    weight_scheme s;
    k_.only("fmt", "e4m3");
    if (const auto* block = k_.get("weight_block_size")) {
      s.scales = sharing::block;
      block_of(*block, "weight_block_size", s);
    }
    add(std::move(s));
  }

  void simple(coding how, std::int64_t group) {
    weight_scheme s;
    s.how = how, s.bits = 4, s.scales = sharing::group, s.group = group;
    add(std::move(s));
  }

  void modelopt() {
    std::string algorithm = k_.text_or("quant_algo", "");
    if (algorithm == "NVFP4") return simple(coding::nvfp4, 16);
    if (algorithm == "FP8") {
      weight_scheme s;
      s.scales = sharing::tensor;
      return add(std::move(s));
    }
    k_.fail("quant_algo", text::in_quotes(algorithm) + " is not supported (NVFP4 and FP8 are)");
  }

  void group_of_four_bits(key_reader& k, weight_scheme& s, const char* bits, const char* group) {
    s.bits = static_cast<int>(k.integer(bits, 1, 16));
    if (s.bits != 4 && s.bits != 8) k.fail(bits, std::to_string(s.bits) + " is not supported (4 and 8 are)");
    s.group = k.integer(group, -1, widest);
    if (s.group == 0) k.fail(group, "is 0");
    s.scales = s.group < 0 ? sharing::channel : sharing::group;
  }

  void gptq() {
    weight_scheme s;
    s.how = coding::gptq;
    group_of_four_bits(k_, s, "bits", "group_size");
    s.symmetric = k_.flag_or("sym", true);
    s.zeros_minus_one = k_.text_or("checkpoint_format", "gptq") != "gptq_v2";
    s.rounds = true;
    k_.flag_or("desc_act", false);  // what counts is g_idx
    add(std::move(s));
  }

  void awq() {
    weight_scheme s;
    s.how = coding::awq;
    group_of_four_bits(k_, s, "bits", "group_size");
    if (s.bits != 4) k_.fail("bits", "is not 4");
    if (const auto version = k_.text_or("version", "gemm"); version != "gemm" && version != "GEMM")
      k_.fail("version", text::in_quotes(version) + " is not supported, only gemm");
    s.symmetric = !k_.flag_or("zero_point", true);
    s.rounds = true;
    add(std::move(s));
  }

  void compressed_tensors() {
    const auto format = k_.text_or("format", "dense");
    const auto* groups = k_.get("config_groups");
    if (groups && !groups->is_object()) return k_.fail("config_groups", "is no object");
    if (!groups) return;
    for (const auto& [name, group] : groups->items()) compressed_group(name, group, format);
    if (member(config_, "sparsity_config") && member(config_["sparsity_config"], "format") &&
        config_["sparsity_config"]["format"] != "dense")
      k_.fail("sparsity_config", "is not supported: weights must be dense");
  }

  void compressed_group(const std::string& name, const document& group, const std::string& format_of_all) {
    const std::string where = where_ + ": config_groups." + text::printable(name);
    key_reader g(group, where);
    const auto* weights = g.get("weights");
    if (!weights) return pass_on(g);  // activations only
    if (!weights->is_object()) g.fail("weights", "is no object");
    const auto format = g.text_or("format", format_of_all);
    std::vector<module_pattern> targets;
    patterns(group, "targets", targets);
    weight_scheme s;
    s.where = where, s.rounds = true;
    key_reader w(weights->is_object() ? *weights : none_, where + ": weights");
    read_weights(w, format, s);
    pass_on(g), pass_on(w);
    add(std::move(s), std::move(targets));
  }

  /// The first complaint about a part is one about the whole.
  void pass_on(const key_reader& part) {
    if (!part.message().empty()) k_.fail(part.message().substr(where_.size() + 2));
  }

  void read_weights(key_reader& w, const std::string& format, weight_scheme& s) {
    s.bits = static_cast<int>(w.integer("num_bits", 1, 16));
    const auto type = w.text_or("type", "int");
    const auto size = w.has("group_size") ? w.integer("group_size", -1, widest) : 0;
    auto strategy = w.text_or("strategy", size > 0                   ? "group"
                                          : size < 0                 ? "channel"
                                          : w.has("block_structure") ? "block"
                                                                     : "tensor");
    s.symmetric = w.flag_or("symmetric", true);
    if (strategy == "tensor")
      s.scales = sharing::tensor;
    else if (strategy == "channel")
      s.scales = sharing::channel;
    else if (strategy == "group" || strategy == "tensor_group")
      s.scales = sharing::group, s.group = size;
    else if (strategy == "block")
      s.scales = sharing::block;
    else
      w.fail("strategy", text::in_quotes(strategy) +
                             " is not supported (tensor, channel, group, tensor_group and block are)");
    if (s.scales == sharing::group && s.group < 1)
      w.fail("group_size", "is missing or not positive, but the strategy is " + text::in_quotes(strategy));
    if (s.scales == sharing::block) {
      const auto* block = w.get("block_structure");
      if (block)
        block_of(*block, "block_structure", s);
      else
        w.fail("block_structure", "is missing, but the strategy is 'block'");
    }
    choose_coding(w, format, type, s);
  }

  void choose_coding(key_reader& w, const std::string& format, const std::string& type, weight_scheme& s) {
    const bool whole = type == "int";
    if (type != "int" && type != "float")
      return w.fail("type", text::in_quotes(type) + " is not supported (int and float are)");
    if (whole && s.bits != 4 && s.bits != 8)
      return w.fail("num_bits", std::to_string(s.bits) + " is not supported (4 and 8 are)");
    if (!whole && s.bits != 4 && s.bits != 8)
      return w.fail("num_bits", std::to_string(s.bits) + " of type float is not supported (4 and 8 are)");
    s.how = whole           ? coding::integers
            : s.bits == 8   ? coding::fp8
            : s.group == 32 ? coding::mxfp4
                            : coding::nvfp4;
    if (s.how == coding::nvfp4 && s.group != 16)
      return w.fail("group_size",
                    std::to_string(s.group) + " of 4-bit floats is neither 16 (nvfp4) nor 32 (mxfp4)");
    const auto fits = [&] {
      if (format == "pack-quantized" || format == "int-quantized") return s.how == coding::integers;
      if (format == "float-quantized") return s.how == coding::fp8;
      if (format == "naive-quantized") return s.how == coding::fp8 || s.how == coding::integers;
      if (format == "nvfp4-pack-quantized") return s.how == coding::nvfp4;
      if (format == "mxfp4-pack-quantized") return s.how == coding::mxfp4;
      return format == "mixed-precision" || format == "dense";
    };
    if (!fits())
      w.fail(
          "num_bits",
          std::to_string(s.bits) + " of type " + text::in_quotes(type) + " does not go with format " +
              text::in_quotes(format) +
              " (pack-quantized, int-quantized, float-quantized, naive-quantized, nvfp4-pack-quantized and "
              "mxfp4-pack-quantized are known)");
  }

  static inline const document none_ = document::object();
  const document& config_;
  key_reader k_;
  std::string where_;
  quantization out_;
};

result<quantization> quantization::read(const document* config, const std::string& where) {
  if (!config) return quantization{};
  if (!config->is_object()) return error{where + ": is no object"};
  return quantization_reader(*config, where).read();
}

}  // namespace quantal::hf
