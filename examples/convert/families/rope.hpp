// Rotary positions in config.json.
#pragma once

#include "families/family.hpp"

namespace quantal::hf {

/// rope_scaling, or rope_parameters as newer writers call it, which then also holds the base.
class rope_reader {
 public:
  /// `kind`: the entry of rope_parameters to read where there is one per kind of attention; null: the
  /// parameters are the only ones.
  explicit rope_reader(key_reader& k, const char* kind = nullptr);
  /// Complaints become those of the whole.
  ~rope_reader();
  rope_reader(const rope_reader&) = delete;
  rope_reader& operator=(const rope_reader&) = delete;

  /// `otherwise`: 0: there must be one.
  double base(double otherwise = 0);
  /// "default" without scaling.
  std::string type();
  key_reader& parameters() noexcept { return parameters_; }
  void refuse(const std::string& type, const char* known);
  /// Names keys that nobody asked for in notices.
  void note_unused(model_config& m) const;

 private:
  key_reader& k_;
  key_reader parameters_;
};

/// `llama_4_scaling`, the temperature of attention as an object of its own, is an error. `why` ends its message.
void refuse_temperature(key_reader& k, const char* why);

/// The base and the scaling (none, linear, yarn, llama3) as keys and rotary factors.
/// `base`: where config.json has none; 0: there must be one.
void read_rope(key_reader& k, model_config& m, double base = 0, const char* kind = nullptr);

}  // namespace quantal::hf
