// How config.json says that weights are stored: the quantization_config of fp8, compressed-tensors, ModelOpt,
// GPTQ, AWQ and mxfp4 checkpoints.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pattern.hpp"
#include "strict_json.hpp"

namespace quantal::hf {

enum class coding : std::uint8_t { fp8, integers, nvfp4, mxfp4, gptq, awq };
std::string_view to_string(coding) noexcept;

/// Which weights share a scale.
enum class sharing : std::uint8_t { tensor, channel, group, block, unstated };
std::string_view to_string(sharing) noexcept;

struct weight_scheme {
  std::string where;  ///< for messages: "config.json: quantization_config: config_groups.group_0"
  coding how = coding::fp8;
  sharing scales = sharing::unstated;
  int bits = 8;
  bool symmetric = true;
  std::int64_t group = 0;                       ///< columns per scale where `scales` is group
  std::array<std::int64_t, 2> block{128, 128};  ///< rows and columns per scale of a block
  bool zeros_minus_one = false;                 ///< GPTQ's first format stores zero points one too low
  bool rounds = false;                          ///< products are rounded to the type of the scale
};

/// A module's name, a class, or an expression that a name must begin with ("re:...").
class module_pattern {
 public:
  static result<module_pattern> parse(const std::string& text);
  /// An error if an expression takes absurdly many steps.
  result<bool> names(const std::string& module) const;
  /// "Linear": stands for every matrix here.
  bool is_class() const noexcept { return is_class_; }

 private:
  std::string name_;
  bool is_class_ = false;
  std::optional<pattern> expression_;
};

/// A word of a module's name, or several with dots between them, and what another layout has in its place. Those of
/// several stand before their first.
struct module_word {
  std::string_view own, other;
  bool keeps_rest = false;  ///< words behind it are the same in both
};

class quantization {
 public:
  /// `config`: null for a checkpoint that is not quantized. Errors name the key.
  static result<quantization> read(const document* config, const std::string& where);

  /// How a module's weight is stored; null if it stays as it is. `modules`: its names with and without a
  /// wrapper's prefix.
  result<const weight_scheme*> find(const std::string& module) const;
  /// Lists of modules may also have the names of another layout, in which "model." stands before them.
  void add_names(std::span<const module_word> words) { words_ = words; }

 private:
  friend class quantization_reader;
  struct entry {
    weight_scheme scheme;
    std::vector<module_pattern> targets;  ///< empty: everything
  };
  result<bool> any_names(const std::vector<module_pattern>& patterns, const std::string& module) const;

  std::span<const module_word> words_;
  std::vector<entry> entries_;
  std::vector<module_pattern> ignored_;
};

}  // namespace quantal::hf
