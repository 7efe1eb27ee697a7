#include "families/decoder.hpp"

namespace quantal::hf {
namespace {

std::int64_t most_of(const key_row& row) {
  return row.to == size::layers                              ? 1024
         : row.to == size::one || row.to == size::vocabulary ? longest_context
                                                             : largest_size;
}

/// What a config.json leaves out because it follows.
void derive(key_reader& k, model_config& m) {
  auto& s = m.sizes;
  if (s[size::kv_heads] < 0) s[size::kv_heads] = s[size::heads];
  if (s[size::head] < 0) s[size::head] = s[size::embedding] / s[size::heads];
  if (s[size::head] < 1) k.fail("hidden_size", "is less than num_attention_heads");
  if (s[size::head] % 2) k.fail("head_dim", "is odd");
  if (s[size::heads] % s[size::kv_heads])
    k.fail("num_key_value_heads", "does not divide num_attention_heads");
  s[size::queries] = s[size::heads] * s[size::head];
  s[size::key_values] = s[size::kv_heads] * s[size::head];
}

}  // namespace

void read_keys(key_reader& k, model_config& m) {
  auto& s = m.sizes;
  std::vector<std::int64_t> numbers;
  for (const auto& row : m.kind->keys) {
    const char* name = row.also && !k.has(row.config) ? row.also : row.config;
    numbers.push_back(row.otherwise ? k.integer_or(name, *row.otherwise, 1, most_of(row))
                                    : k.integer(name, 1, most_of(row)));
    if (row.to != size::one) s[row.to] = numbers.back();
  }
  if (m.kind->keys.empty()) return;
  derive(k, m);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const auto& row = m.kind->keys[i];
    if (row.gguf) m.set_integer(row.gguf, row.to == size::one ? numbers[i] : s[row.to]);
  }
  const double epsilon = m.kind->epsilon;
  m.set_number("attention.layer_norm_rms_epsilon",
               epsilon > 0 ? k.number_or("rms_norm_eps", epsilon, 0.0) : k.number("rms_norm_eps", 0.0));
  m.dense_layers = s[size::layers];
}

void check_pattern(key_reader& k, const model_config& m, std::int64_t every, std::int64_t at) {
  const auto* kinds = k.get("layer_types");
  if (!kinds) return;
  const auto layers = m.sizes[size::layers];
  if (!kinds->is_array() || static_cast<std::int64_t>(kinds->size()) != layers)
    return k.fail("layer_types", "does not name every layer");
  for (std::int64_t i = 0; i < layers; ++i) {
    const auto& kind = (*kinds)[static_cast<std::size_t>(i)];
    const std::string_view want = i % every == at ? "full_attention" : "sliding_attention";
    if (!kind.is_string() || kind.get_ref<const std::string&>() != want)
      return k.fail("layer_types", "layer " + std::to_string(i) + " is not what a " +
                                       std::string(m.kind->architecture) + " GGUF takes it for");
  }
}

void set_head_width(model_config& m) {
  m.set_integer("attention.key_length", m.sizes[size::head]);
  m.set_integer("attention.value_length", m.sizes[size::head]);
}

void read_experts(key_reader& k, model_config& m) {
  const auto& s = m.sizes;
  if (s[size::experts] > 1024)
    k.fail("number of experts", std::to_string(s[size::experts]) + " is above 1024");
  if (s[size::experts_used] > s[size::experts])
    k.fail("num_experts_per_tok", "is more than there are experts");
  m.dense_layers = 0;
}

void leave_out_window(key_reader& k, model_config& m, bool used) {
  const auto* window = k.get("sliding_window");
  k.get("max_window_layers");
  if (!window || !used) return;
  m.notices.push_back(
      "sliding_window is left out: attention is over the whole context, which is the same "
      "for as many tokens (" +
      window->dump() + ")");
}

}  // namespace quantal::hf
