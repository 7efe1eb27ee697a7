#include "families/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace quantal::hf {
namespace {

const document no_parameters = document::object();

/// The object that holds the parameters; one without keys if there is none.
const document& parameters_of(key_reader& k, const char* kind) {
  const auto *newer = k.get("rope_parameters"), *older = k.get("rope_scaling");
  if (newer && older && *newer != *older) k.fail("rope_scaling", "is not what key 'rope_parameters' says");
  const auto* found = newer ? newer : older;
  if (found && found->is_object() && kind && member(*found, kind)) found = member(*found, kind);
  if (found && !found->is_object()) k.fail(newer ? "rope_parameters" : "rope_scaling", "is no object");
  return found && found->is_object() ? *found : no_parameters;
}

/// The family has a tensor for divisors of the frequencies.
bool takes_factors(const family& f) {
  return std::any_of(f.tensors.begin(), f.tensors.end(),
                     [](const tensor_row& row) { return (row.needs & trait::rope_factors) != 0; });
}

void set_yarn(key_reader& r, model_config& m) {
  m.set("rope.scaling.type", std::string("yarn"));
  m.set_number("rope.scaling.factor", r.number("factor", 1e-6));
  m.set_integer("rope.scaling.original_context_length",
                r.integer("original_max_position_embeddings", 1, longest_context));
  for (const auto& [config, gguf] : {std::pair{"beta_fast", "rope.scaling.yarn_beta_fast"},
                                     std::pair{"beta_slow", "rope.scaling.yarn_beta_slow"},
                                     std::pair{"attention_factor", "rope.scaling.yarn_attn_factor"}})
    if (r.has(config)) m.set_number(gguf, r.number(config, 0.0));
}

/// Whether cosines and sines grow with yarn's factor. They do without `mscale` and `mscale_all_dim`: the multiplier 0
/// says so. Equal ones cancel each other, as does a factor that config.json has itself: that is 1.
double log_multiplier(key_reader& r) {
  if (r.has("attention_factor")) return 1;
  const double mscale = r.number_or("mscale", 0.0, 0.0), all = r.number_or("mscale_all_dim", 0.0, 0.0);
  if ((mscale == 0) != (all == 0))
    r.fail(mscale == 0 ? "mscale" : "mscale_all_dim",
           std::string("is missing or 0, where there is ") + (mscale == 0 ? "mscale_all_dim" : "mscale"));
  else if (mscale != all)
    r.fail("mscale",
           text::format("%g is not supported where mscale_all_dim is %g, only the same", mscale, all));
  return mscale == 0 ? 0 : 1;
}

/// Ministral 3: queries grow with their position, from yarn's original context on.
void set_temperature(key_reader& r, model_config& m) {
  m.set_number("rope.scaling.yarn_log_multiplier", log_multiplier(r));
  m.set_number("attention.temperature_scale", r.number_or("llama_4_scaling_beta", 0.0, 0.0));
}

/// Llama 3.1: long waves are stretched by the factor, short ones stay, those between are blended. Frequencies
/// are floats, as in the checkpoint's own library.
void set_factors(key_reader& r, model_config& m, double base) {
  const double factor = r.number("factor", 1e-6), low = r.number("low_freq_factor", 0.0),
               high = r.number("high_freq_factor", 0.0);
  const auto context = static_cast<double>(r.integer("original_max_position_embeddings", 1, longest_context));
  if (high <= low) return r.fail("high_freq_factor", "is not above low_freq_factor");
  const std::int64_t width = m.sizes[size::head];
  for (std::int64_t i = 0; i < width; i += 2) {
    const float frequency =
        1 / std::pow(static_cast<float>(base), static_cast<float>(i) / static_cast<float>(width));
    const double wave = 2 * std::numbers::pi / static_cast<double>(frequency);
    const double turns = context / wave;
    const double share = std::clamp((turns - low) / (high - low), 0.0, 1.0);
    m.rope_factors.push_back(static_cast<float>(1 / ((1 - share) / factor + share)));
  }
  m.traits |= trait::rope_factors;
}

}  // namespace

rope_reader::rope_reader(key_reader& k, const char* kind)
    : k_(k), parameters_(parameters_of(k, kind), k.where() + ": rope scaling", k.names()) {}

rope_reader::~rope_reader() { k_.adopt(parameters_); }

double rope_reader::base(double otherwise) {
  const bool outside = k_.has("rope_theta");
  const double b = parameters_.has("rope_theta") ? parameters_.number("rope_theta", 1.0)
                   : outside                     ? k_.number("rope_theta", 1.0)
                                                 : otherwise;
  if (b == 0.0) k_.fail("rope_theta", "is missing");
  return b;
}

std::string rope_reader::type() {
  const auto older = parameters_.text_or("type", "default");
  return parameters_.text_or("rope_type", older);
}

void rope_reader::refuse(const std::string& type, const char* known) {
  parameters_.fail("type " + text::in_quotes(type) + " is not supported, only " + known);
}

void rope_reader::note_unused(model_config& m) const {
  for (const auto& key : parameters_.unused())
    if (key != "rope_type" && key != "type")
      m.notices.push_back("rope scaling: key " + text::in_quotes(key) + " is ignored");
}

void refuse_temperature(key_reader& k, const char* why) {
  const auto* scaling = k.get("llama_4_scaling");
  const auto* beta = scaling ? member(*scaling, "beta") : nullptr;
  if (scaling && (!beta || *beta != 0)) k.fail("llama_4_scaling", std::string("is not supported") + why);
}

void read_rope(key_reader& k, model_config& m, double otherwise, const char* kind) {
  rope_reader rope(k, kind);
  auto& r = rope.parameters();
  const double base = rope.base(otherwise);
  m.set_number("rope.freq_base", base);
  const auto type = rope.type();
  for (auto* reader : {&k, &r}) reader->only("partial_rotary_factor", 1.0);
  // Temperature counts in original contexts, which the GGUF has with yarn only.
  if (!m.kind->has_temperature || type != "yarn") r.only("llama_4_scaling_beta", 0.0);
  if (type == "linear") {
    m.set("rope.scaling.type", std::string("linear"));
    m.set_number("rope.scaling.factor", r.number("factor", 1e-6));
  } else if (type == "yarn") {
    set_yarn(r, m);
    if (m.kind->has_temperature) set_temperature(r, m);
  } else if (type == "llama3" && takes_factors(*m.kind)) {
    set_factors(r, m, base);
  } else if (type != "default") {
    return rope.refuse(type, takes_factors(*m.kind) ? "linear, yarn and llama3" : "linear and yarn");
  }
  rope.note_unused(m);
}

}  // namespace quantal::hf
